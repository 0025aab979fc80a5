"""Where a reply came from, as far as its record tells. Pure."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from .experience import said_under
from .said_at import said_at


class ReplyOrigin(msgspec.Struct, frozen=True):
    """What a program noted of who gave a reply, and when."""

    under: int | None = None
    """The cycle whose adapter gave it; None: unknown."""
    at: int | None = None
    """Unix time in seconds; None: unknown."""
    model: str | None = None
    """The name of the model; empty: the program noted none. None: the agent's own record, of the model in service."""

    def served_at(self, served_as: str) -> int | None:
        """When the engine that answers as ``served_as`` gave it; None: unknown, or another model may have given it."""
        return self.at if self.model is None or (self.model and self.model == served_as) else None


UNKNOWN: Final = ReplyOrigin()


def origin_of(model: Any, *times: Any) -> ReplyOrigin:
    """By the model's name in another program's record, and by the first of several values that is a time."""
    known = (said_at(each) for each in times)
    at = next((each for each in known if each is not None), None)
    return ReplyOrigin(said_under({"adapter": model}), at, model if isinstance(model, str) else "")
