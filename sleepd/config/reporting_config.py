"""What goes out by itself: figures for Prometheus, and a command that is told of events."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from msgspec import Meta

EVENTS: Final = (
    *("promoted", "rejected", "inconclusive", "failed", "cancelled", "interrupted"),
    *("rolled_back", "overdue", "not_served", "alarm", "error"),
)
"""Ends of cycles by their state, two alarms by their name, and three more; ``alarm`` is every alarm."""


class MetricsConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Figures for Prometheus."""

    textfile: Annotated[
        str,
        Meta(
            description="A file that the daemon replaces whenever its status changes, for the textfile collector of "
            "node_exporter; its name must end in .prom. The service may write it below its state directory; elsewhere "
            "the unit needs ReadWritePaths=. Empty: none."
        ),
    ] = ""


class NotifyConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Read by sleepctl notify, which sage-sleep-notify.service runs; the daemon itself has no network."""

    command: Annotated[
        str,
        Meta(
            description="A program with its arguments, started once for each event. Its standard input has the text "
            "in the first line and a JSON object in the second. Empty: nobody is told."
        ),
    ] = ""
    events: Annotated[
        tuple[str, ...],
        Meta(description=f"Which events it is told of, any of {', '.join(EVENTS)}."),
    ] = ("promoted", "rolled_back", "failed", "alarm", "error")
    seconds: Annotated[float, Meta(ge=1.0, le=600.0, description="It is killed after so long.")] = 30.0
    most_per_hour: Annotated[
        int, Meta(ge=1, le=1000, description="Further events of an hour are told as one, with their number.")
    ] = 10
