"""Which experiences are kept from training, and why: screening, rules, overrides. Knows no cycle."""
