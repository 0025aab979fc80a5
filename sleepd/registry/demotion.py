"""A champion that the daemon itself takes out of use: it was found worse on later experiences, or it breaks a limit.

What is found is owed before anything else happens, in a note that survives a crash; it is done by the same rollback
that the owner has. From then until another candidate is promoted, or the owner puts one in use, it stands as an alarm.
"""

from __future__ import annotations

import msgspec

from sleepd.clock import Clock, Moment
from sleepd.errors import CheckpointInvalid
from sleepd.policy.overdue import ActiveAlarm
from sleepd.policy.probation import compare
from sleepd.protocol.job import Failure
from sleepd.protocol.verdict import Comparison
from sleepd.store.checkpoints import Checkpoints
from sleepd.store.ledger import Ledger

ALARM = "champion_rolled_back"
_NOTE = "demotion"
_COMPARISON = "comparison"


class Demoted(msgspec.Struct, frozen=True, kw_only=True):
    """What was found, and whether it is done."""

    champion: int
    reason: str
    at: Moment
    found_by: int | None = None
    """The cycle that found it; None: the owner's figure did."""
    is_done: bool = False


class Demotion:
    """What is owed and what was done on one state directory."""

    def __init__(self, ledger: Ledger, checkpoints: Checkpoints, clock: Clock) -> None:
        self._ledger = ledger
        self._checkpoints = checkpoints
        self._clock = clock

    # --- finding ---

    def note_failure(self, failure: Failure, found_by: int, confidence: float) -> str:
        """A worker says that the champion is worse; it is owed if its figures say so too.

        Returns:
            Why the cycle ended, in a sentence; empty: the figures do not say it.
        """
        measured = failure.probation
        if measured is None or measured.champion != self._champion():
            return ""
        found = compare(measured, confidence)
        if found.outcome != "worse":
            return ""
        self._ledger.set_note(f"{_COMPARISON}_{found.champion}", (found, found_by))
        self.owe(found.champion, found.reason, found_by=found_by)
        return found.reason

    def owe(self, champion: int, reason: str, *, found_by: int | None = None) -> None:
        """That champion is to go."""
        self._note(Demoted(champion=champion, reason=reason, at=self._clock.now(), found_by=found_by))

    def comparison(self, champion: int, confidence: float) -> tuple[Comparison, int] | None:
        """What later experiences said of that champion, and the cycle that asked; None: nobody has asked yet."""
        noted = self._ledger.note(f"{_COMPARISON}_{champion}")
        if noted is not None:
            return msgspec.convert(noted, tuple[Comparison, int])
        asked = self._ledger.compared_by(champion)
        report = self._ledger.report(asked) if asked is not None else None
        if asked is None or report is None or report.evidence.probation is None:
            return None
        return compare(report.evidence.probation, confidence), asked

    def is_on_probation(self, cycle: int, confidence: float) -> bool:
        """Whether it was put in use on open evidence, and later experiences have not confirmed it."""
        verdict = self._ledger.verdict(cycle)
        if verdict is None or not verdict.is_on_probation:
            return False
        compared = self.comparison(cycle, confidence)
        return compared is None or compared[0].outcome == "undecided"

    # --- doing ---

    def owed(self) -> Demoted | None:
        """What is to be done still; None: nothing."""
        noted = self._noted()
        return None if noted is None or noted.is_done else noted

    def done(self) -> None:
        """The champion is out of use."""
        noted = self._noted()
        if noted is not None:
            self._note(msgspec.structs.replace(noted, is_done=True))

    def forget(self) -> None:
        """Another one was promoted, or the owner chose."""
        if self._noted() is not None:
            self._ledger.set_note(_NOTE, None)

    @property
    def found_by(self) -> int | None:
        """The cycle that ended because it found its champion worse."""
        noted = self._noted()
        return noted.found_by if noted else None

    @property
    def alarms(self) -> list[ActiveAlarm]:
        """What stands."""
        noted = self._noted()
        return (
            [ActiveAlarm(name=ALARM, text=f"rolled back by itself: {noted.reason}")] if noted and noted.is_done else []
        )

    def _champion(self) -> int | None:
        try:
            return self._checkpoints.champion()
        except CheckpointInvalid:
            return None

    def _noted(self) -> Demoted | None:
        noted = self._ledger.note(_NOTE)
        return msgspec.convert(noted, Demoted) if noted else None

    def _note(self, demoted: Demoted) -> None:
        self._ledger.set_note(_NOTE, demoted)
