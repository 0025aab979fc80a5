"""Commands on a cycle and its adapter: show it, keep it, export it, share it with other machines."""
