"""What ``sleepctl worker-host check`` shows."""

from __future__ import annotations

from typing import Literal

import msgspec


class HostFinding(msgspec.Struct, frozen=True):
    """One thing that a cycle on the host needs."""

    name: str
    level: Literal["PASS", "WARN", "FAIL"]
    text: str
    hint: str
    """The next step; empty where nothing is missing."""


class HostCheck(msgspec.Struct, frozen=True, kw_only=True):
    """All of them."""

    host: str
    findings: list[HostFinding]
