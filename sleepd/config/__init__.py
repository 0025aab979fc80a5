"""The configuration: what can be set, its layers, its checks, its text. Does not know the daemon."""
