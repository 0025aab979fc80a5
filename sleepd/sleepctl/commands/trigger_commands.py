"""``when`` and ``simulate``: when the next sleep is expected, and what other thresholds would have done."""

from __future__ import annotations

from datetime import timedelta

import msgspec

from sleepd.errors import UsageError
from sleepd.protocol.answers import ExpectedSleep, SimulatedTriggers
from sleepd.protocol.control import Simulate, When
from sleepd.protocol.given_thresholds import GivenTriggers
from sleepd.sleepctl.exit_codes import ExitCode
from sleepd.sleepctl.pages.triggers_page import expected_page, simulation_page
from sleepd.sleepctl.session import Session

SIMULATED = timedelta(days=30)


def when(session: Session) -> ExitCode:
    """When the next sleep is expected."""
    found: ExpectedSleep = session.ask(When(), ExpectedSleep)
    session.console.show(found, expected_page(found, session.clock.now()))
    return ExitCode.OK


def simulate(session: Session) -> ExitCode:
    """What the triggers of another configuration file would have done."""
    arguments, now = session.arguments, session.clock.now()
    if not arguments.config:
        hint = "sleepctl simulate --config NEW.toml; copy the daemon's file and change its [triggers]"
        raise UsageError("there is no other configuration to simulate", hint=hint)
    triggers = session.places.load_config().config.triggers
    given = msgspec.convert(msgspec.to_builtins(triggers), GivenTriggers)
    since = arguments.since(now) if arguments.since else now - SIMULATED
    found: SimulatedTriggers = session.ask(Simulate(triggers=given, since=since), SimulatedTriggers)
    session.console.show(found, simulation_page(found, now))
    return ExitCode.OK
