"""Tests of ``tag``, ``prune``, ``decisions`` and ``rebase`` as they are typed, on a real daemon."""

from __future__ import annotations

import argparse
import json
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sleepd.sleepctl.pages.wording import size
from sleepd.sleepctl.parser.argument_types import moment_or_age
from tests.agents import changed, config_for, experiences, write_buffer
from tests.fakes import fake_interpreter
from tests.kept import kept
from tests.processes import DaemonProcess

Sleepctl = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    """A daemon that has slept three times."""
    directory = tmp_path_factory.mktemp("keeping")
    config = changed(config_for(directory, min_hours_between_sleep=0.0), "state", keep_promoted=9)
    config = changed(config, "worker", python=str(fake_interpreter(directory / "python", "promote")))
    with DaemonProcess(directory, config) as daemon:
        for number in (1, 2, 3):
            write_buffer(directory / "buffer.json", experiences(12 * number))
            daemon.await_event("candidate_promoted", cycle=number)
        daemon.await_true(lambda: daemon.status().running_cycle is None, "the end of the last one")
        yield daemon


@pytest.fixture
def sleepctl(daemon: DaemonProcess) -> Sleepctl:
    return daemon.sleepctl


def test_tag_is_given_shown_removed(sleepctl: Sleepctl) -> None:
    """Each answer says how to undo it, and what is typed there does."""
    given = sleepctl("tag", "1", "before the trip")
    assert (given.returncode, "before the trip" in given.stdout) == (0, True)
    assert given.stderr.endswith(" sleepctl tag 1 --remove\n")
    assert "tagged before the trip" in sleepctl("history").stdout
    assert "tagged before the trip" in sleepctl("show", "1").stdout
    taken = sleepctl("tag", "1", "--remove")
    assert taken.stderr.endswith(" tag 1 'before the trip'\n")
    said = given.stdout + given.stderr + taken.stdout + taken.stderr
    assert said == kept("tag", said)
    assert sleepctl("tag", "1", "--remove").returncode == 4
    assert sleepctl("tag", "77", "x").returncode == 4


def test_prune_says_first_and_does_then(sleepctl: Sleepctl, daemon: DaemonProcess) -> None:
    """A dry run names what would go; the real one removes it; the third time there is nothing."""
    weights = daemon.directory / "state/cycle_001/adapter_model.safetensors"
    dry = sleepctl("prune", "--keep", "1", "--dry-run")
    assert "cycle 1: " in dry.stdout
    assert "would be removed" in dry.stdout
    assert weights.exists()
    assert json.loads(sleepctl("prune", "--keep", "1", "--json").stdout)["pruned"][0]["cycle"] == 1
    assert not weights.exists()
    assert sleepctl("prune", "--keep", "1").stdout == "nothing to prune\n"
    assert "weights pruned" in sleepctl("history").stdout
    assert "its weights were pruned" in sleepctl("show", "1").stdout


def test_decisions_are_listed_since_moment(sleepctl: Sleepctl) -> None:
    """With figures; none from the future; what is no time is refused with what would be."""
    assert "Ready: " in sleepctl("decisions", "--since", "1h").stdout
    assert sleepctl("decisions", "--since", "2999-01-01").stdout == ""
    assert json.loads(sleepctl("decisions", "--limit", "1", "--json").stdout)["changes"][0]["facts"]["total"] == 36
    refused = sleepctl("decisions", "--since", "soon")
    assert (refused.returncode, "90m, 12h, 3d" in refused.stderr) == (2, True)


def test_rebase_puts_the_base_in_use(sleepctl: Sleepctl, daemon: DaemonProcess) -> None:
    """And says how to get back."""
    done = sleepctl("rebase")
    assert done.stdout == kept("rebase", done.stdout)
    assert done.stderr.endswith("undo: sleepctl rollback 3\n")
    assert daemon.status().champion is None
    assert sleepctl("rebase").returncode == 5
    assert sleepctl("rollback", "3").returncode == 0


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("90m", datetime(2026, 1, 10, 4, 30, tzinfo=UTC)),
        ("3d", datetime(2026, 1, 7, 6, 0, tzinfo=UTC)),
        ("2026-01-01T00:00+00:00", datetime(2026, 1, 1, tzinfo=UTC)),
    ],
)
def test_when_takes_age_or_time(text: str, moment: datetime) -> None:
    """Both mean one moment."""
    assert moment_or_age(text)(datetime(2026, 1, 10, 6, 0, tzinfo=UTC)) == moment


@pytest.mark.parametrize("text", ["", "5", "h", "-1h", "9" * 30 + "d", "yesterday", "2026-13-01"])
def test_what_is_no_time_is_refused(text: str) -> None:
    """As a usage error, never a traceback."""
    with pytest.raises(argparse.ArgumentTypeError):
        moment_or_age(text)


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 bytes"), (999, "999 bytes"), (18_500_000, "18.5 MB"), (2_000_000_000_000, "2000.0 GB")]
)
def test_sizes_are_readable(number: int, text: str) -> None:
    """Powers of a thousand."""
    assert size(number) == text


def test_the_fixture_is_quiet(daemon: DaemonProcess) -> None:
    """No traceback came of all that."""
    assert "Traceback" not in Path(daemon.log_path).read_text()


def test_metric_is_added_shown_removed(sleepctl: Sleepctl) -> None:
    """Each answer says how to undo it; what is no number, no name or no cycle is refused."""
    given = sleepctl("metric", "add", "1", "accuracy", "0.875")
    assert given.stdout == "cycle 1: accuracy 0.875\n"
    assert given.stderr.endswith(" metric remove 1 accuracy\n")
    shown = json.loads(sleepctl("show", "1", "--json").stdout)["metrics"]
    assert [(each["name"], each["value"]) for each in shown] == [("accuracy", 0.875)]
    assert sleepctl("metric", "add", "1", "accuracy", "1").stderr.endswith(" metric add 1 accuracy 0.875\n")
    assert sleepctl("metric", "remove", "1", "accuracy").returncode == 0
    assert json.loads(sleepctl("show", "1", "--json").stdout)["metrics"] == []
    assert sleepctl("metric", "remove", "1", "accuracy").returncode == 4
    assert sleepctl("metric", "add", "77", "accuracy", "1").returncode == 4
    assert sleepctl("metric", "add", "1", "accuracy", "nan").returncode == 2
    assert sleepctl("metric", "add", "1", "a b", "1").returncode == 2
