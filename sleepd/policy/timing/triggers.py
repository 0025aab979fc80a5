"""Whether to sleep now. Pure: facts in, decision out; no clock, no file.

All conditions are evaluated, always, so that the operator sees everything that is missing and not the first thing only.
``force`` bypasses the three conditions and the cooldown, and nothing else. A breakthrough (a new experience of very
high salience, or one that bears a mark) bypasses the three conditions alone.
"""

from __future__ import annotations

import math
from typing import Final

import msgspec

from sleepd.config.schema import Config

from .thresholds import Adjustment, Trend, adjustments, factor_of


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What is known at the moment of the decision."""

    total: int
    new: int
    hours_since_last_sleep: float | None
    """None: there was no sleep yet."""
    trainable: int
    """Unlearned experiences that a cycle would train now."""
    held_out: int
    """Held-out experiences that a candidate would be measured on."""
    quarantined: int = 0
    """Experiences in quarantine, which no cycle trains."""
    unscreened: int = 0
    """Experiences that were not screened yet, which no cycle trains either."""
    is_paused: bool = False
    running_cycle: int | None = None
    suspended_cycle: int | None = None
    """It was interrupted and is resumed before anything new begins."""
    cooldown_seconds_left: float = 0.0
    unjudged_in_a_row: int = 0
    """Cycles that ended without a verdict since the last one with."""
    last_ending: str = ""
    """How the newest of these ended: ``failed``, ``cancelled`` or ``interrupted``."""
    free_megabytes: int = 2**31
    base_changed: str = ""
    """Why the champion does not fit the configured base; empty: it fits."""
    gpu_problem: str = ""
    """Why nothing may be trained now: another daemon trains; empty: it may."""
    buffer_problem: str = ""
    """Why the buffer has no readable view at all; empty: it has one."""
    new_salience: float | None = None
    """Mean of the new experiences; None: there are none."""
    most_salient_new: float = 0.0
    """Of the new experiences, the highest salience."""
    marked_new: int = 0
    """New experiences that bear one of ``triggers.breakthrough_marks``, as these were configured at that moment."""
    trend: Trend = ""
    """Of the last cycles."""


class Thresholds(msgspec.Struct, frozen=True, kw_only=True):
    """Thresholds that a caller gave explicitly; None: as configured."""

    min_experiences: int | None = None
    min_new_experiences: int | None = None
    min_hours_between_sleep: float | None = None
    min_salience: float | None = None


class Condition(msgspec.Struct, frozen=True, kw_only=True):
    """One of the conditions for a sleep, with its figures."""

    name: str
    is_met: bool
    found: float | None
    """None where there is nothing to compare yet (no sleep so far)."""
    required: float
    text: str


class Veto(msgspec.Struct, frozen=True, kw_only=True):
    """Something that keeps a due sleep from starting."""

    name: str
    text: str


_TRAINS_NOTHING: Final = Veto(
    name="trains_nothing", text='This machine trains nothing (worker.device is "none"): it judges and serves'
)


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """Whether to sleep now, and why. ``due``: the three conditions hold; ``should_sleep``: and nothing vetoes.

    The ledger stores it as JSON: a field that is renamed here is renamed on disk.
    """

    should_sleep: bool
    due: bool
    reason: str
    conditions: list[Condition]
    vetoes: list[Veto]

    @property
    def change_key(self) -> object:
        """Equal for two decisions with the same outcome: the figures, which change every minute, are left out."""
        # The required figure changes only with the configuration, the salience of what is new, or the trend.
        met = [(condition.name, condition.is_met, condition.required) for condition in self.conditions]
        return self.should_sleep, met, [veto.name for veto in self.vetoes]


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """The thresholds."""

    min_experiences: int = 5
    min_new_experiences: int = 2
    min_hours_between_sleep: float = 6.0
    min_salience: float = 0.6
    min_free_megabytes: int = 500
    quality_factor: float = 1.0
    breakthrough_salience: float = 0.0
    is_adaptive: bool = False
    trains: bool = True
    """False: this machine trains nothing, and only goes on with what it was judging."""

    @classmethod
    def of(cls, config: Config, given: Thresholds | None = None) -> Policy:
        """The configured thresholds, and over them the ones that a caller gave."""
        given = given or Thresholds()
        triggers = config.triggers

        def choose(explicit: float | None, configured: float) -> float:
            return configured if explicit is None else explicit

        return cls(
            min_experiences=int(choose(given.min_experiences, triggers.min_experiences)),
            min_new_experiences=int(choose(given.min_new_experiences, triggers.min_new_experiences)),
            min_hours_between_sleep=choose(given.min_hours_between_sleep, triggers.min_hours_between_sleep),
            min_salience=choose(given.min_salience, config.training.min_salience),
            min_free_megabytes=config.state.min_free_megabytes,
            quality_factor=triggers.quality_factor,
            breakthrough_salience=triggers.breakthrough_salience,
            is_adaptive=triggers.adaptive,
            trains=config.worker.trains,
        )

    def is_looser_than(self, other: Policy) -> bool:
        """Whether any threshold here lets through what ``other`` would hold back."""
        return (
            self.min_experiences < other.min_experiences
            or self.min_new_experiences < other.min_new_experiences
            or self.min_hours_between_sleep < other.min_hours_between_sleep
            or self.min_salience < other.min_salience
        )


def decide(facts: Facts, policy: Policy, *, force: bool = False) -> Decision:
    """Whether to sleep now, with every condition and its figures."""
    conditions = _conditions(facts, policy)
    unmet = [condition for condition in conditions if not condition.is_met]
    goes_on = facts.suspended_cycle is not None
    breakthrough = _breakthrough(facts, policy)
    may_train = policy.trains or goes_on
    due = may_train and (force or goes_on or bool(breakthrough) or not unmet)
    vetoes = _vetoes(facts, policy, begins=due and not goes_on, force=force)
    if not may_train:
        vetoes = [_TRAINS_NOTHING, *vetoes]
    if may_train and not due:
        reason = unmet[0].text
    elif vetoes:
        reason = vetoes[0].text
    elif goes_on:
        reason = f"Cycle {facts.suspended_cycle} was interrupted and is resumed"
    elif force:
        reason = f"Forced: {facts.trainable} experiences to train"
    elif unmet:
        reason = f"Breakthrough: {breakthrough}"
    else:
        reason = f"Ready: {facts.total} experiences ({facts.new} new), sufficient time elapsed"
    return Decision(should_sleep=due and not vetoes, due=due, reason=reason, conditions=conditions, vetoes=vetoes)


def _breakthrough(facts: Facts, policy: Policy) -> str:
    """Why there is one; empty: there is none."""
    if 0 < policy.breakthrough_salience <= facts.most_salient_new:
        return f"a new experience has a salience of {facts.most_salient_new:.2f}"
    if facts.marked_new:
        return f"new experiences that bear one of triggers.breakthrough_marks: {facts.marked_new}"
    return ""


def _conditions(facts: Facts, policy: Policy) -> list[Condition]:
    def counted(name: str, found: int, required: int, short: str, enough: str) -> Condition:
        is_met = found >= required
        text = f"{short} ({found} < {required})" if not is_met else f"{enough} ({found} >= {required})"
        return Condition(name=name, is_met=is_met, found=found, required=required, text=text)

    moved = _moved(facts, policy)
    factor = factor_of(moved)
    conditions = [
        counted(
            "min_experiences",
            facts.total,
            policy.min_experiences,
            "Insufficient experiences",
            "Sufficient experiences",
        ),
        counted(
            "min_new_experiences",
            facts.new,
            math.ceil(policy.min_new_experiences * factor),
            "Insufficient new experiences",
            "Sufficient new experiences",
        ),
        _elapsed(facts.hours_since_last_sleep, policy.min_hours_between_sleep * factor),
    ]
    return conditions if factor == 1 else [conditions[0], *(_explained(each, factor, moved) for each in conditions[1:])]


def _elapsed(hours: float | None, required: float) -> Condition:
    is_met = hours is None or hours >= required
    if hours is None:
        text = "No sleep so far"
    elif is_met:
        text = f"Sufficient time elapsed ({hours:.1f}h >= {required:.1f}h)"
    else:
        text = f"Too soon since last sleep ({hours:.1f}h < {required:.1f}h)"
    return Condition(name="min_hours_between_sleep", is_met=is_met, found=hours, required=required, text=text)


def _explained(condition: Condition, factor: float, moved: list[Adjustment]) -> Condition:
    why = f"required is {factor:g} of what is configured: {' and '.join(each.reason for each in moved)}"
    return msgspec.structs.replace(condition, text=f"{condition.text}; {why}")


def _moved(facts: Facts, policy: Policy) -> list[Adjustment]:
    return adjustments(
        new_salience=facts.new_salience,
        quality_factor=policy.quality_factor,
        of_cycles=facts.trend if policy.is_adaptive else "",
    )


def _vetoes(facts: Facts, policy: Policy, *, begins: bool, force: bool) -> list[Veto]:
    vetoes = []
    if facts.buffer_problem:
        vetoes.append(Veto(name="buffer_unreadable", text=f"Buffer unreadable: {facts.buffer_problem}"))
    if facts.is_paused:
        vetoes.append(Veto(name="paused", text="Paused (sleepctl resume)"))
    if facts.running_cycle is not None:
        vetoes.append(Veto(name="cycle_running", text=f"Cycle {facts.running_cycle} is under way"))
    if facts.cooldown_seconds_left > 0 and not force:
        minutes = facts.cooldown_seconds_left / 60
        which = f"{'an' if facts.last_ending.startswith('i') else 'a'} {facts.last_ending} cycle"
        if facts.suspended_cycle is not None:
            which = f"cycle {facts.suspended_cycle} was interrupted"
        if facts.unjudged_in_a_row > 1:
            which = f"{facts.unjudged_in_a_row} cycles without a verdict, the last {facts.last_ending}"
        vetoes.append(Veto(name="cooling_down", text=f"Cooling down after {which} ({minutes:.0f} min left)"))
    if facts.base_changed:
        vetoes.append(Veto(name="base_changed", text=f"Base model changed: {facts.base_changed}"))
    if facts.free_megabytes < policy.min_free_megabytes:
        vetoes.append(
            Veto(
                name="disk_full",
                text=f"Too little disk space ({facts.free_megabytes} MB < {policy.min_free_megabytes} MB)",
            )
        )
    if facts.gpu_problem:
        vetoes.append(Veto(name="gpu_busy", text=f"Waiting for the GPU: {facts.gpu_problem}"))
    if begins and facts.trainable == 0:
        vetoes.append(Veto(name="nothing_to_train", text=_nothing_to_train(facts)))
    elif begins and facts.held_out == 0:
        vetoes.append(
            Veto(
                name="nothing_to_measure",
                text="Nothing is held out to measure a candidate on: that takes five different eligible experiences",
            )
        )
    return vetoes


def _nothing_to_train(facts: Facts) -> str:
    text = "Nothing to train: every experience is already trained, held out, excluded or below min_salience"
    if facts.quarantined:
        text += f"; {facts.quarantined} in quarantine (sleepctl quarantine)"
    return text + (f"; {facts.unscreened} not screened yet" if facts.unscreened else "")


def missing(decision: Decision) -> list[str]:
    """What is missing for the next sleep, a sentence each; empty: nothing is."""
    return [c.text for c in decision.conditions if not c.is_met] + [v.text for v in decision.vetoes]


def cooldown_seconds(base_seconds: float, unjudged_in_a_row: int, *, most_seconds: float = 6 * 3600.0) -> float:
    """How long to wait after so many cycles without a verdict: doubled each time, up to ``most_seconds``."""
    if unjudged_in_a_row < 1:
        return 0.0
    # The exponent is bounded because 2.0 ** 2000 overflows.
    return float(min(most_seconds, base_seconds * 2.0 ** min(unjudged_in_a_row - 1, 20)))
