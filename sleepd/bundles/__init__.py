"""Adapters that travel: one signed file with an adapter and what was measured on it, without texts."""
