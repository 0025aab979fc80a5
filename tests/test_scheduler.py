"""The older scheduler's documented examples, run as they stand, alone and beside a daemon."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from sleepd import SleepScheduler
from sleepd.config.schema import Config
from sleepd.errors import ConfigError, UsageError
from sleepd.protocol.control import Run
from tests.agents import changed, config_for, experiences, write_buffer, write_config
from tests.fakes import fake_interpreter
from tests.processes import LIMIT_SECONDS, DaemonProcess

STATUS_KEYS = {
    "total_experiences",
    "experiences_since_last_sleep",
    "total_sleep_cycles",
    "last_sleep_time",
    "should_run_sleep",
    "reason",
    "sleep_history",
    "hours_since_last_sleep",
}
RESULT_KEYS = {
    "sleep_cycle",
    "num_experiences",
    "epochs",
    "final_loss",
    "avg_salience",
    "epoch_losses",
    "learning_rate",
    "timestamp",
    "promoted",
    "holdout",
}


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """A configuration that ``SleepScheduler()`` discovers, with a worker that succeeds."""
    python = fake_interpreter(tmp_path / "python", "promote")
    config = changed(config_for(tmp_path), "worker", python=str(python))
    write_config(tmp_path / "config.toml", config)
    monkeypatch.setenv("SLEEPD_CONFIG", str(tmp_path / "config.toml"))
    return config


def put(config: Config, count: int) -> None:
    write_buffer(Path(config.buffer.path), experiences(count))


def lacking(found: int, required: int, what: str = "experiences") -> str:
    """The reason that older scripts read where that many are too few."""
    return f"Insufficient {what} ({found} < {required})"


def test_the_constructor_is_the_older_one() -> None:
    """Names, order and defaults of the arguments are those that session scripts rely on."""
    parameters = inspect.signature(SleepScheduler).parameters
    assert {name: parameter.default for name, parameter in parameters.items()} == {
        "model_path": None,
        "experience_buffer_path": None,
        "checkpoint_dir": None,
        "min_experiences": 5,
        "min_new_experiences": 2,
        "min_hours_between_sleep": 6.0,
        "min_salience": 0.6,
        "device": None,
    }
    assert list(parameters)[:3] == ["model_path", "experience_buffer_path", "checkpoint_dir"]


@pytest.mark.parametrize("beside_a_daemon", [False, True])
def test_check_and_run(config: Config, tmp_path: Path, beside_a_daemon: bool) -> None:
    """The documented check-and-run gives the same answers here and from a daemon on the same directory."""
    idle = changed(config, "triggers", min_experiences=9)

    def story() -> None:
        put(config, 3)
        scheduler = SleepScheduler(min_experiences=9)
        assert scheduler.should_run_sleep_cycle() == (False, lacking(3, 9))
        skipped = scheduler.run_sleep_cycle()
        assert (skipped["status"], skipped["reason"]) == ("skipped", lacking(3, 9))
        datetime.fromisoformat(skipped["timestamp"])
        put(config, 8)
        write_buffer(Path(config.buffer.path), experiences(8))
        assert scheduler.get_status()["total_experiences"] == 8
        put(config, 12)
        if not beside_a_daemon:
            results = scheduler.run_sleep_cycle(epochs=3, learning_rate=1e-5, max_experiences=10)
            assert set(results) >= RESULT_KEYS
            assert results["promoted"] is True
        else:
            daemon.await_event("candidate_promoted", cycle=1)
        status = scheduler.get_status()
        assert set(status) == STATUS_KEYS
        assert status["total_sleep_cycles"] == 1
        assert status["reason"] == lacking(0, 2, "new experiences")
        hours = (datetime.now() - datetime.fromisoformat(status["last_sleep_time"])).total_seconds() / 3600
        assert hours == pytest.approx(status["hours_since_last_sleep"], abs=0.01)
        (entry,) = status["sleep_history"]
        assert set(entry) == {"cycle", "timestamp", "num_experiences", "final_loss"}
        assert f"{entry['final_loss']:.4f}" == "2.0000"
        json.dumps(status)

    if beside_a_daemon:
        with DaemonProcess(tmp_path, idle) as daemon:
            story()
    else:
        story()


def test_a_daemon_is_asked_to_sleep(config: Config, tmp_path: Path) -> None:
    """Beside a daemon a run is made by it, and its result comes back in the older words."""
    put(config, 12)
    with DaemonProcess(tmp_path, changed(config, "triggers", min_experiences=50)) as daemon:
        scheduler = SleepScheduler(min_experiences=5)
        results = scheduler.run_sleep_cycle()
        assert set(results) >= RESULT_KEYS
        assert daemon.status().total_cycles == 1


@pytest.mark.parametrize("beside_a_daemon", [False, True])
def test_two_strategies_run_against_each_other(config: Config, tmp_path: Path, beside_a_daemon: bool) -> None:
    """The result is that of the better one, here and by a daemon; the other one is in it, in short."""
    put(config, 12)
    config = changed(config, "worker", python=str(fake_interpreter(tmp_path / "both", "promote,better")))
    write_config(tmp_path / "config.toml", config)

    def story() -> None:
        results = SleepScheduler(min_experiences=5).run_sleep_cycle(strategies=["consolidate", "eager"])
        assert set(results) >= RESULT_KEYS
        assert (results["sleep_cycle"], results["strategy"], results["promoted"]) == (2, "eager", True)
        other = results["rival"]
        assert (other["sleep_cycle"], other["strategy"], other["state"]) == (1, "consolidate", "rejected")

    if beside_a_daemon:
        with DaemonProcess(tmp_path, changed(config, "triggers", min_experiences=50)):
            story()
    else:
        story()


def test_older_rate_is_honoured_and_noted(config: Config) -> None:
    """What the caller asks for reaches the worker; where it is known to change nothing the result says so."""
    put(config, 12)
    results = SleepScheduler().run_sleep_cycle(learning_rate=1e-5)
    assert results["learning_rate"] == 1e-5
    assert "next to nothing" in results["notes"][0]
    put(config, 24)
    assert "notes" not in SleepScheduler(min_hours_between_sleep=0.0).run_sleep_cycle()


def test_thresholds_set_as_attributes_count(config: Config) -> None:
    """Older scripts force a sleep by zeroing the attributes."""
    put(config, 12)
    scheduler = SleepScheduler(min_experiences=99)
    assert not scheduler.should_run_sleep_cycle()[0]
    scheduler.min_experiences = 0
    scheduler.min_new_experiences = 0
    scheduler.min_hours_between_sleep = 0.0
    assert scheduler.should_run_sleep_cycle()[0]


def test_missing_arguments_come_from_configuration(config: Config, tmp_path: Path) -> None:
    """A configured threshold counts where none is given, a given one outranks it, even if it is the default."""
    write_config(tmp_path / "config.toml", changed(config, "triggers", min_experiences=20))
    put(config, 12)
    assert SleepScheduler().should_run_sleep_cycle()[1] == lacking(12, 20)
    assert SleepScheduler(min_experiences=5).should_run_sleep_cycle()[0]


def test_drop_ins_and_variables_count(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A drop-in outranks the configuration file, and a variable the drop-in."""
    write_config(tmp_path / "config.toml", changed(config, "triggers", min_experiences=20))
    put(config, 12)
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / "10.toml").write_text("[triggers]\nmin_experiences = 30\n")
    assert SleepScheduler().should_run_sleep_cycle()[1] == lacking(12, 30)
    monkeypatch.setenv("SLEEPD_TRIGGERS_MIN_EXPERIENCES", "40")
    assert SleepScheduler().should_run_sleep_cycle()[1] == lacking(12, 40)


def test_paths_work_without_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a buffer and a checkpoint directory nothing else is needed to be told where things stand."""
    monkeypatch.delenv("SLEEPD_CONFIG", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "none"))
    write_buffer(tmp_path / "buffer.json", experiences(3))
    scheduler = SleepScheduler(
        experience_buffer_path=str(tmp_path / "buffer.json"), checkpoint_dir=tmp_path / "sleep", device="cpu"
    )
    assert scheduler.get_status()["reason"] == lacking(3, 5)
    with pytest.raises(UsageError, match=r"device: expected .* 'tpu'"):
        SleepScheduler(experience_buffer_path="b", device="tpu")


def test_missing_buffer_is_error_with_hint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a buffer anywhere the error says what to give or to set."""
    monkeypatch.delenv("SLEEPD_CONFIG", raising=False)
    monkeypatch.setattr("sleepd.scheduler.discover", lambda environment: None)
    with pytest.raises(ConfigError, match="no experience buffer is known") as caught:
        SleepScheduler()
    assert "experience_buffer_path" in caught.value.hint


def test_older_state_is_kept_current(config: Config) -> None:
    """Its history is ours from the first call on, and the file grows by our cycles."""
    older: dict[str, Any] = {
        "last_sleep_time": "2026-01-18T17:38:32.159790",
        "last_sleep_cycle": 1,
        "experiences_at_last_sleep": 6,
        "total_sleep_cycles": 1,
        "sleep_history": [
            {"cycle": 1, "timestamp": "2026-01-18T17:38:31.944333", "num_experiences": 6, "final_loss": 4.0267}
        ],
    }
    state = Path(config.state.directory)
    state.mkdir(exist_ok=True)
    (state / "scheduler_state.json").write_text(json.dumps(older))
    put(config, 7)
    status = SleepScheduler().get_status()
    assert status["reason"] == lacking(1, 2, "new experiences")
    assert status["last_sleep_time"] == older["last_sleep_time"]
    assert status["sleep_history"] == older["sleep_history"]
    put(config, 12)
    assert SleepScheduler().run_sleep_cycle()["sleep_cycle"] == 2
    kept = json.loads((state / "scheduler_state.json").read_text())
    assert [entry["cycle"] for entry in kept["sleep_history"]] == [1, 2]
    assert kept["total_sleep_cycles"] == 2
    assert kept["experiences_at_last_sleep"] == 12


def test_failed_sleep_is_a_result(config: Config, tmp_path: Path) -> None:
    """A session script gets the state, the reason and the hint, and can go on."""
    fake_interpreter(tmp_path / "python", "fail")
    put(config, 12)
    results = SleepScheduler().run_sleep_cycle()
    assert (results["status"], results["promoted"]) == ("failed", False)
    assert results["reason"] == "it cannot be done"
    json.dumps(results)


@pytest.mark.parametrize(
    ("argument", "words"),
    [("experience_buffer_path", r"works with .*buffer\.json, not"), ("model_path", "works with embedded, not")],
)
def test_conflicting_buffer_or_base_is_refused(config: Config, tmp_path: Path, argument: str, words: str) -> None:
    """Asked about one file, a daemon that works with another must not answer as if it were the same."""
    with DaemonProcess(tmp_path, config), pytest.raises(UsageError, match=words):
        SleepScheduler(**{argument: tmp_path / "other"}).should_run_sleep_cycle()


def test_it_works_in_event_loop(config: Config) -> None:
    """An asynchronous session script may call it too."""
    put(config, 3)

    async def session() -> tuple[bool, str]:
        return SleepScheduler().should_run_sleep_cycle()

    assert asyncio.run(session()) == (False, lacking(3, 5))


def script(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sleepd.scheduler", *arguments], capture_output=True, text=True, timeout=LIMIT_SECONDS
    )


def test_the_older_script(config: Config) -> None:
    """``--check`` says and does nothing; without flags it sleeps when due; ``--force`` sleeps regardless."""
    put(config, 3)
    checked = script("--check")
    assert checked.stdout.splitlines()[:2] == ["Should run: False", f"Reason: {lacking(3, 5)}"]
    assert json.loads(checked.stdout.partition("\n{")[1] + checked.stdout.partition("\n{")[2])
    skipped = script()
    assert (skipped.returncode, json.loads(skipped.stdout)["status"]) == (0, "skipped")
    put(config, 12)
    slept = json.loads(script().stdout)
    assert (slept["sleep_cycle"], slept["promoted"]) == (1, True)
    put(config, 20)
    forced = script("--force")
    assert json.loads(forced.stdout)["sleep_cycle"] == 2


def test_importing_it_imports_no_torch() -> None:
    """``from sleepd import SleepScheduler`` works where torch cannot be imported."""
    code = "import sys; sys.modules['torch'] = None; sys.modules['transformers'] = None; "
    code += "from sleepd import SleepScheduler; print(SleepScheduler.__name__)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ))
    assert result.stdout == "SleepScheduler\n", result.stderr


def test_an_order_keeps_its_thresholds(config: Config) -> None:
    """A forced order through the shared face goes to the worker whatever the thresholds."""
    put(config, 12)
    assert SleepScheduler(min_experiences=99).order(Run(force=True))["promoted"] is True
