"""Commands that set something up: the configuration, the buffer, the engine, the completions of a shell."""
