"""A cycle's page as one file that needs nothing else: no server, no script, no address."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from datetime import datetime

from sleepd.protocol.status import CycleSummary
from sleepd.sleepctl.pages.report_page import KnownCycle
from sleepd.version import VERSION

from .rendering import render, static
from .values import cycle_values


def report_file(known: KnownCycle, cycles: Iterable[CycleSummary], now: datetime) -> str:
    """The whole file. ``cycles``: for the lineage; empty: none is shown."""
    style = static("style.css").rstrip(b"\n")
    digest = base64.b64encode(hashlib.sha256(style).digest()).decode()
    values = cycle_values.values(known, cycles, now)
    return render("report_file.html", **values, digest=digest, version=VERSION, has_links=False)
