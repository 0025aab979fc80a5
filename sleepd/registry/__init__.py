"""Which checkpoint is in use, which stay, which go. Starts no process."""
