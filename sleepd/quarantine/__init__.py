"""Which experiences are excluded from training, and why: screening, rules, overrides. Knows no cycle."""
