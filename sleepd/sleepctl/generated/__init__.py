"""Completions and manual pages, generated from the command line's grammar."""
