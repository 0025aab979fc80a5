"""A champion that the daemon itself rolls back: it is worse on later experiences, or it breaks a limit.

The finding is first recorded as a pending rollback, in a note that survives a crash; then the same rollback runs
that the operator has. Until another candidate is promoted, or the operator activates one, it is shown as an alarm.
"""

from __future__ import annotations

import msgspec

from sleepd.clock import Clock
from sleepd.errors import CheckpointInvalid
from sleepd.policy.judging.probation import compare
from sleepd.policy.timing.overdue import ActiveAlarm
from sleepd.protocol.job import Failure
from sleepd.protocol.verdict import Comparison
from sleepd.store.checkpoints import Checkpoints
from sleepd.store.sqlite.compared import compared_by
from sleepd.store.sqlite.ledger import Ledger
from sleepd.store.sqlite.notes import DEMOTION, Demoted, FoundComparison, comparison_note

ALARM = "champion_rolled_back"


class Demotion:
    """The pending and the finished rollback of one state directory."""

    def __init__(self, ledger: Ledger, checkpoints: Checkpoints, clock: Clock) -> None:
        self._ledger = ledger
        self._checkpoints = checkpoints
        self._clock = clock

    # --- finding ---

    def note_failure(self, failure: Failure, found_by: int, confidence: float) -> str:
        """A worker reports that the champion is worse; the rollback is pending if its figures confirm that.

        Returns:
            Why the cycle ended, in a sentence; empty: the figures do not confirm it.
        """
        measured = failure.probation
        if measured is None or measured.champion != self._champion():
            return ""
        found = compare(measured, confidence)
        if found.outcome != "worse":
            return ""
        self._ledger.set_note(comparison_note(found.champion), FoundComparison(found, found_by))
        self.set_pending(found.champion, found.reason, found_by=found_by)
        return found.reason

    def set_pending(self, champion: int, reason: str, *, found_by: int | None = None) -> None:
        """Record that the champion's rollback is pending."""
        self._note(Demoted(champion=champion, reason=reason, at=self._clock.now(), found_by=found_by))

    def comparison(self, champion: int, confidence: float) -> tuple[Comparison, int] | None:
        """The comparison of that champion on later experiences, and the cycle that made it; None: there is none yet."""
        noted = self._ledger.note(comparison_note(champion))
        if noted is not None:
            return noted
        asked = compared_by(champion, self._ledger)
        report = self._ledger.report(asked) if asked is not None else None
        if asked is None or report is None or report.evidence.probation is None:
            return None
        return compare(report.evidence.probation, confidence), asked

    def is_on_probation(self, cycle: int, confidence: float) -> bool:
        """Whether it was promoted on probation, and later experiences have not confirmed it."""
        verdict = self._ledger.verdict(cycle)
        if verdict is None or not verdict.is_on_probation:
            return False
        compared = self.comparison(cycle, confidence)
        return compared is None or compared[0].outcome == "undecided"

    # --- doing ---

    def pending(self) -> Demoted | None:
        """The pending rollback; None: there is none."""
        noted = self._ledger.note(DEMOTION)
        return None if noted is None or noted.is_done else noted

    def done(self) -> None:
        """The champion is out of use."""
        noted = self._ledger.note(DEMOTION)
        if noted is not None:
            self._note(msgspec.structs.replace(noted, is_done=True))

    def forget(self) -> None:
        """Another one was promoted, or the operator activated one."""
        if self._ledger.note(DEMOTION) is not None:
            self._ledger.set_note(DEMOTION, None)

    @property
    def found_by(self) -> int | None:
        """The cycle that ended because it found its champion worse."""
        noted = self._ledger.note(DEMOTION)
        return noted.found_by if noted else None

    @property
    def alarms(self) -> list[ActiveAlarm]:
        """What stands."""
        noted = self._ledger.note(DEMOTION)
        return (
            [ActiveAlarm(name=ALARM, text=f"rolled back automatically: {noted.reason}")]
            if noted and noted.is_done
            else []
        )

    def _champion(self) -> int | None:
        try:
            return self._checkpoints.champion()
        except CheckpointInvalid:
            return None

    def _note(self, demoted: Demoted) -> None:
        self._ledger.set_note(DEMOTION, demoted)
