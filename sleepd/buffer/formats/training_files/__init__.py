"""Files that were made to train a model."""
