"""The parser of the command line: its grammar, the types of its arguments, and the texts of ``--help``."""
