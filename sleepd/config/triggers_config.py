"""The ``[triggers]`` section: when a cycle is due, and when something is overdue."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

MOST = 10**9
"""Of experiences, or megabytes: more is a slip, and beyond 4300 digits Python refuses to print it."""


class TriggersConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When to sleep: all three conditions must hold, unless there is a breakthrough."""

    min_experiences: Annotated[
        int, Meta(ge=1, le=MOST, description="Fewest experiences in the buffer for a cycle.")
    ] = 5
    min_new_experiences: Annotated[
        int, Meta(ge=0, le=MOST, description="Fewest of these that are new since the last cycle with a verdict.")
    ] = 2
    min_hours_between_sleep: Annotated[
        float, Meta(ge=0.0, le=8760.0, description="Fewest hours since the last cycle with a verdict.")
    ] = 6.0
    quality_factor: Annotated[
        float,
        Meta(
            ge=1.0,
            le=4.0,
            description="Where the new experiences have a mean salience above 0.75, the two thresholds before are "
            "divided by this; below 0.65 they are multiplied by it. 1: neither.",
        ),
    ] = 1.0
    breakthrough_salience: Annotated[
        float,
        Meta(
            ge=0.0,
            le=1.0,
            description="A new experience of at least this salience makes a cycle due at once; 0: none does.",
        ),
    ] = 0.0
    breakthrough_marks: Annotated[
        tuple[Annotated[str, Meta(min_length=1, max_length=64)], ...],
        Meta(
            max_length=100,
            description='A new experience with one of these words, such as "CLARIFY", as its phase, among its tags or '
            "as a value of its metadata makes a cycle due at once. Case does not count. Logs that have one message a "
            "record have no marks.",
        ),
    ] = ()
    adaptive: Annotated[
        bool,
        Meta(
            description="Halve the two thresholds after three cycles without a gain, and double them after a "
            "cycle that was rejected or overfitted."
        ),
    ] = False
    check_interval_seconds: Annotated[
        float,
        Meta(
            ge=1.0, le=86400.0, description="Interval of the periodic check, for changes that inotify did not report."
        ),
    ] = 300.0
    cooldown_seconds: Annotated[
        float,
        Meta(
            ge=0.0,
            le=86400.0,
            description="Pause after a cycle without a verdict; doubled with each further one, up to 6 h.",
        ),
    ] = 600.0

    overdue_hours: Annotated[
        float, Meta(gt=0.0, le=8760.0, description="Warn when a cycle has been due for longer and has not started.")
    ] = 24.0
    max_cycles_a_day: Annotated[
        int, Meta(ge=1, le=MOST, description="Warn when more cycles than this start in 24 hours.")
    ] = 12
