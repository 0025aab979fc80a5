"""How much memory a cycle takes: estimated, measured, and what is done when it does not suffice."""
