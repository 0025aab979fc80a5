"""The core's structures as those of the wire, and a client's order as the core's.

The core imports no structure of ``protocol.control``, ``status`` or ``answers``; this is the one place between the two.
"""

from __future__ import annotations

import msgspec

from sleepd.buffer.trained_texts import TrainedTexts
from sleepd.config.schema import Config
from sleepd.cycles.running.planning import Order
from sleepd.policy.timing.simulation import Simulation
from sleepd.policy.timing.triggers import Decision, Policy, Thresholds
from sleepd.protocol.answers import Learned, LearnedText, SimulatedSleepView, SimulatedView
from sleepd.protocol.control import Run
from sleepd.protocol.conversion import converted
from sleepd.protocol.decision_view import ConditionView, DecisionView, VetoView
from sleepd.protocol.given_thresholds import GivenThresholds, GivenTriggers
from sleepd.protocol.status import DecisionRecord
from sleepd.store.sqlite.ledger_rows import RecordedDecision


def decision_view(decision: Decision) -> DecisionView:
    """As a client gets it."""
    return converted(
        decision,
        DecisionView,
        conditions=[converted(each, ConditionView) for each in decision.conditions],
        vetoes=[converted(each, VetoView) for each in decision.vetoes],
    )


def decision_record(recorded: RecordedDecision) -> DecisionRecord:
    """As a client gets it."""
    return converted(recorded, DecisionRecord, decision=decision_view(recorded.decision))


def learned_answer(found: TrainedTexts) -> Learned:
    """As a client gets it."""
    return converted(found, Learned, experiences=[converted(each, LearnedText) for each in found.experiences])


def policy_of(given: GivenTriggers, config: Config) -> Policy:
    """The configured policy with these triggers."""
    triggers = msgspec.structs.replace(config.triggers, **msgspec.structs.asdict(given))
    return Policy.of(msgspec.structs.replace(config, triggers=triggers))


def simulated_view(found: Simulation) -> SimulatedView:
    """As a client gets it."""
    return SimulatedView(
        sleeps=[SimulatedSleepView(**each._asdict()) for each in found.sleeps], hours_waited=found.hours_waited
    )


def thresholds(given: GivenThresholds) -> Thresholds:
    """As the rules take them."""
    return converted(given, Thresholds)


def order_of(request: Run) -> Order:
    """What is ordered; whether the client waits for the end is not part of it."""
    return Order(
        force=request.force,
        epochs=request.epochs,
        learning_rate=request.learning_rate,
        max_experiences=request.max_experiences,
        strategy=request.strategy,
        strategies=tuple(request.strategies),
        thresholds=thresholds(request.thresholds),
    )
