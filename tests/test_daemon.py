"""Whole lives of a real daemon process: real socket, real inotify, and a worker that does what it is told."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import psutil
import pytest

from sleepd.config.schema import Config
from sleepd.errors import Busy, ConfigError, NothingToDo, UsageError
from sleepd.protocol.control import (
    Buffer,
    Cancel,
    Check,
    GivenThresholds,
    History,
    Pause,
    Reload,
    Resume,
    Rollback,
    Run,
    Show,
    Why,
)
from sleepd.protocol.decision_view import DecisionView
from sleepd.protocol.status import BufferDetail, CycleDetail, RunResult
from sleepd.store.checkpoints import verify
from tests.agents import changed, config_for, experiences, unmet, write_buffer, write_config
from tests.fakes import fake_interpreter
from tests.processes import LIMIT_SECONDS, DaemonProcess


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return config_for(tmp_path)


def behaving(config: Config, directory: Path, behaviour: str) -> Config:
    python = fake_interpreter(directory / f"python-{behaviour}", behaviour)
    return changed(config, "worker", python=str(python))


def test_a_whole_life(tmp_path: Path, config: Config) -> None:
    """1. An agent writes too little. 2. It writes enough. 3. It writes more, too early. 4. SIGTERM.

    Result: nothing; a promoted cycle, told by inotify alone; a reason; exit status 0 and no socket left.
    """
    with DaemonProcess(tmp_path, behaving(config, tmp_path, "promote")) as daemon:
        daemon.await_event("decision_changed", text="Insufficient experiences (0 < 5)")
        write_buffer(tmp_path / "buffer.json", experiences(3))
        daemon.await_true(lambda: daemon.status().buffer.total == 3, "three experiences")
        write_buffer(tmp_path / "buffer.json", experiences(12))
        daemon.await_event("candidate_promoted", cycle=1)
        status = daemon.status()
        assert status.champion is not None
        assert (status.champion.cycle, status.total_cycles, status.state) == (1, 1, "idle")
        write_buffer(tmp_path / "buffer.json", experiences(20))
        too_soon = ["Too soon since last sleep (0.0h < 6.0h)"]
        daemon.await_true(lambda: daemon.status().missing == too_soon, "a look at all of them")
        daemon.process.terminate()
        assert daemon.process.wait(20) == 0
    assert verify((tmp_path / "state" / "current").resolve()).cycle == 1
    assert not Path(config.control.socket).exists()
    offline = json.loads((tmp_path / "state" / "status.json").read_text())
    assert (offline["state"], offline["champion"]["cycle"]) == ("stopped", 1)
    assert [cycle["cycle"] for cycle in json.loads((tmp_path / "state" / "history.json").read_text())["cycles"]] == [1]


def test_periodic_check_replaces_inotify(tmp_path: Path, config: Config) -> None:
    """A buffer in a directory that appears only later is found without any event."""
    config = changed(config, "buffer", path=str(tmp_path / "later" / "buffer.json"))
    config = changed(config, "triggers", check_interval_seconds=1.0)
    with DaemonProcess(tmp_path, behaving(config, tmp_path, "promote")) as daemon:
        daemon.await_event("watch_unavailable")
        (tmp_path / "later").mkdir()
        write_buffer(tmp_path / "later" / "buffer.json", experiences(12))
        daemon.await_event("candidate_promoted", cycle=1)
        assert daemon.status().buffer.total == 12


def test_every_question_has_an_answer(tmp_path: Path, config: Config) -> None:
    """Check, why, buffer, history and show answer from the same facts; wrong orders are refused by argument."""
    records = [*experiences(12), {"id": "x", "prompt": 5, "response": "r", "salience": 0.5}]
    write_buffer(tmp_path / "buffer.json", records)
    with DaemonProcess(tmp_path, behaving(config, tmp_path, "promote")) as daemon:
        daemon.await_event("candidate_promoted", cycle=1)
        decision = daemon.call(Check(), DecisionView)
        assert unmet(decision)["min_new_experiences"] == (0, 2)
        assert daemon.call(Check(thresholds=GivenThresholds(min_experiences=50)), DecisionView).reason.endswith(
            "(12 < 50)"
        )
        detail = daemon.call(Buffer(), BufferDetail)
        assert (detail.status.total, sum(detail.histogram), detail.histogram[8]) == (12, 12, 12)
        (skipped,) = detail.set_aside
        assert skipped.position == "record 13"
        assert skipped.reason.startswith("prompt: ")
        assert [each["cycle"] for each in daemon.call(History(), dict)["cycles"]] == [1]
        shown = daemon.call(Show(cycle=1), CycleDetail)
        assert len(shown.trained_ids) + len(shown.held_out_ids) == 12
        assert shown.report is not None
        assert daemon.call(Why(), dict)["changes"]
        with pytest.raises(NothingToDo):
            daemon.call(Run(), RunResult)
        with pytest.raises(UsageError, match=r"learning_rate: .* found 5"):
            daemon.call(Run(force=True, learning_rate=5.0), RunResult)


def test_an_order_is_obeyed_and_cancelled(tmp_path: Path, config: Config) -> None:
    """A cycle under way keeps others out, shows its progress to subscribers, and is discarded on request."""
    config = changed(config, "triggers", cooldown_seconds=0.0)
    with DaemonProcess(tmp_path, behaving(config, tmp_path, "wait")) as daemon:
        with daemon.client() as listener:
            announcements = listener.subscribe()
            write_buffer(tmp_path / "buffer.json", experiences(12))
            heard = {announcement.event for announcement, _ in zip(announcements, range(12), strict=False)}
        assert {"cycle_started", "progress"} <= heard
        with pytest.raises(Busy, match="cycle 1"):
            daemon.call(Run(force=True), RunResult)
        progress = daemon.status().progress
        assert progress is not None
        assert progress.phase == "training"
        daemon.call(Pause(), dict)
        assert daemon.call(Cancel(), dict)["cycle"] == 1
        daemon.await_event("cycle_cancelled", cycle=1)
        assert daemon.status().state == "paused"
        assert daemon.workers() == []
        daemon.call(Resume(), dict)
        daemon.await_event("cycle_started", cycle=2)


def test_waited_run_gives_result_and_undo(tmp_path: Path, config: Config) -> None:
    """A waited-for run answers with the verdict; the undo it names works."""
    config = changed(config, "triggers", min_experiences=50)
    write_buffer(tmp_path / "buffer.json", experiences(12))
    with DaemonProcess(tmp_path, behaving(config, tmp_path, "promote")) as daemon:
        result = daemon.call(Run(force=True, wait=True), RunResult)
        assert result.summary is not None
        assert (result.summary.state, result.undo) == ("promoted", "sleepctl rollback 0")
        answer = daemon.call(Rollback(), dict)
        assert (answer["champion"], answer["was"], answer["undo"]) == (None, 1, "sleepctl rollback 1")
        assert daemon.status().champion is None


@pytest.mark.parametrize("behaviour", ["crash", "kill", "garbage"])
def test_dead_worker_is_reported(tmp_path: Path, config: Config, behaviour: str) -> None:
    """The failure is the last error with a hint, the cooldown begins, nothing is left behind."""
    config = changed(config, "worker", stop_seconds=0.3)
    write_buffer(tmp_path / "buffer.json", experiences(12))
    with DaemonProcess(tmp_path, behaving(config, tmp_path, behaviour)) as daemon:
        failed = daemon.await_event("cycle_failed", cycle=1)
        daemon.await_true(lambda: daemon.status().state == "idle", "the end of the cycle")
        status = daemon.status()
        assert status.last_error is not None
        assert failed["text"] in status.last_error.message
        assert status.last_error.hint
        assert [text.endswith("failed cycle (10 min left)") for text in status.missing] == [True]
        assert daemon.workers() == []
    assert list((tmp_path / "state" / "staging").iterdir()) == []


def test_sigterm_stops_worker_and_exits(tmp_path: Path, config: Config) -> None:
    """The worker is gone before the daemon is; the next start goes on with the same cycle."""
    config = changed(config, "triggers", cooldown_seconds=0.0)
    write_buffer(tmp_path / "buffer.json", experiences(12))
    with DaemonProcess(tmp_path, behaving(config, tmp_path, "wait")) as daemon:
        daemon.await_event("phase_started", phase="training")
        (worker,) = daemon.workers()
        daemon.process.terminate()
        assert daemon.process.wait(20) == 0
        assert not psutil.pid_exists(worker.pid)
    with DaemonProcess(tmp_path, behaving(config, tmp_path, "promote")) as daemon:
        daemon.await_event("cycle_resumed", cycle=1)
        daemon.await_event("candidate_promoted", cycle=1)


@pytest.mark.parametrize("is_asked", [False, True], ids=["by-itself", "by-request"])
def test_sigterm_ends_a_long_read(tmp_path: Path, config: Config, is_asked: bool) -> None:
    """A terabyte of a buffer that is being read delays no end: the reader is killed."""
    with open(config.buffer.path, "wb") as buffer:
        buffer.truncate(10**12)
    with DaemonProcess(tmp_path, config) as daemon:
        process = psutil.Process(daemon.process.pid)
        daemon.await_true(lambda: process.children() != [], "the reader to start")
        (reader,) = process.children()
        with daemon.client() if is_asked else nullcontext() as client:
            if client is not None:
                client._send(Check())
            daemon.process.send_signal(signal.SIGTERM)
            assert daemon.process.wait(timeout=LIMIT_SECONDS) == 0
        assert not reader.is_running() or reader.status() == psutil.STATUS_ZOMBIE


def test_second_sigterm_kills_stubborn_worker(tmp_path: Path, config: Config) -> None:
    """Asked twice, the daemon kills a worker that ignores SIGTERM."""
    config = changed(config, "worker", stop_seconds=3000.0)
    write_buffer(tmp_path / "buffer.json", experiences(12))
    with DaemonProcess(tmp_path, behaving(config, tmp_path, "stubborn")) as daemon:
        daemon.await_event("phase_started", phase="training")
        daemon.process.terminate()
        daemon.await_true(lambda: not Path(config.control.socket).exists(), "the first signal")
        daemon.process.terminate()
        assert daemon.process.wait(20) == 0


@pytest.mark.parametrize("moment", ["cycle_started", "phase_started"])
def test_a_killed_daemon_loses_nothing(tmp_path: Path, config: Config, moment: str) -> None:
    """SIGKILL in a cycle: after the restart the same cycle goes on, and its experiences are trained once."""
    config = changed(config, "triggers", cooldown_seconds=0.0)
    write_buffer(tmp_path / "buffer.json", experiences(12))
    with DaemonProcess(tmp_path, behaving(config, tmp_path, "wait")) as daemon:
        daemon.await_event(moment)
        daemon.kill()
    with DaemonProcess(tmp_path, behaving(config, tmp_path, "promote")) as daemon:
        daemon.await_event("candidate_promoted", cycle=1)
        assert [cycle["state"] for cycle in daemon.call(History(), dict)["cycles"]] == ["promoted"]
        shown = daemon.call(Show(cycle=1), CycleDetail)
        assert len({*shown.trained_ids, *shown.held_out_ids}) == 12
    assert verify((tmp_path / "state" / "current").resolve()).cycle == 1
    assert list((tmp_path / "state" / "staging").iterdir()) == []


def test_second_daemon_is_refused(tmp_path: Path, config: Config) -> None:
    """Exit status 7, with the first one's process id and socket, which goes on answering."""
    with DaemonProcess(tmp_path, config) as daemon:
        other = subprocess.run(
            [sys.executable, "-m", "sleepd", "--config", str(daemon.config_path)], capture_output=True, text=True
        )
        assert other.returncode == 7
        assert f"process {daemon.process.pid}, which answers on {config.control.socket}" in other.stderr
        assert daemon.status().pid == daemon.process.pid


def test_replaced_state_directory_stops_cycles(tmp_path: Path, config: Config) -> None:
    """Moved away under it, the directory is missed at the next look, in words; back in its place, the sleep comes."""
    with DaemonProcess(tmp_path, config) as daemon:
        (tmp_path / "state").rename(tmp_path / "away")
        write_buffer(tmp_path / "buffer.json", experiences(12))
        words = "it was removed or replaced"
        daemon.await_true(lambda: any(words in str(event.get("text")) for event in daemon.events()), words)
        assert not any(event["event"] == "cycle_started" for event in daemon.events())
        shutil.rmtree(tmp_path / "state", ignore_errors=True)
        (tmp_path / "away").rename(tmp_path / "state")
        write_buffer(tmp_path / "buffer.json", experiences(13))
        daemon.await_event("cycle_started", cycle=1)


def test_bad_reload_keeps_old_configuration(tmp_path: Path, config: Config) -> None:
    """SIGHUP with a good file changes the thresholds; with a bad one the old ones stay, and the status says why."""
    write_buffer(tmp_path / "buffer.json", experiences(4))
    with DaemonProcess(tmp_path, behaving(config, tmp_path, "wait")) as daemon:
        daemon.await_event("decision_changed", text="Insufficient experiences (4 < 5)")
        write_config(daemon.config_path, changed(daemon.config, "triggers", min_experiences=9))
        daemon.process.send_signal(signal.SIGHUP)
        daemon.await_event("config_reloaded", text="triggers.min_experiences")
        daemon.await_true(lambda: daemon.status().missing[0].endswith("(4 < 9)"), "the new threshold")
        daemon.config_path.write_text("[triggers]\nmin_experiences = 0\n")
        daemon.process.send_signal(signal.SIGHUP)
        daemon.await_event("config_refused")
        status = daemon.status()
        assert status.missing[0].endswith("(4 < 9)")
        assert status.last_error is not None
        assert "min_experiences: " in status.last_error.message
        assert status.last_error.message.endswith("found 0")
        write_config(daemon.config_path, changed(daemon.config, "triggers", min_experiences=3))
        assert daemon.call(Reload(), dict)["changed"] == ["triggers.min_experiences"]


def test_reload_rereads_drop_ins(tmp_path: Path, config: Config) -> None:
    """A drop-in that appears counts, a wrong one changes nothing, one that vanishes is undone; a variable stays."""
    drop_in = tmp_path / "conf.d" / "10.toml"
    drop_in.parent.mkdir()

    def missing() -> str:
        return daemon.call(Check(), DecisionView).reason

    with DaemonProcess(tmp_path, config, SLEEPD_TRIGGERS_MIN_NEW_EXPERIENCES="9") as daemon:
        assert missing().endswith("experiences (0 < 5)")
        drop_in.write_text("[triggers]\nmin_experiences = 0x7\nmin_new_experiences = 3\n")
        assert daemon.call(Reload(), dict)["changed"] == ["triggers.min_experiences"]
        assert missing().endswith("experiences (0 < 7)")
        drop_in.write_text("[triggers]\nmin_experiences = 8\nmin_new_experience = 3\n")
        with pytest.raises(ConfigError, match=f"{drop_in}: triggers.min_new_experience: ") as refused:
            daemon.call(Reload(), dict)
        assert "'min_new_experiences'" in refused.value.hint
        assert missing().endswith("experiences (0 < 7)")
        drop_in.unlink()
        daemon.process.send_signal(signal.SIGHUP)
        daemon.await_true(lambda: missing() == "Insufficient experiences (0 < 5)", "the default again")
        why = {each.name: each.required for each in daemon.call(Check(), DecisionView).conditions}
        assert why["min_new_experiences"] == 9


def test_reloaded_buffer_is_watched(tmp_path: Path, config: Config) -> None:
    """The watch follows the configuration: the new file's changes are told by inotify."""
    write_buffer(tmp_path / "other.json", experiences(3))
    with DaemonProcess(tmp_path, behaving(config, tmp_path, "promote")) as daemon:
        write_config(daemon.config_path, changed(daemon.config, "buffer", path=str(tmp_path / "other.json")))
        daemon.call(Reload(), dict)
        daemon.await_true(lambda: daemon.status().buffer.total == 3, "the other buffer")
        write_buffer(tmp_path / "other.json", experiences(12))
        daemon.await_event("candidate_promoted", cycle=1)
        assert daemon.status().buffer.total == 12


def test_half_written_buffer_is_named_early(tmp_path: Path, config: Config) -> None:
    """The agent died while it wrote: after the patience the status says so, and a whole file heals it."""
    config = changed(config, "buffer", patience_seconds=1.0)
    write_buffer(tmp_path / "buffer.json", experiences(3))
    with DaemonProcess(tmp_path, config) as daemon:
        daemon.await_true(lambda: daemon.status().buffer.total == 3, "the whole buffer")
        (tmp_path / "buffer.json").write_text(json.dumps(experiences(12))[:500])
        daemon.await_true(lambda: daemon.names("not whole"), "the problem")
        assert daemon.status().buffer.total == 3
        write_buffer(tmp_path / "buffer.json", experiences(4))
        daemon.await_true(lambda: daemon.counts(4), "the mended buffer")


def test_unreadable_buffer_recovers_by_itself(tmp_path: Path, config: Config) -> None:
    """A pipe in the buffer's place is an error with a hint; once it is a file, the error is gone."""
    os.mkfifo(tmp_path / "buffer.json")
    with DaemonProcess(tmp_path, config) as daemon:
        daemon.await_event("buffer_unreadable")
        status = daemon.status()
        assert status.last_error is not None
        assert "expected a regular file" in status.last_error.message
        (tmp_path / "buffer.json").unlink()
        write_buffer(tmp_path / "buffer.json", experiences(3))
        daemon.await_true(lambda: daemon.counts(3), "the buffer")


@pytest.mark.parametrize(
    ("text", "status", "words"),
    [
        ("", 9, "buffer.path: expected the path of the experience buffer, found nothing"),
        ("[buffer]\npath = 5\n", 9, "buffer.path: expected `str | array`, found 5"),
        ('[buffer]\npath = "/b"\n[state]\ndirectory = "/proc/x"\n', 1, "cannot be used as state directory"),
    ],
)
def test_start_failure_is_explained(tmp_path: Path, text: str, status: int, words: str) -> None:
    """The message names the fault and the exit status its kind; there is no traceback."""
    path = tmp_path / "config.toml"
    path.write_text(text)
    result = subprocess.run(
        [sys.executable, "-m", "sleepd", "--config", str(path)], capture_output=True, text=True, timeout=LIMIT_SECONDS
    )
    assert result.returncode == status
    assert words in result.stderr
    assert "hint: " in result.stderr
    assert "Traceback" not in result.stderr


def test_systemd_follows_whole_life(tmp_path: Path, config: Config) -> None:
    """READY once it answers, a sentence, signs of life from the loop, STOPPING."""
    received: list[str] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(30)

        def hear_until(prefix: str) -> None:
            while not received or not received[-1].startswith(prefix):
                received.append(systemd.recv(4096).decode())

        environment: dict[str, Any] = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "200000"}
        with DaemonProcess(tmp_path, config, **environment) as daemon:
            hear_until("READY=1")
            hear_until("STATUS=Awake, the base model is in use")
            hear_until("WATCHDOG=1")
            daemon.process.terminate()
            hear_until("STOPPING=1")
    assert received[0] == "READY=1"


def test_the_daemon_never_imports_torch(tmp_path: Path, config: Config) -> None:
    """With torch, transformers and peft made unimportable the daemon runs a whole cycle."""
    poison = tmp_path / "poison"
    for name in ("torch", "transformers", "peft", "rich", "pydantic"):
        (poison / name).mkdir(parents=True)
        (poison / name / "__init__.py").write_text(f"raise ImportError('{name} in the daemon')")
    write_buffer(tmp_path / "buffer.json", experiences(12))
    with DaemonProcess(tmp_path, behaving(config, tmp_path, "promote"), PYTHONPATH=str(poison)) as daemon:
        daemon.await_event("candidate_promoted", cycle=1)
        assert "ImportError" not in daemon.log()
