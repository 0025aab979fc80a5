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
from pathlib import Path
from typing import Any

from sleepd.clock import Clock
from sleepd.config.schema import Config
from sleepd.registry.compatibility import Fit
from sleepd.registry.demotion import Demotion
from sleepd.registry.operator_metrics import AddedMetrics
from sleepd.registry.prune import Keeping
from sleepd.serving.deployer import Deployer
from sleepd.serving.serve_client import SOCKET_NAME, ServeClient
from sleepd.store.adoption import adopt
from sleepd.store.checkpoints import Checkpoints
from sleepd.store.sqlite.looks import Looks
from sleepd.store.sqlite.rebuild_ledger import open_ledger
from sleepd.store.state_lock import StateLock

from .alarms import Alarms
from .buffer_summary import Intake
from .decision_facts import FactFinding, ServiceState
from .history import NotedError, PastCycles
from .recovery import recover
from .repair import Repair
from .running.gpu_lock import GpuLock
from .running.pair import PairRunner
from .running.planning import Sources
from .running.runner import CycleRunner
from .switch_champion import ChampionSwitch

Listener = Callable[[str, dict[str, Any]], None]
"""Called with every past fact (name, fields): what ``subscribe`` streams."""


class Parts:
    """All that works on one state directory: locked, recovered and built when this exists. Building it blocks.

    Args:
        config: the configuration in force; ``Sleeper.reconfigure`` replaces it.
        clock: where time comes from.
        listener: called with every past fact.
        socket: where this process answers requests; empty: nowhere.

    Raises:
        StateLocked: another process runs on this state directory.
        SleepdError: the directory, the ledger or an older state cannot be used.
    """

    def __init__(self, config: Config, *, clock: Clock, listener: Listener, socket: str = "") -> None:
        self.directory = directory = Path(config.state.directory)
        self.clock = clock
        self.listener = listener
        self.lock = StateLock(directory, socket=socket)
        self.checkpoints = checkpoints = Checkpoints(directory)
        self.ledger, troubles = open_ledger(directory, checkpoints, clock)
        ledger = self.ledger
        troubles += [*adopt(ledger, checkpoints, clock), *recover(ledger, checkpoints, clock)]
        self.history = PastCycles(directory, ledger, checkpoints)
        self.alarms = Alarms(ledger, clock)
        self.looks = Looks(ledger)
        self.repair = Repair(ledger, checkpoints, clock, self.history, self.alarms)
        self.repair.write_history()
        self.deployer = self._deployer(config)
        self.keeping = Keeping(ledger, checkpoints, served=self.deployer.served_cycle)
        self.fit = Fit(ledger, checkpoints)
        self.demotion = Demotion(ledger, checkpoints, clock)
        self.metrics = AddedMetrics(ledger, checkpoints, self.demotion)
        self.intake = Intake(config, self.history, clock, ledger, self.alarms)
        self.sources = Sources(
            ledger=ledger, checkpoints=checkpoints, history=self.history, intake=self.intake, fit=self.fit
        )
        self.gpu = GpuLock()
        self.state = ServiceState(config=config, state_since=clock.now(), last_error=self.history.newest_failure())
        if troubles:
            self.state.last_error = NotedError(message=troubles[-1], hint="sleepctl history", at=clock.now())
        self.finding = self._fact_finding()
        self.runner = self._runner()
        self.pairs = PairRunner(self.runner, ledger, checkpoints)
        self.switch = self._switch()

    def _deployer(self, config: Config) -> Deployer:
        client = ServeClient(Path(config.control.socket).with_name(SOCKET_NAME))
        return Deployer(
            config,
            self.ledger,
            self.checkpoints,
            self.clock,
            listener=self.listener,
            note_alarm=self.alarms.note,
            ask=client.ask,
        )

    def _fact_finding(self) -> FactFinding:
        return FactFinding(self.state, self.sources, gpu=self.gpu, demotion=self.demotion, clock=self.clock)

    def _runner(self) -> CycleRunner:
        def on_cycle_event(event: str, fields: dict[str, Any]) -> None:
            if event == "state":
                self.state.state_since = self.clock.now()
            self.listener(event, fields)

        return CycleRunner(
            ledger=self.ledger,
            checkpoints=self.checkpoints,
            clock=self.clock,
            demotion=self.demotion,
            listener=on_cycle_event,
        )

    def _switch(self) -> ChampionSwitch:
        return ChampionSwitch(
            self.sources,
            runner=self.runner,
            repair=self.repair,
            demotion=self.demotion,
            listener=self.listener,
        )
