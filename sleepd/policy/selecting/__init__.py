"""What a cycle trains, replays and holds out. Pure."""
