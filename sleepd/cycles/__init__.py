"""One cycle from plan to commit, and the recovery of one that was cut short. Knows no socket and no systemd."""
