"""Strings in, findings out: what a text holds, and how it is shown safely. Knows no experience and no file."""
