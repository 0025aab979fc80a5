"""Commands on the experiences of the buffer: what was understood, and what is kept from training."""
