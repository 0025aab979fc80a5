"""The worker: one process a cycle that trains an adapter, measures it, and says both. The only place that imports torch."""
