"""What speaks to the engines that run an adapter: asking them, identifying what they run, putting adapters in use.

``follow`` and ``prove`` are for agents in Python. Each is loaded on first use: the daemon, which imports other parts of
this package, has no network and no use for what speaks to an endpoint.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .following import follow
    from .own_proof import prove

__all__ = ["follow", "prove"]


def __getattr__(name: str) -> Any:
    if name == "follow":
        from .following import follow

        return follow
    if name == "prove":
        from .own_proof import prove

        return prove
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
