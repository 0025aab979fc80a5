"""One cycle from plan to commit, and the recovery of an interrupted one. Knows no socket and no systemd."""
