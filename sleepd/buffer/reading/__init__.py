"""The files of a buffer: which they are, how they are read, and what they stand for together."""
