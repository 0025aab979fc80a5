"""The service: its loop, its control socket, systemd, and the views that it answers with."""
