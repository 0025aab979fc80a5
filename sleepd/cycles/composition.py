"""The composition root: every part that works on one state directory, built once, in the one order that is safe.

Rule 1: a part is built here and nowhere else.
Rule 2: only ``Sleeper`` and ``ReadModel`` are given the parts. ``Sleeper`` runs cycles and carries out orders;
``ReadModel`` answers questions and changes nothing. The daemon, ``SleepScheduler`` and the self-test hold these two.

The order, and why. The lock comes first, because everything after it writes. The ledger comes next; older adapters are
adopted and open cycles are recovered before anything reads it. The history then imports an older scheduler's state,
once. What decides and acts comes last.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sleepd.clock import Clock
from sleepd.config.schema import Config
from sleepd.registry.compatibility import Fit
from sleepd.registry.demotion import Demotion
from sleepd.registry.operator_metrics import AddedMetrics
from sleepd.registry.prune import Keeping
from sleepd.store.adoption import adopt
from sleepd.store.checkpoints import Checkpoints
from sleepd.store.ledger import Ledger
from sleepd.store.rebuild_ledger import open_ledger
from sleepd.store.state_lock import StateLock

from .alarms import Alarms
from .buffer_summary import Intake
from .decision_facts import FactFinding, ServiceState
from .gpu_lock import GpuLock
from .history import NotedError, PastCycles
from .recovery import recover
from .repair import Mending
from .runner import CycleRunner
from .switch_champion import InUse

Listener = Callable[[str, dict[str, Any]], None]
"""Called with every past fact (name, fields): what ``subscribe`` streams."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Parts:
    """All that works on one state directory."""

    directory: Path
    clock: Clock
    listener: Listener
    state: ServiceState
    lock: StateLock
    checkpoints: Checkpoints
    ledger: Ledger
    history: PastCycles
    alarms: Alarms
    mending: Mending
    keeping: Keeping
    fit: Fit
    demotion: Demotion
    metrics: AddedMetrics
    intake: Intake
    gpu: GpuLock
    finding: FactFinding
    runner: CycleRunner
    in_use: InUse


def open_parts(config: Config, *, clock: Clock, listener: Listener, socket: str = "") -> Parts:
    """Lock the state directory, recover what was cut short, and build the parts. Blocks.

    Args:
        config: the configuration in force; ``Sleeper.reconfigure`` replaces it.
        clock: where time comes from.
        listener: told of every past fact.
        socket: where this process answers requests; empty: nowhere.

    Raises:
        StateLocked: another process runs on this state directory.
        SleepdError: the directory, the ledger or an older state cannot be used.
    """
    directory = Path(config.state.directory)
    lock, checkpoints = StateLock(directory, socket=socket), Checkpoints(directory)
    ledger, troubles = open_ledger(directory, checkpoints, clock)
    troubles += [*adopt(ledger, checkpoints, clock), *recover(ledger, checkpoints, clock)]
    history = PastCycles(directory, ledger, checkpoints)
    alarms = Alarms(ledger, clock)
    mending = Mending(ledger, checkpoints, clock, history, alarms)
    mending.write_history()
    fit, demotion, gpu = Fit(ledger, checkpoints), Demotion(ledger, checkpoints, clock), GpuLock()
    intake = Intake(config, history, clock, ledger, alarms)
    state = ServiceState(config=config, state_since=clock.now(), last_error=history.newest_failure())
    if troubles:
        state.last_error = NotedError(message=troubles[-1], hint="sleepctl history", at=clock.now())

    finding = FactFinding(
        state,
        directory=directory,
        ledger=ledger,
        history=history,
        intake=intake,
        fit=fit,
        gpu=gpu,
        demotion=demotion,
        clock=clock,
    )

    def on_cycle_event(event: str, fields: dict[str, Any]) -> None:
        if event == "state":
            state.state_since = clock.now()
        listener(event, fields)

    runner = CycleRunner(
        ledger=ledger, checkpoints=checkpoints, clock=clock, demotion=demotion, listener=on_cycle_event
    )
    return Parts(
        directory=directory,
        clock=clock,
        listener=listener,
        state=state,
        lock=lock,
        checkpoints=checkpoints,
        ledger=ledger,
        history=history,
        alarms=alarms,
        mending=mending,
        keeping=Keeping(ledger, checkpoints),
        fit=fit,
        demotion=demotion,
        metrics=AddedMetrics(ledger, checkpoints, demotion),
        intake=intake,
        gpu=gpu,
        finding=finding,
        runner=runner,
        in_use=InUse(
            ledger=ledger,
            checkpoints=checkpoints,
            runner=runner,
            mending=mending,
            fit=fit,
            history=history,
            demotion=demotion,
            listener=listener,
        ),
    )
