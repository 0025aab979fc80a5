"""The ledger, the one SQLite database: its schema, its tables, its notes, and how it is rebuilt."""
