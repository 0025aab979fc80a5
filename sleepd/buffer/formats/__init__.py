"""What other programs write: a module for each format, all with the same face (``format``)."""
