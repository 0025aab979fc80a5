"""The figures for Prometheus: names, values, escaping, and the file that the daemon keeps."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from sleepd.protocol.deployment.serve_messages import ServedState
from sleepd.protocol.prometheus import metrics_text
from sleepd.protocol.status import Alarm
from tests.agents import changed, config_for, experiences, write_buffer
from tests.fakes import fake_interpreter
from tests.processes import DaemonProcess
from tests.sleepctl import sleepctl_scenes as scenes

LINE = re.compile(r'[a-z_]+(\{[a-z]+="(?:[^"\\\n]|\\["\\n])*"\})? -?[0-9.e+-]+')


@pytest.mark.parametrize("name", sorted(scenes.STATUSES))
def test_every_line_has_the_form(name: str) -> None:
    """Each line is a comment or a sample, also where texts are hostile; what was not measured is left out."""
    status = scenes.changed(scenes.STATUSES[name], version=scenes.HOSTILE, alarms=[Alarm(name='a"\\\n', text="")])
    text = metrics_text(status, scenes.REPORT)
    samples = [line for line in text.splitlines() if not line.startswith("# ")]
    assert [line for line in samples if not LINE.fullmatch(line)] == []
    assert "None" not in text
    assert text.endswith("\n")


def test_figures_are_the_status() -> None:
    """Counts, champion, losses and phases stand under their names."""
    text = metrics_text(scenes.MORNING, scenes.REPORT)
    for line in (
        'sage_sleepd_experiences{kind="total"} 333.0',
        "sage_sleepd_champion_cycle 8.0",
        'sage_sleepd_holdout_loss{model="champion"} 2.71',
        'sage_sleepd_state{state="idle"} 1.0',
        'sage_sleepd_last_cycle_phase_seconds{phase="training"} 131.0',
        "sage_sleepd_last_cycle_energy_joules 60120.0",
        "sage_sleepd_cycles_judged_total 8.0",
    ):
        assert f"{line}\n" in text


def test_endings_are_counted() -> None:
    """The cycles of this machine's own are counted by their ending."""
    text = metrics_text(scenes.changed(scenes.MORNING, endings={"promoted": 8, "failed": 2}))
    for state, number in (("promoted", "8.0"), ("failed", "2.0")):
        assert f'sage_sleepd_cycles_ended_total{{state="{state}"}} {number}\n' in text


def test_lag_is_a_moment() -> None:
    """Since when the oldest waits to be read and to be learned is in the figures; nothing waits: nothing is written."""
    assert "since" not in "".join(line for line in metrics_text(scenes.MORNING).splitlines() if "buffer" in line)
    late = msgspec.structs.replace(scenes.MORNING.buffer, unread_since=scenes.NOW, to_learn_since=scenes.NOW)
    text = metrics_text(scenes.changed(scenes.MORNING, buffer=late))
    for name in ("unread", "to_learn"):
        assert f"sage_sleepd_buffer_{name}_since_timestamp_seconds {scenes.NOW.timestamp()!r}\n" in text


def test_serving_figures_are_the_proof() -> None:
    """What is proved to be served stands with its proof; what is not proved has no cycle, and no engine has no line."""
    proved = ServedState(
        kind="vllm", url="u", model="m", wanted=8, served=7, is_proved=True, since=scenes.NOW, proved_at=scenes.NOW
    )
    text = metrics_text(scenes.changed(scenes.MORNING, serving=proved))
    assert "sage_sleepd_served_as_promoted 0.0\n" in text
    assert "sage_sleepd_served_cycle 7.0\n" in text
    assert f"sage_sleepd_serve_proof_timestamp_seconds {scenes.NOW.timestamp()!r}\n" in text
    unknown = msgspec.structs.replace(proved, is_proved=False)
    assert "served_cycle" not in metrics_text(scenes.changed(scenes.MORNING, serving=unknown))
    assert "serve" not in metrics_text(scenes.MORNING)


@pytest.mark.skipif(not shutil.which("promtool"), reason="NOT TESTED: promtool is missing (apt install prometheus)")
def test_promtool_is_content() -> None:
    """``promtool check metrics`` finds nothing."""
    status = scenes.changed(scenes.TRAINING, alarms=[Alarm(name="overdue", text="x")], endings={"promoted": 8})
    text = metrics_text(status, scenes.REPORT)
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture
def short_directory() -> Iterator[Path]:
    """A socket's path may have 107 bytes; pytest's own directories may be longer."""
    with tempfile.TemporaryDirectory(prefix="prom") as name:
        yield Path(name)


def test_daemon_keeps_the_textfile(tmp_path: Path, short_directory: Path) -> None:
    """The daemon replaces ``metrics.textfile``; where it cannot, that is an alarm, and nothing else breaks."""
    config = config_for(short_directory)
    config = changed(config, "worker", python=str(fake_interpreter(short_directory / "worker", "promote")))
    target = tmp_path / "sage.prom"
    write_buffer(short_directory / "buffer.json", experiences(12))
    with DaemonProcess(short_directory, changed(config, "metrics", textfile=str(target))) as daemon:
        daemon.await_true(
            lambda: target.exists() and "sage_sleepd_champion_cycle 1.0" in target.read_text(), "the figures"
        )
        assert target.stat().st_mode & 0o777 == 0o644
    refused = changed(config, "metrics", textfile=str(tmp_path / "absent" / "sage.prom"))
    with DaemonProcess(short_directory, refused) as daemon:
        daemon.await_true(
            lambda: any(each.name == "metrics_not_written" for each in daemon.status().alarms), "the alarm"
        )
