"""What a decision rests on, gathered from buffer, ledger, clock, disk and GPU; and the decision on it, unrecorded."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from datetime import datetime

from sleepd.clock import Clock, Elapsed
from sleepd.config.schema import Config
from sleepd.policy.timing.triggers import Decision, Facts, Policy, Thresholds, cooldown_seconds, decide
from sleepd.registry.demotion import Demotion
from sleepd.store.sqlite.notes import PAUSED

from .history import NotedError
from .running.gpu_lock import GpuLock
from .running.planning import Sources
from .running.resume import crashes


@dataclass(kw_only=True, slots=True)
class ServiceState:
    """What is kept in memory and lost at a restart. ``Sleeper`` alone writes it."""

    config: Config
    """The configuration in force; a cycle under way keeps the one it began with."""
    state_since: datetime
    """When the cycle under way changed its state, or when the last one ended."""
    decision: Decision | None = None
    """The last recorded decision; None: nothing is known, and whoever asks gets a fresh one."""
    running_cycle: int | None = None
    last_error: NotedError | None = None


class FactFinding:
    """Of one state directory."""

    def __init__(
        self,
        state: ServiceState,
        sources: Sources,
        *,
        gpu: GpuLock,
        demotion: Demotion,
        clock: Clock,
    ) -> None:
        self._state = state
        self._directory = sources.checkpoints.directory
        self._ledger = sources.ledger
        self._history = sources.history
        self._intake = sources.intake
        self._fit = sources.fit
        self._gpu = gpu
        self._demotion = demotion
        self._since_sleep = Elapsed(clock)
        self._since_unjudged = Elapsed(clock)

    def decide(self, thresholds: Thresholds | None = None, *, force: bool = False) -> Decision:
        """The decision on the buffer as last read, under the configured thresholds or those given."""
        policy = Policy.of(self._state.config, thresholds)
        return decide(self.facts(policy.min_salience), policy, force=force)

    def decide_with_facts(self) -> tuple[Decision, Facts]:
        """As ``decide`` under the configured thresholds, with what it rests on."""
        facts = self.facts()
        return decide(facts, Policy.of(self._state.config)), facts

    @property
    def is_paused(self) -> bool:
        """Whether the operator wants no cycle to start."""
        return self._ledger.note(PAUSED) is True

    def facts(self, min_salience: float | None = None) -> Facts:
        """As they are now, with the buffer as last read."""
        config, counts = self._state.config, self._intake.counts
        if min_salience is not None and min_salience != config.training.min_salience:
            counts = self._intake.count(min_salience)
        # A cycle that ended because it found the champion worse is no failure, and nothing to cool down from.
        unjudged = [each for each in self._ledger.unjudged_in_a_row() if each.cycle != self._demotion.found_by]
        suspended = self._ledger.suspended_cycle()
        times, since = len(unjudged), unjudged[0].ended_at if unjudged else None
        if suspended is not None:
            found = crashes(self._ledger, suspended)
            times, since = found.count, found.at
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
            is_paused=self.is_paused,
            running_cycle=self._state.running_cycle,
            suspended_cycle=suspended,
            cooldown_seconds_left=max(0.0, cooldown),
            unjudged_in_a_row=len(unjudged),
            last_ending=unjudged[0].state if unjudged else "",
            free_megabytes=shutil.disk_usage(self._directory).free // 10**6,
            base_changed=self._fit.base_changed(config.model),
            gpu_problem=self._gpu.problem(config.worker.own_gpu_lock),
            buffer_problem=self._intake.problem,
            new_salience=counts.new_salience,
            most_salient_new=counts.most_salient_new,
            marked_new=counts.marked_new,
            trend=self._history.trend,
        )
