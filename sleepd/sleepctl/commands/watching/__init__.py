"""Commands that follow the daemon and tell what happens: on a screen, in a log, on the page."""
