"""``sleepctl doctor``: facts gathered, findings judged."""
