"""The training loop: schedule, steps, early stopping."""
