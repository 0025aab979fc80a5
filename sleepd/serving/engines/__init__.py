"""One module for each kind of engine: how an adapter gets into it."""
