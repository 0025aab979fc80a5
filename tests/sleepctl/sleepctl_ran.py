"""What a call of the command line came to."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec


class Ran(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.out)
