"""The base and its adapter: found, checked, loaded, run, saved."""
