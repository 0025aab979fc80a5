"""What speaks to the engines that run an adapter: asking them, identifying what they run, putting adapters in use.

``follow`` and ``prove`` are for agents in Python.
"""

from .following import follow
from .own_proof import prove

__all__ = ["follow", "prove"]
