"""A cycle's worker on another machine: the engine ``ssh``."""
