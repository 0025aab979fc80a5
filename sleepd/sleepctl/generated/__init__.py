"""What is made from the command lines before a release: manual pages and completion scripts, in ``share/``."""
