"""Commands on the experiences of the buffer: what was understood, and what is excluded."""
