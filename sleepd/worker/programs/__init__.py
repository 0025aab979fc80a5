"""Short programs beside the cycle: ``python -m sleepd.worker.programs.NAME``."""
