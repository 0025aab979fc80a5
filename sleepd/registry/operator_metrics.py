"""Figures that the operator measured on a cycle's adapter after its verdict, and what follows from them.

They stand in ``metrics.json``, not in the checkpoint, which is hashed and never changed, and not in the ledger, which
may be lost. A champion that breaks a limit of the operator's is rolled back.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from sleepd.config.limits import parse_limit
from sleepd.config.schema import Config
from sleepd.errors import DECODE_ERRORS, CheckpointInvalid, NotFound
from sleepd.files import read_document, replace_file
from sleepd.policy.judging.operator_limits import metric_figure
from sleepd.protocol.verdict import AddedMetric, Figure
from sleepd.store.checkpoints import Checkpoints
from sleepd.store.sqlite.ledger import Ledger
from sleepd.text.shell import command_line

from .demotion import Demotion


class MetricEffect(msgspec.Struct, frozen=True, kw_only=True):
    """What a figure that was added, or taken away, changed."""

    was: float | None
    """The figure in whose place it came; None: there was none."""
    figures: list[Figure]
    """It against each of the operator's limits on it."""
    is_broken: bool
    """One of them is missed; a champion is rolled back then."""
    was_champion: bool
    """Its cycle was in use when the figure came."""


class AddedMetrics:
    """Those of one state directory."""

    def __init__(self, ledger: Ledger, checkpoints: Checkpoints, demotion: Demotion) -> None:
        self._ledger = ledger
        self._checkpoints = checkpoints
        self._demotion = demotion
        self._file = checkpoints.directory / "metrics.json"

    def all(self) -> dict[int, list[AddedMetric]]:
        """Of each cycle, in the order they were added.

        Raises:
            CheckpointInvalid: the file is damaged.
        """
        try:
            return msgspec.json.decode(read_document(self._file), type=dict[int, list[AddedMetric]])
        except FileNotFoundError:
            return {}
        except (OSError, *DECODE_ERRORS) as error:
            path = self._file
            raise CheckpointInvalid(
                f"{path}: not understood: {error}",
                hint=f"repair the file, or move it away: {command_line('mv', path, f'{path}.old')}",
            ) from error

    def shown(self, cycle: int) -> list[AddedMetric]:
        """Those of a cycle, for display: a damaged file, which ``add`` refuses by name, shows none."""
        try:
            return self.all().get(cycle, [])
        except CheckpointInvalid:
            return []

    def add(self, cycle: int, name: str, value: float | None, *, at: datetime, config: Config) -> MetricEffect:
        """Add a figure, in place of an earlier one of that name, or (None) take it away.

        A champion that breaks a limit by it gets a pending rollback (``Demotion.set_pending``).

        Raises:
            NotFound: nothing was kept of that cycle, or it has no such figure to take away.
            CheckpointInvalid: the file is damaged.
            OSError: the disk did not take it.
        """
        was = self._set(cycle, name, value, at)
        figures = self._against_limits(cycle, name, config) if value is not None else []
        # Where a limit rests on something unmeasured, nobody knows whether it is broken.
        broken = [each for each in figures if not each.is_met and each.limit is not None]
        champion = self._checkpoints.champion()
        if broken and champion == cycle:
            text = "; ".join(each.text for each in broken)
            self._demotion.set_pending(cycle, f"cycle {cycle} breaks your limit: {text}")
        return MetricEffect(was=was, figures=figures, is_broken=bool(broken), was_champion=champion == cycle)

    def _set(self, cycle: int, name: str, value: float | None, at: datetime) -> float | None:
        if self._checkpoints.find(cycle) is None:
            raise NotFound(f"nothing was kept of cycle {cycle}", hint="sleepctl history shows what there is")
        metrics = self.all()
        of_cycle = {each.name: each for each in metrics.get(cycle, [])}
        was = of_cycle.pop(name, None)
        if value is None and was is None:
            raise NotFound(f"cycle {cycle} has no figure {name}", hint=f"sleepctl show {cycle} shows them")
        if value is not None:
            of_cycle[name] = AddedMetric(name=name, value=value, added_at=at)
        metrics[cycle] = list(of_cycle.values())
        kept = {str(key): of_one for key, of_one in sorted(metrics.items()) if of_one}
        replace_file(self._file, msgspec.json.encode(kept))
        return was.value if was else None

    def _against_limits(self, cycle: int, name: str, config: Config) -> list[Figure]:
        limits = [limit for limit in map(parse_limit, config.promotion.limits) if limit.name == name]
        value, parents = self._value(cycle, name), self._ledger.lineage(cycle)[1:]
        parent = self._value(parents[0], name) if parents else None
        return [metric_figure(limit, value=value, parent=parent) for limit in limits]

    def _value(self, cycle: int, name: str) -> float | None:
        """As added by hand, else as the operator's command measured it in that cycle."""
        added = [each.value for each in self.all().get(cycle, []) if each.name == name]
        if added:
            return added[0]
        report = self._ledger.report(cycle)
        measured = report.evidence.metrics if report else []
        return next((each.candidate for each in measured if each.name == name), None)
