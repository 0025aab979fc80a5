"""What the daemon, the process that speaks to engines, and the programs that convert adapters tell each other."""
