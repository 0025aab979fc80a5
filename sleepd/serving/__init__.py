"""What speaks to the engines that run an adapter: asking them, identifying what they run, putting adapters in use."""
