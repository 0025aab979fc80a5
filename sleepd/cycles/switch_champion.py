"""Another champion promoted: by the operator's hand, or by ourselves when the one in use was found worse.

Both go the same way. What is to be done by ourselves is noted before (``demotion``), and done at the next refresh after
whatever came between.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sleepd.cycle import Event
from sleepd.errors import SleepdError
from sleepd.log import get_logger
from sleepd.registry.demotion import Demotion
from sleepd.registry.rollback import activate, find_champion

from .repair import Repair
from .running.planning import Sources
from .running.runner import CycleRunner


class ChampionSwitch:
    """What is in use in one state directory, and how that changes without a cycle."""

    def __init__(
        self,
        sources: Sources,
        *,
        runner: CycleRunner,
        repair: Repair,
        demotion: Demotion,
        listener: Callable[[str, dict[str, Any]], None],
    ) -> None:
        self._ledger = sources.ledger
        self._checkpoints = sources.checkpoints
        self._runner = runner
        self._repair = repair
        self._fit = sources.fit
        self._history = sources.history
        self._demotion = demotion
        self._listener = listener

    def roll_back(self, to: int | None) -> tuple[int | None, int | None]:
        """As ``Sleeper.rollback``; no cycle may be under way."""
        to, was = find_champion(to, self._ledger, self._checkpoints)
        self._put(to, was, "by hand")
        self._demotion.forget()
        return to or None, was

    def demote_if_pending(self) -> None:
        """Roll back a champion that was found worse, or breaks a limit of the operator's; no cycle may be under way.

        Raises:
            SleepdError: the disk did not take it; it stays pending.
        """
        pending = self._demotion.pending()
        if pending is None:
            return
        # Not in use any more: a crash came between the deed and its record.
        if self._checkpoints.champion() == pending.champion:
            to, was = find_champion(None, self._ledger, self._checkpoints)
            self._put(to, was, pending.reason)
        self._demotion.done()

    def demote_after_cycle(self) -> None:
        """As ``demote_if_pending``; where the disk does not take it, that is said, and the next refresh tries again."""
        try:
            self.demote_if_pending()
        except SleepdError as error:
            get_logger().error("rollback_failed", text=error.message, hint=error.hint)

    def _put(self, to: int, was: int | None, why: str) -> None:
        suspended = self._ledger.suspended_cycle()
        if suspended is not None:
            self._runner.discard(suspended, Event.INTERRUPT, "another champion was activated meanwhile")
        with self._repair.responsible():
            activate(to, self._ledger, self._checkpoints)
        self._fit.forget()
        self._history.forget_cached()
        in_use = f"cycle {to}" if to else "the base"
        fields = {"champion": to or None, "was": was, "text": f"{in_use} is in use: {why}"}
        get_logger().warning("champion_rolled_back", **fields)
        self._listener("champion_rolled_back", fields)
