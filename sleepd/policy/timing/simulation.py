"""What other thresholds would have done: recorded facts, decided anew. Pure.

A look holds what was known at one moment. How many experiences came between two looks follows from their counts; when
the next sleep would have been due by its hours alone follows from the clock. What a simulated cycle would have learned
is not known: it is taken to learn all that is new, and to end at once with a verdict.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from msgspec.structs import replace

from .triggers import Decision, Facts, Policy, decide


class Look(NamedTuple):
    """What was known at one moment."""

    at: datetime
    facts: Facts


class SimulatedSleep(NamedTuple):
    """One sleep that would have begun."""

    at: datetime
    total: int
    new: int
    reason: str


class Simulation(NamedTuple):
    """What one set of thresholds would have done."""

    sleeps: list[SimulatedSleep]
    hours_waited: dict[str, float]
    """By what was missing first, as the decision names it: how long it was so."""


def simulate(looks: Sequence[Look], policy: Policy, *, until: datetime) -> Simulation:
    """The sleeps that would have begun under ``policy``.

    Args:
        looks: oldest first.
        policy: the thresholds to try.
        until: the end of what is simulated; the facts of the last look hold until then.
    """
    sleeps: list[SimulatedSleep] = []
    waited: defaultdict[str, float] = defaultdict(float)
    last_sleep, new = _before(looks[0]) if looks else (None, 0)
    for place, look in enumerate(looks):
        if place:
            new += arrived(looks[place - 1].facts, look.facts)
        end = looks[place + 1].at if place + 1 < len(looks) else until
        moment = look.at
        while moment < end:
            decision, facts = _decided(look.facts, new, moment, last_sleep, policy)
            if decision.should_sleep:
                sleeps.append(SimulatedSleep(moment, facts.total, facts.new, decision.reason))
                last_sleep, new = moment, 0
                decision, _ = _decided(look.facts, new, moment, last_sleep, policy)
            following = min(end, _next_moment(moment, decision, last_sleep) or end)
            waited[_missing_first(decision)] += (following - moment).total_seconds() / 3600
            moment = following
    return Simulation(sleeps, dict(waited))


def _before(first: Look) -> tuple[datetime | None, int]:
    """The last sleep before the first look, and what was new since."""
    hours = first.facts.hours_since_last_sleep
    return None if hours is None else first.at - timedelta(hours=hours), first.facts.new


def arrived(before: Facts, after: Facts) -> int:
    """How many experiences came between two looks. A sleep lowers ``new``, a cleared buffer ``total``."""
    return max(0, after.total - before.total, after.new - before.new)


def _next_moment(now: datetime, decision: Decision, last_sleep: datetime | None) -> datetime | None:
    """When the decision may change while the counts stay: once enough hours have passed. None: never."""
    hours = next(each.required for each in decision.conditions if each.name == "min_hours_between_sleep")
    due = None if last_sleep is None else last_sleep + timedelta(hours=hours)
    return due if due is not None and due > now else None


def _decided(
    facts: Facts, new: int, at: datetime, last_sleep: datetime | None, policy: Policy
) -> tuple[Decision, Facts]:
    hours = None if last_sleep is None else (at - last_sleep).total_seconds() / 3600
    facts = replace(
        facts,
        new=new,
        hours_since_last_sleep=hours,
        trainable=max(facts.trainable, new) if new else 0,
        new_salience=facts.new_salience if new else None,
        most_salient_new=facts.most_salient_new if new else 0.0,
        marked_new=facts.marked_new if new else 0,
        running_cycle=None,
        suspended_cycle=None,
        cooldown_seconds_left=0.0,
        unjudged_in_a_row=0,
    )
    return decide(facts, policy), facts


def _missing_first(decision: Decision) -> str:
    unmet = [each.name for each in decision.conditions if not each.is_met]
    return next(iter([*unmet, *(veto.name for veto in decision.vetoes)]), "nothing")
