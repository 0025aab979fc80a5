"""Warnings that last: since when a sleep is due, and what was warned of already. Both survive a restart."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

import msgspec

from sleepd.clock import Clock, Elapsed
from sleepd.config.schema import Config
from sleepd.log import get_logger
from sleepd.policy.timing.overdue import ActiveAlarm, Limits, alarms, is_overdue
from sleepd.policy.timing.triggers import Decision
from sleepd.store.sqlite.ledger import Ledger
from sleepd.store.sqlite.notes import ALARMS, DUE_SINCE, PAST_ALARMS, AlarmSpan

_FIGURES = re.compile(r"\d+(?:\.\d+)?")
KEPT_ALARMS = 100
"""Of the past, the newest."""
CLOCK_TOLERANCE = timedelta(minutes=1)
"""Clocks are corrected by so much without anybody having to know."""


class Alarms:
    """The warnings of one state directory; each is logged when it begins, when its cause changes, and when it ends.

    Those about cycles that do not start or start too often survive a restart; those of ``note`` are of this process.
    """

    def __init__(self, ledger: Ledger, clock: Clock) -> None:
        self._ledger = ledger
        self._clock = clock
        self._since_due = Elapsed(clock)
        self._of_sleeps: list[ActiveAlarm] = []
        self._noted: dict[str, ActiveAlarm] = {}

    @property
    def active(self) -> list[ActiveAlarm]:
        """All that last now."""
        return [*self._of_sleeps, *self._noted.values()]

    def note(self, name: str, text: str) -> None:
        """A warning is active from now on, or, with an empty text, no longer.

        Where another cause replaces the one that was logged, it is logged too; other figures are not.
        """
        was = self._noted[name].text if name in self._noted else ""
        if text and _FIGURES.sub("", text) != _FIGURES.sub("", was):
            get_logger().warning(name, text=text)
        elif not text and name in self._noted:
            get_logger().info(f"{name}_ended")
        if text:
            self._noted[name] = ActiveAlarm(name=name, text=text)
        else:
            self._noted.pop(name, None)

    def update(self, decision: Decision, config: Config, *, last_sleep_at: datetime | None) -> None:
        """Update the warnings from the newest decision."""
        self._note_last_sleep(last_sleep_at)
        full = [veto.text for veto in decision.vetoes if veto.name == "disk_full"]
        self.note("disk_full", full[0] if full else "")
        limits = Limits(overdue_hours=config.triggers.overdue_hours, max_cycles_a_day=config.triggers.max_cycles_a_day)
        now = self._clock.now()
        today = self._ledger.begun_between(now - timedelta(days=1), now)
        hours = self._hours_due(decision)
        self._of_sleeps = alarms(decision, hours_due=hours, cycles_today=today, limits=limits)
        logged = self._ledger.note(ALARMS) or []
        names = [alarm.name for alarm in self._of_sleeps]
        for alarm in self._of_sleeps:
            if alarm.name not in logged:
                get_logger().warning(f"{alarm.name}_began", text=alarm.text)
        for name in logged:
            if name not in names:
                get_logger().info(f"{name}_ended")
        if names != logged:
            self._ledger.set_note(ALARMS, names)
        self._record()

    @property
    def past(self) -> list[AlarmSpan]:
        """Those that lasted at a poll, with those that last; newest first."""
        return self._ledger.note(PAST_ALARMS) or []

    def _record(self) -> None:
        past, now = self.past, self._clock.now()
        active = {alarm.name: alarm.text for alarm in self.active}
        known = [
            msgspec.structs.replace(each, until=now) if each.until is None and each.name not in active else each
            for each in past
        ]
        lasting = {each.name for each in known if each.until is None}
        began = [AlarmSpan(name=name, text=text, since=now) for name, text in active.items() if name not in lasting]
        if began or known != past:
            self._ledger.set_note(PAST_ALARMS, [*began, *known][:KEPT_ALARMS])

    def _note_last_sleep(self, at: datetime | None) -> None:
        """Warn where the last sleep is in the future: the clock was set back since, or had been wrong then."""
        is_ahead = at is not None and at > self._clock.now() + CLOCK_TOLERANCE
        text = (
            f"the last sleep is dated {at:%Y-%m-%d %H:%M} UTC, in the future: the clock was set back"
            if is_ahead
            else ""
        )
        self.note("clock_set_back", text)

    def _hours_due(self, decision: Decision) -> float:
        noted = self._ledger.note(DUE_SINCE)
        if not is_overdue(decision):
            if noted is not None:
                self._ledger.set_note(DUE_SINCE, None)
            return 0.0
        if noted is None:
            noted = self._clock.now()
            self._ledger.set_note(DUE_SINCE, noted)
        return self._since_due.seconds_since(noted) / 3600
