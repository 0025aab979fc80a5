"""What speaks to the engines that run an adapter: asking them, identifying what they run, putting adapters in use.

``follow`` is for agents in Python.
"""

from .following import follow

__all__ = ["follow"]
