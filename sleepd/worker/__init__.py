"""The worker: one process a cycle, which trains an adapter and measures it. The only place that imports torch."""
