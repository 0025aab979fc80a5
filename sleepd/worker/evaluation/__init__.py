"""What is measured on base, parent and candidate, all in the same way."""
