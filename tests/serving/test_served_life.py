"""One life of a real daemon with an engine: a cycle, its proof, a rollback, and a start after a kill."""

from __future__ import annotations

import sys
from pathlib import Path

from sleepd.protocol.answers import RolledBack
from sleepd.protocol.control import Rollback
from tests.agents import changed, config_for, experiences, write_buffer
from tests.fakes import fake_interpreter
from tests.kept import kept
from tests.processes import DaemonProcess
from tests.serving.fake_engines import write_fingerprint
from tests.serving.test_serve_process import COMMAND, CommandedEngine


def test_daemon_serves_what_it_promotes(tmp_path: Path) -> None:
    """A daemon serves what it promotes; a rollback claims nothing before the base is proved; a kill forgets nothing.

    1. A cycle is promoted. Its fingerprint is there when the deployer asks for it.
    2. The status says that the cycle is proved; the event ``served`` is logged.
    3. The daemon is killed. The next one asks the engine and goes on with the same span.
    4. A rollback answers what becomes of the engine; then the base is proved.

    Result: ``history`` has one span for the cycle and one for the base.
    """
    runs, program = tmp_path / "runs", tmp_path / "put.py"
    runs.write_text("0")
    program.write_text(COMMAND)
    with CommandedEngine(runs) as engine:
        config = changed(config_for(tmp_path), "worker", python=str(fake_interpreter(tmp_path / "python", "promote")))
        command = f"{sys.executable} {program} {runs}"
        config = changed(config, "serve", kind="command", url=engine.url, command=command)
        write_buffer(tmp_path / "buffer.json", experiences(12))
        with DaemonProcess(tmp_path, config) as daemon:
            daemon.await_event("candidate_promoted")
            write_fingerprint(tmp_path / "state/cycle_001", 1, None)
            daemon.sleepctl("reload")
            daemon.await_event("served", cycle=1)
            assert "Serving" in daemon.sleepctl("status").stdout
            assert "cycle 1, proved" in daemon.sleepctl("status").stdout
            daemon.kill()
        with DaemonProcess(tmp_path, config) as daemon:
            daemon.await_true(lambda: daemon.status().serving.is_proved, "the proof after a kill")
            done = daemon.call(Rollback(cycle=0), RolledBack)
            assert done.champion is None
            assert done.serving == kept("served-until-then", done.serving, url=engine.url)
            daemon.await_true(lambda: daemon.status().serving.served is None, "another proof")
            daemon.await_true(lambda: daemon.status().serving.is_proved, "the base's proof")
            assert engine.runs("agent") is None
            shown = daemon.sleepctl("history").stdout
            assert "the base model: today" in shown
            assert "cycle 1: today" in shown
