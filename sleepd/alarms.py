"""Warnings that stand: since when a sleep is due, and what the owner has been told already. Both survive a restart."""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec

from .clock import Clock, Elapsed
from .config import Config
from .ledger import Ledger
from .log import get_logger
from .overdue import Limits, alarms, is_overdue
from .status import Alarm, Decision

_DUE_SINCE = "due_since"
_STANDING = "alarms"


class Alarms:
    """The warnings of one state directory; each is logged once when it begins and once when it ends."""

    def __init__(self, ledger: Ledger, clock: Clock) -> None:
        self._ledger = ledger
        self._clock = clock
        self._since_due = Elapsed(clock)
        self.standing: list[Alarm] = []

    def update(self, decision: Decision, config: Config) -> None:
        """Look at the newest decision."""
        limits = Limits(overdue_hours=config.triggers.overdue_hours, max_cycles_a_day=config.triggers.max_cycles_a_day)
        today = self._ledger.begun_since(self._clock.now() - timedelta(days=1))
        hours = self._hours_due(decision)
        self.standing = alarms(decision, hours_due=hours, cycles_today=today, limits=limits)
        told = self._ledger.note(_STANDING) or []
        names = [alarm.name for alarm in self.standing]
        for alarm in self.standing:
            if alarm.name not in told:
                get_logger().warning(f"{alarm.name}_began", text=alarm.text)
        for name in told:
            if name not in names:
                get_logger().info(f"{name}_ended")
        if names != told:
            self._ledger.set_note(_STANDING, names)

    def _hours_due(self, decision: Decision) -> float:
        noted = self._ledger.note(_DUE_SINCE)
        if not is_overdue(decision):
            if noted is not None:
                self._ledger.set_note(_DUE_SINCE, None)
            return 0.0
        if noted is None:
            noted = self._clock.now().isoformat()
            self._ledger.set_note(_DUE_SINCE, noted)
        return self._since_due.seconds_since(msgspec.convert(noted, datetime)) / 3600
