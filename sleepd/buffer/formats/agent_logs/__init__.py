"""What agents write of their own sessions."""
