"""The agent's buffer file: read, parsed, watched. Never writes that file and knows no cycle."""
