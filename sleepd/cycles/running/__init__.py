"""One cycle: planned, run by a worker process, judged and committed, or taken up again after an interruption."""
