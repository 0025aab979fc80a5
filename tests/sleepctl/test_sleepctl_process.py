"""``sleepctl`` as a whole process: what it imports, how it waits, what a terminal gets, how it is left."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from sleepd.errors import NothingToDo
from sleepd.protocol import control
from sleepd.protocol.job import Progress
from sleepd.protocol.status import CycleSummary, RunResult
from sleepd.sleepctl.__main__ import main
from sleepd.sleepctl.commands.command_table import COMMANDS
from sleepd.sleepctl.exit_codes import ExitCode
from tests.kept import kept
from tests.processes import LIMIT_SECONDS
from tests.sleepctl import sleepctl_scenes as scenes
from tests.sleepctl.sleepctl_fake_daemon import FakeDaemon
from tests.sleepctl.sleepctl_ran import Ran

Sleepctl = Callable[..., Ran]

COMMAND = [sys.executable, "-m", "sleepd.sleepctl"]


def progress(**fields: object) -> control.Announcement:
    """The worker's progress as the daemon announces it."""
    known = {"cycle": 9, "type": "progress", "phase": "training", "steps": 24, "device": "cuda:0"}
    return control.Announcement(event="progress", at=scenes.NOW, fields={**known, **fields})


def ended(summary: CycleSummary) -> RunResult:
    """The answer to a run that was waited for."""
    return RunResult(is_started=True, reason="forced", cycle=summary.cycle, summary=summary, undo="sleepctl rollback")


def environment_of_process(**more: str) -> dict[str, str]:
    """The environment of ours, which the fixture has emptied of places."""
    return {**os.environ, "TERM": "xterm", **more}


def on_a_terminal(*arguments: str, stream: str, **more: str) -> tuple[int, str]:
    """Exit code, and what ``stream`` (stdout or stderr) brings to a terminal of 80 columns."""
    ours, theirs = pty.openpty()
    ends = {name: theirs if name == stream else subprocess.DEVNULL for name in ("stdout", "stderr")}
    try:
        process = subprocess.Popen(
            [*COMMAND, *arguments], env=environment_of_process(**more), stdout=ends["stdout"], stderr=ends["stderr"]
        )
        os.close(theirs)
        received = b""
        try:
            while chunk := os.read(ours, 65536):
                received += chunk
        except OSError:
            pass  # EIO: the other end is closed and everything was read
        return process.wait(20), received.decode()
    finally:
        os.close(ours)


# --- imports ---


def test_status_imports_few_modules(daemon: FakeDaemon, sleepctl: Sleepctl) -> None:
    """The modules that make a start slow, and those that a client must not know, stay out."""
    daemon.replies[control.GetStatus] = scenes.MORNING
    code = (
        "import sys; from sleepd.sleepctl.__main__ import main; main(['status']);"
        "print('modules:', *sys.modules, file=sys.stderr)"
    )
    # Where coverage is measured, it would load modules of its own.
    environment = {key: value for key, value in environment_of_process().items() if not key.startswith("COVERAGE_")}
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    loaded = set(ran.stderr.partition("modules: ")[2].split())
    assert "sleepd.client" in loaded
    upper = {
        f"sleepd.{name}" for name in ("scheduler", "daemon", "cycles", "store", "quarantine", "buffer.watch", "log")
    }
    slow = {"asyncio", "structlog", "torch", "transformers", "sqlite3"}
    assert loaded & (upper | slow) == set()


# --- run --wait ---


@pytest.mark.parametrize(
    ("summary", "code"),
    [
        (scenes.PROMOTED, 0),
        (scenes.REJECTED, 0),
        (scenes.cycle(9, "inconclusive"), 0),
        (scenes.FAILED, 1),
        (scenes.cycle(9, "cancelled"), 1),
        (scenes.cycle(9, "interrupted"), 1),
        (scenes.cycle(9, "suspended"), 1),
    ],
    ids=lambda value: value.state if isinstance(value, CycleSummary) else "",
)
def test_waited_run_returns_verdict_code(
    daemon: FakeDaemon, sleepctl: Sleepctl, summary: CycleSummary, code: int
) -> None:
    """Whichever the verdict, it is said; a cycle that came to none has failed the caller."""
    daemon.replies[control.Run] = ended(summary)
    ran = sleepctl("run", "--force", "--wait")
    assert ran.code == code
    assert ran.out.startswith(f"cycle {summary.cycle} {summary.state}")
    assert ran.err.endswith("undo: sleepctl rollback\n")
    assert control.Run(force=True, wait=True) in daemon.requests


def test_failed_waited_run_shows_hint(daemon: FakeDaemon, sleepctl: Sleepctl) -> None:
    """The command that mends it comes with the failure."""
    daemon.replies[control.Run] = ended(scenes.FAILED)
    assert f"hint: {scenes.FAILED.hint}\n" in sleepctl("run", "--wait").err


def test_plain_progress_has_line_per_phase(daemon: FakeDaemon, sleepctl: Sleepctl) -> None:
    """A log is not filled with steps; facts that are no progress are passed over."""
    daemon.announcements = [
        progress(phase="loading"),
        control.Announcement(event="cycle_started", at=scenes.NOW, fields={"cycle": 9}),
        *(progress(step=step) for step in range(24)),
        progress(phase="evaluating"),
    ]
    daemon.replies[control.Run] = ended(scenes.PROMOTED)
    err = sleepctl("run", "--wait").err
    assert err.splitlines()[:-1] == ["loading on cuda:0", "training on cuda:0", "evaluating on cuda:0"]
    assert "\x1b" not in err


def test_unknown_progress_does_not_end_waiting(daemon: FakeDaemon, sleepctl: Sleepctl) -> None:
    """The view is lost, which is said; the cycle's end still arrives."""
    daemon.announcements = [progress(phase="dreaming")]
    daemon.replies[control.Run] = ended(scenes.PROMOTED)
    ran = sleepctl("run", "--wait")
    assert ran.code == 0
    assert "note: progress can no longer" in ran.err


def test_waited_run_returns_5_unless_due(daemon: FakeDaemon, sleepctl: Sleepctl) -> None:
    """Waiting for nothing is nothing to do."""
    daemon.replies[control.Run] = RunResult(is_started=False, reason="3 < 5")
    assert sleepctl("run", "--wait").code == 5


def test_daemon_stopping_during_wait_is_error(daemon: FakeDaemon, sleepctl: Sleepctl) -> None:
    """No verdict is made up for a cycle whose end nobody saw."""
    daemon.replies[control.Run] = None
    code, out, err = sleepctl("run", "--wait")
    assert (code, out) == (1, "")
    assert "closed the connection" in err


def test_ctrl_c_detaches_waited_run(daemon: FakeDaemon, environment: Path) -> None:
    """The cycle is not cancelled; the owner learns where to look and what to type."""
    daemon.is_run_answered.clear()
    daemon.replies[control.Run] = ended(scenes.PROMOTED)
    with subprocess.Popen(
        [*COMMAND, "run", "--wait"], env=environment_of_process(), stdout=-1, stderr=-1, text=True
    ) as process:
        assert daemon.has_run_arrived.wait(20)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=LIMIT_SECONDS)
    assert (process.returncode, out) == (130, "")
    assert err == kept("run-detached", err)
    assert not any(isinstance(request, control.Cancel) for request in daemon.requests)


# --- terminals ---


def test_terminal_progress_uses_one_line(daemon: FakeDaemon, environment: Path) -> None:
    """Each drawing starts at the line's beginning, fits it, and the last leaves it empty."""
    daemon.announcements = [progress(step=step, loss=2.5, eta_seconds=90) for step in (6, 12)]
    daemon.replies[control.Run] = ended(scenes.PROMOTED)
    code, received = on_a_terminal("run", "--wait", stream="stderr")
    assert code == 0
    drawn = re.findall(r"\r([^\r\x1b]*)\x1b\[K", received)
    assert [re.findall(r"(\d+)%", line) for line in drawn] == [["25"], ["50"], []]
    assert all(len(line) < 80 for line in drawn)
    assert received.endswith("undo: sleepctl rollback\r\n")


@pytest.mark.parametrize(
    ("more", "is_coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)], ids=str
)
def test_colour_needs_a_willing_terminal(
    daemon: FakeDaemon, environment: Path, more: dict[str, str], is_coloured: bool
) -> None:
    """NO_COLOR and a dumb terminal keep every escape byte away."""
    daemon.replies[control.GetStatus] = scenes.ATTACKED
    code, received = on_a_terminal("status", stream="stdout", **more)
    assert code == 0
    assert "sage-sleepd is " in received
    assert ("\x1b[" in received) is is_coloured


def test_no_escape_byte_without_terminal(daemon: FakeDaemon, sleepctl: Sleepctl) -> None:
    """A pipe gets text and nothing else."""
    daemon.replies[control.GetStatus] = scenes.ATTACKED
    ran = sleepctl("status")
    assert "\x1b" not in ran.out + ran.err


def test_closed_pipe_causes_no_traceback(daemon: FakeDaemon, environment: Path) -> None:
    """`sleepctl history | head` ends quietly."""
    daemon.replies[control.History] = {"schema": 1, "cycles": [scenes.PROMOTED]}
    reading, writing = os.pipe()
    os.close(reading)
    try:
        ran = subprocess.run([*COMMAND, "history"], env=environment_of_process(), stdout=writing, stderr=-1)
    finally:
        os.close(writing)
    assert (ran.returncode, ran.stderr) == (0, b"")


def test_ascii_terminal_gets_question_marks(daemon: FakeDaemon, environment: Path) -> None:
    """An arrow that the encoding lacks is no reason to show nothing."""
    daemon.replies[control.GetStatus] = scenes.MORNING
    ran = subprocess.run(
        [*COMMAND, "status"], env=environment_of_process(PYTHONIOENCODING="ascii"), capture_output=True
    )
    assert (ran.returncode, ran.stderr) == (0, b"")
    assert b"holdout 3.12 ? 2.71" in ran.stdout


def test_progress_fields_match_worker_message() -> None:
    """What the daemon announces is the worker's Progress and the cycle's number."""
    announced = {"cycle": 9, **msgspec.to_builtins(scenes.PROGRESS)}
    assert msgspec.convert(announced, Progress) == scenes.PROGRESS


# --- output that cannot be written ---

ANSWERED = {
    "status": (control.GetStatus, scenes.MORNING),
    "pause": (control.Pause, {"is_paused": True, "undo": "sleepctl resume"}),
}
REQUESTS = [*control.Request.__subclasses__(), *control.Listing.__subclasses__()]
REFUSED = dict.fromkeys(REQUESTS, NothingToDo("nothing to do", hint="sleepctl status"))
KNOWN = [*ANSWERED, "version", "doctor", "config show", "completions bash", "--help"]


def run_in_shell(line: str) -> tuple[int, str]:
    """Exit code and standard error of a command line of bash, in which ``sleepctl`` is ours."""
    line = line.replace("sleepctl", " ".join(COMMAND), 1)
    ran = subprocess.run(["bash", "-c", line], env=environment_of_process(), stderr=subprocess.PIPE, text=True)
    return ran.returncode, ran.stderr


@pytest.mark.parametrize("command", KNOWN)
def test_a_full_disk_is_told(command: str, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where standard output does not take the answer, that is said in a sentence, and the command has failed."""
    daemon.replies |= {**REFUSED, **dict(ANSWERED.values())}
    monkeypatch.setenv("SLEEPD_WORKER_PYTHON", "/bin/false")  # doctor would import torch
    code, err = run_in_shell(f"sleepctl {command} >/dev/full")
    assert code == ExitCode.FAILED
    assert re.search(r"No space left .*\nhint: ", err)
    assert "Traceback" not in err


@pytest.mark.parametrize("subcommand", COMMANDS)
def test_no_subcommand_fails_at_its_output(
    subcommand: str, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Plain, as JSON and asked for help, with no stream that takes a word, each subcommand ends with an exit code."""
    daemon.replies |= {**REFUSED, **dict(ANSWERED.values())}
    daemon.announcements.append(progress())  # for whoever only listens
    monkeypatch.setenv("SLEEPD_WORKER_PYTHON", "/bin/false")  # doctor would import torch
    more = {
        "show": ["1"],
        "tag": ["1", "word"],
        "metric add": ["1", "a", "2"],
        "metric remove": ["1", "a"],
        "completions": ["bash"],
    }
    arguments = [*subcommand.split(), *more.get(subcommand, [])]
    if subcommand in ("logs", "worker-host serve"):
        pytest.skip("it becomes another program, which says so itself")
    for given in (arguments, [*arguments, "--json"], [*subcommand.split(), "--help"]):
        with monkeypatch.context() as patched:
            for name in ("stdout", "stderr"):
                patched.setattr(sys, name, Path("/dev/full").open("w"))  # noqa: SIM115
            try:
                code = main(given)
            except SystemExit as left:
                code = left.code if isinstance(left.code, int) else 1
            sys.stdout.close()
            sys.stderr.close()
        assert code != ExitCode.OK


def test_a_closed_stream_is_nobodys_loss(daemon: FakeDaemon) -> None:
    """With standard output closed by the caller the command does its work; a reader that has gone is no failure."""
    daemon.replies |= dict(ANSWERED.values())
    assert run_in_shell("sleepctl status >&-") == (0, "")
    assert run_in_shell("sleepctl pause >&- 2>&-") == (0, "")
    for line in ("sleepctl config show | head -1 >/dev/null", "sleepctl completions bash | true"):
        assert run_in_shell(f"set -o pipefail; {line}") == (0, ""), line
