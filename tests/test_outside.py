"""Tests of the small doors to the outside: files, lock, clock, log, sd_notify."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import socket
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
import structlog

from sleepd import log
from sleepd.clock import Elapsed
from sleepd.daemon.systemd import Notifier
from sleepd.errors import StateDirectoryUnusable, StateLocked
from sleepd.files import replace_file, replace_link
from sleepd.store.state_lock import Holder, StateLock, read_holder
from tests.fakes import FakeClock

# --- files ---


def test_replacing_leaves_only_new_content(tmp_path: Path) -> None:
    """After a replacement the file is new and no temporary file stays."""
    path = tmp_path / "status.json"
    replace_file(path, b"one")
    replace_file(path, b"two", mode=0o600)
    assert path.read_bytes() == b"two"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_failed_replacement_leaves_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the disk takes no more, the old file stands and no half of the new one."""
    path = tmp_path / "status.json"
    replace_file(path, b"one")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        replace_file(path, b"two")
    assert path.read_bytes() == b"one"
    assert list(tmp_path.iterdir()) == [path]


def test_link_is_replaced_atomically(tmp_path: Path) -> None:
    """The link leads to the new target, and a temporary link left by a crash is no obstacle."""
    link = tmp_path / "current"
    (tmp_path / f".current.{os.getpid()}.tmp").symlink_to("old")
    replace_link(link, "cycle_001")
    replace_link(link, "cycle_002")
    assert os.readlink(link) == "cycle_002"
    assert list(tmp_path.iterdir()) == [link]


# --- lock ---


def test_second_process_learns_the_holder(tmp_path: Path) -> None:
    """The error names the holder's process and socket; released, the lock is free again."""
    lock = StateLock(tmp_path, socket="/run/x.sock")
    with pytest.raises(StateLocked, match=f"process {os.getpid()}, .* /run/x.sock") as caught:
        StateLock(tmp_path, socket="")
    assert caught.value.exit_code == 7
    holder = read_holder(tmp_path)
    assert holder is not None
    assert holder.pid == os.getpid()
    lock.release()
    StateLock(tmp_path, socket="").release()


def test_lock_names_what_it_knows(tmp_path: Path) -> None:
    """The file is private and holds its last owner alone; a holder without socket, or unknown, is told as that."""
    StateLock(tmp_path, socket="/run/" + "x" * 90).release()
    lock, opened = StateLock(tmp_path, socket=""), set(os.listdir("/proc/self/fd"))
    assert (tmp_path / "lock").stat().st_mode & 0o777 == 0o640
    assert read_holder(tmp_path) == Holder(pid=os.getpid(), socket="")
    with pytest.raises(StateLocked, match=f"in use by process {os.getpid()}$"):
        StateLock(tmp_path, socket="")
    (tmp_path / "lock").write_bytes(b"")
    with pytest.raises(StateLocked, match=r"in use by another process$"):
        StateLock(tmp_path, socket="")
    assert set(os.listdir("/proc/self/fd")) == opened
    lock.release()


def test_lock_on_a_full_disk_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the holder cannot be written down the lock is not taken, and the next try may have it."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    opened = set(os.listdir("/proc/self/fd"))
    with monkeypatch.context() as patched:
        patched.setattr("sleepd.store.state_lock.os.pwrite", full)
        with pytest.raises(StateDirectoryUnusable, match=f"{tmp_path / 'lock'}: cannot be written: No space left"):
            StateLock(tmp_path, socket="")
    assert set(os.listdir("/proc/self/fd")) == opened
    StateLock(tmp_path, socket="").release()


def test_replaced_directory_is_not_held(tmp_path: Path) -> None:
    """Removed, or made again and locked by another, it is refused by name; back in its place, it is held."""
    path = tmp_path / "state"
    lock = StateLock(path, socket="/run/x.sock")
    lock.require_held()
    path.rename(tmp_path / "away")
    with pytest.raises(StateDirectoryUnusable, match="it was removed or replaced"):
        lock.require_held()
    other = StateLock(path, socket="")
    with pytest.raises(StateDirectoryUnusable, match="it was removed or replaced"):
        lock.require_held()
    other.require_held()
    path.rename(tmp_path / "other")
    (tmp_path / "away").rename(path)
    lock.require_held()


def test_the_lock_dies_with_its_process(tmp_path: Path) -> None:
    """A killed holder leaves its file but not its lock."""
    code = "import sys, os, pathlib; from sleepd.store.state_lock import StateLock; "
    code += "StateLock(pathlib.Path(sys.argv[1]), socket='/s'); os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert read_holder(tmp_path) is not None
    StateLock(tmp_path, socket="").release()


# --- clock ---


def test_elapsed_time_survives_clock_jumps() -> None:
    """Neither a year forward nor an hour back changes how long ago a sleep was."""
    clock = FakeClock()
    elapsed = Elapsed(clock)
    moment = clock.now() - timedelta(hours=2)
    assert elapsed.seconds_since(moment) == 7200
    clock.wall += timedelta(days=365)
    assert elapsed.seconds_since(moment) == 7200
    clock.wall -= timedelta(days=800)
    clock.advance(60)
    assert elapsed.seconds_since(moment) == 7260


def test_future_moment_counts_from_now() -> None:
    """A sleep recorded under a clock that was ahead blocks for one interval, not until the clock catches up."""
    clock = FakeClock()
    elapsed = Elapsed(clock)
    moment = clock.now() + timedelta(days=3650)
    assert elapsed.seconds_since(moment) == 0
    clock.advance(6 * 3600)
    assert elapsed.seconds_since(moment) == 6 * 3600


# --- log ---


def test_a_file_gets_json_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """Redirected to a file, each event is one JSON object with its fields; what is below the level is not there."""
    stream = io.StringIO()
    log.configure("info", stream=stream)
    log.get_logger().debug("worker_output", text="x")
    log.get_logger().warning("candidate_rejected", cycle=7, text="no better")
    (line,) = stream.getvalue().splitlines()
    event = json.loads(line)
    assert (event["event"], event["level"], event["cycle"]) == ("candidate_rejected", "warning", 7)


def test_a_terminal_gets_sentences() -> None:
    """On a terminal an event is a line for a person: time, sentence, figures."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    log.configure("info", stream=stream)
    log.get_logger().error("cycle_failed", text="it broke", cycle=7, loss=1.23456)
    assert stream.getvalue()[10:].startswith("ERROR cycle failed: it broke ")
    assert stream.getvalue().endswith("(cycle=7, loss=1.235)\n")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # these sockets live as long as we
def test_the_journal_gets_native_fields(tmp_path: Path) -> None:
    """Each event is one datagram with message, priority and SLEEPD_ fields; a value with a newline is length-coded."""
    journal = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    journal.bind(str(tmp_path / "journal"))
    render = log.JournalRenderer(str(tmp_path / "journal"))
    with pytest.raises(structlog.DropEvent):
        render(None, "warning", {"event": "candidate_rejected", "level": "warning", "cycle": 7, "text": "a\nb"})
    datagram = journal.recv(65536)
    for field in (
        "MESSAGE=candidate rejected: a⏎ b (".encode(),
        b"PRIORITY=4\n",
        b"SLEEPD_EVENT=candidate_rejected\n",
        b"SLEEPD_CYCLE=7\n",
    ):
        assert field in datagram
    assert b"SLEEPD_TEXT\n" + (3).to_bytes(8, "little") + b"a\nb\n" in datagram


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # these sockets live as long as we
def test_missing_journal_uses_standard_error(tmp_path: Path) -> None:
    """An unreachable journal costs the fields, not the message."""
    printed = tmp_path / "stderr"
    render = log.JournalRenderer(str(tmp_path / "none"), descriptor=os.open(printed, os.O_CREAT | os.O_WRONLY))
    with pytest.raises(structlog.DropEvent):
        render(None, "info", {"event": "started", "level": "info"})
    assert printed.read_text() == "<6>started\n"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # these sockets live as long as we
def test_text_forges_no_log_line(tmp_path: Path) -> None:
    """Escapes, line ends and a traceback's text start no line of a log, whatever it goes to, and reach no terminal."""
    forged = "x\x1b]0;T\x07\n<0>cycle promoted\r\x9b2J\u2028\u202e<1>y"
    event = {"event": f"buffer_{forged}", "level": "warning", "text": forged, "id": forged, "exception": f"E: {forged}"}
    printed = tmp_path / "stderr"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(str(tmp_path / "journal"))
        for address in ("none", "journal"):
            render = log.JournalRenderer(str(tmp_path / address), descriptor=os.open(printed, os.O_CREAT | os.O_WRONLY))
            with pytest.raises(structlog.DropEvent):
                render(None, "warning", dict(event))
            render._socket.close()
        received = journal.recv(65536).decode("utf-8", "replace")
    stream = type("Terminal", (io.StringIO,), {"isatty": lambda _: True})()
    log.configure("info", stream=stream)
    log.get_logger().warning("experiences_truncated", text=forged, id=forged)
    outputs = (printed.read_text(), stream.getvalue(), received)
    assert not re.findall(r"[\x1b\x07\r\x9b\u2028\u202e]", "".join(outputs))
    assert all(line.startswith("<4>") for line in outputs[0].splitlines())
    assert len(outputs[1].splitlines()) == 1
    assert "\n<0>" not in outputs[0] + outputs[1]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # these sockets live as long as we
def test_lost_lines_are_counted(tmp_path: Path) -> None:
    """Without journald and standard error lines are lost and nothing is raised; later their number is told."""
    reading, writing = os.pipe()
    os.close(reading)
    render = log.JournalRenderer(str(tmp_path / "journal"), descriptor=writing)
    for _ in range(2):
        with pytest.raises(structlog.DropEvent):
            render(None, "info", {"event": "started", "level": "info"})
    journal = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    journal.bind(str(tmp_path / "journal"))
    with pytest.raises(structlog.DropEvent):
        render(None, "info", {"event": "stopped", "level": "info"})
    assert b"MESSAGE=log lines lost: 2 could not be written" in journal.recv(65536)
    assert b"SLEEPD_EVENT=stopped" in journal.recv(65536)


# --- sd_notify ---


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # these sockets live as long as we
def test_systemd_hears_each_state_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """READY, an unchanged status only once, in UTF-8, and the watchdog at half its deadline."""
    systemd = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    systemd.bind(str(tmp_path / "notify"))
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", "30000000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    notifier = Notifier(os.environ)
    notifier.ready()
    notifier.status("3.12 → 2.71")
    notifier.status("3.12 → 2.71")
    notifier.alive()
    notifier.stopping()
    received = [systemd.recv(4096).decode() for _ in range(4)]
    assert received == ["READY=1", "STATUS=3.12 → 2.71", "WATCHDOG=1", "STOPPING=1"]
    assert notifier.ping_interval_seconds == 15.0


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # these sockets live as long as we
def test_unusable_notify_socket_is_reported_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stale NOTIFY_SOCKET neither ends the daemon nor floods its log."""
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "none"))
    with structlog.testing.capture_logs() as events:
        notifier = Notifier(os.environ)
        notifier.ready()
        notifier.alive()
    assert [event["event"] for event in events] == ["notify_failed"]


def test_another_process_watchdog_is_not_ours() -> None:
    """A watchdog meant for another process, or nonsense in its place, asks for no pings."""
    assert Notifier({"WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"}).ping_interval_seconds is None
    assert Notifier({"WATCHDOG_USEC": "soon"}).ping_interval_seconds is None
