"""When to sleep: whether a cycle is due now, when one will be, and when to warn that none comes. Pure."""
