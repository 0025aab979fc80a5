"""Pure rules: facts in, decision out. No clock, no file, no process; each rule has a table of cases as its test."""
