"""``sleepctl live``: what the process that asks an endpoint is given, and what it answers."""

from __future__ import annotations

import msgspec

from sleepd.protocol.status import SCHEMA

from .adapter_fingerprint import Identity


class LiveRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Which endpoint is asked, and whose fingerprints it is held against."""

    url: str
    state: str
    """The state directory."""
    model: str = ""
    """The name that it is served under; empty: the engine's only one."""
    key_file: str = ""
    """A file with the key that the engine wants; empty: none."""
    seconds: float = 60.0
    """Most time for one answer."""
    is_check: bool = False
    """Ask also where no cycle has a fingerprint yet: whether the engine gives what a proof needs."""


class LiveAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What an endpoint runs, beside what is in use here."""

    schema: int = SCHEMA
    url: str
    model: str
    in_use: int | None
    """The cycle that ``current`` points to; None: the base."""
    is_in_use: bool
    """Whether the endpoint was proved to run that."""
    identity: Identity
    compared: list[int]
    """Cycles whose fingerprints it was held against, in this order."""
    without: list[int]
    """Cycles that have no fingerprint: an earlier version made them, or it could not be made."""
    seconds: float
    """That the asking took."""
