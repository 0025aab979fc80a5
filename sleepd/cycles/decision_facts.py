"""What a decision rests on, gathered from buffer, ledger, clock, disk and GPU."""

from __future__ import annotations

import shutil
from pathlib import Path

from sleepd.clock import Clock, Elapsed
from sleepd.config.schema import Config
from sleepd.policy.triggers import Facts, cooldown_seconds
from sleepd.registry.compatibility import Fit
from sleepd.registry.demotion import Demotion
from sleepd.store.ledger import Ledger

from .buffer_summary import Intake
from .gpu_lock import GpuLock
from .history import History
from .resume import crashes


class FactFinding:
    """Of one state directory."""

    def __init__(
        self,
        directory: Path,
        ledger: Ledger,
        history: History,
        intake: Intake,
        fit: Fit,
        gpu: GpuLock,
        demotion: Demotion,
        clock: Clock,
    ) -> None:
        self._directory = directory
        self._ledger = ledger
        self._history = history
        self._intake = intake
        self._fit = fit
        self._gpu = gpu
        self._demotion = demotion
        self._since_sleep = Elapsed(clock)
        self._since_unjudged = Elapsed(clock)

    def facts(self, config: Config, *, min_salience: float, is_paused: bool, running_cycle: int | None) -> Facts:
        """As they are now, with the buffer as last read."""
        counts = self._intake.counts
        if min_salience != config.training.min_salience:
            counts = self._intake.count(min_salience)
        # A cycle that ended because it found the champion worse is no failure, and nothing to cool down from.
        unjudged = [each for each in self._ledger.unjudged_in_a_row() if each.cycle != self._demotion.found_by]
        suspended = self._ledger.suspended_cycle()
        times, since = len(unjudged), unjudged[0].ended_at if unjudged else None
        if suspended is not None:
            times, since = crashes(self._ledger, suspended).essence
        cooldown = cooldown_seconds(config.triggers.cooldown_seconds, times)
        if since is not None:
            cooldown -= self._since_unjudged.seconds_since(since)
        last = self._history.last_sleep_at
        return Facts(
            total=counts.total,
            new=counts.new,
            hours_since_last_sleep=None if last is None else self._since_sleep.seconds_since(last) / 3600,
            trainable=counts.unlearned,
            held_out=counts.held_out,
            quarantined=counts.quarantined,
            unscreened=counts.unscreened,
            is_paused=is_paused,
            running_cycle=running_cycle,
            suspended_cycle=suspended,
            cooldown_seconds_left=max(0.0, cooldown),
            unjudged_in_a_row=len(unjudged),
            last_ending=unjudged[0].state if unjudged else "",
            free_megabytes=shutil.disk_usage(self._directory).free // 10**6,
            base_changed=self._fit.base_changed(config.model.base),
            gpu_problem=self._gpu.problem(config.worker.gpu_lock),
            buffer_problem=self._intake.problem,
        )
