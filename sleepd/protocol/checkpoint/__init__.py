"""What stands in a checkpoint besides weights: its files, where its adapter came from, and which base it needs."""
