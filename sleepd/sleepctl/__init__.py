"""``sleepctl``: the command line. It speaks to the daemon's socket; with the daemon down it reads its files."""
