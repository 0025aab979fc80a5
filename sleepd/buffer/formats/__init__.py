"""What other programs write: a module for each format, by kind of source, all with the same face (``format``)."""
