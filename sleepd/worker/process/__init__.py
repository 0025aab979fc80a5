"""What the worker knows of, and limits in, its own process: activity, threads, memory, a hung layer."""
