"""What chat programs export, or write of a chat."""
