"""``python tests/faults/disk_faults.py``: each write of a daemon's first cycle refused by the disk, one at a time.

strace lets the n-th write-like system call fail with ENOSPC, EIO or EROFS; only those on the state directory are
points. A daemon that was already answering must live, say what happened, and bring the cycle to a verdict by itself;
one that was starting may give up in words, as systemd then starts it again. What must hold at the end is in
``soundness.py``. A real full file system is in ``tests/test_disk_faults.py``.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import msgspec

ROOT = Path(__file__).parents[2]
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))

from sleepd.errors import LedgerUnusable  # noqa: E402
from sleepd.protocol.control import Pause  # noqa: E402
from tests.agents import changed, experiences, place_secret, write_buffer, write_config  # noqa: E402
from tests.fakes import fake_interpreter  # noqa: E402
from tests.faults import crash_sweep as sweep  # noqa: E402
from tests.faults.soundness import faults_of  # noqa: E402
from tests.processes import DaemonProcess  # noqa: E402

ERRORS = ("ENOSPC", "EIO", "EROFS")
LIMIT_SECONDS = 60.0


class Fault(msgspec.Struct, frozen=True):
    """One refused system call."""

    error: str
    call: str
    number: int
    """The n-th of that call (strace counts each call for itself); 0: none is refused."""

    def __str__(self) -> str:
        return f"{self.error}-{self.call}-{self.number}"


CI_POINTS = (
    Fault("ENOSPC", "pwrite64", 40),
    Fault("EIO", "fdatasync", 8),
    Fault("EIO", "fsync", 6),
    Fault("EROFS", "rename", 3),
)


class Outcome(msgspec.Struct, kw_only=True):
    """What came of it."""

    call: str = ""
    """The refused call; empty: it was not one on the state directory."""
    is_started: bool = False
    """Whether the daemon was already answering."""
    is_named: bool = False
    """Whether a warning or an error was logged."""
    seconds: float = 0.0
    """From the refusal to the verdict."""
    faults: list[str] = []


def try_fault(fault: Fault, directory: Path) -> Outcome:
    """A daemon's first cycle with that fault in it."""
    config = sweep.configured(directory, fake_interpreter(directory / "python", "promote"), None)
    write_buffer(directory / "buffer.json", experiences(sweep.FIRST))
    write_config(directory / "config.toml", config)
    log, trace = directory / "daemon.log", directory / "trace"
    inject = [f"--inject={fault.call}:error={fault.error}:when={fault.number}"] if fault.number else []
    tracer = ["strace", "-qq", "-y", "-ttt", "-o", str(trace), "-e", f"trace={sweep.WRITES},close", *inject]
    outcome = Outcome()
    with log.open("ab") as out:
        command = [*tracer, sys.executable, "-c", sweep.INLINE, "--config", str(directory / "config.toml")]
        process = subprocess.Popen(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, cwd=ROOT)
        ended = _await_verdict(process, log)
    text = log.read_text()
    _look_at(trace, directory / "state", outcome)
    outcome.is_started = '"event": "started"' in text
    outcome.is_named = "hint:" in text or bool(re.search(r'"level": "(error|warning)"', text))
    if outcome.is_started and not ended:
        outcome.faults.append(f"no verdict within {LIMIT_SECONDS:.0f} s, or an early end: {text[-1500:]}")
    if "Traceback" in text:
        outcome.faults.append("a traceback: " + text[text.index("Traceback") :][-1200:])
    outcome.faults += [f"synced again: {line}" for line in synced_again(trace)]
    point = sweep.Point(number=fault.number)
    sweep._recover(directory, config, point)
    outcome.faults += point.faults
    return outcome


def _await_verdict(process: subprocess.Popen[bytes], log: Path) -> bool:
    """Wait for it, and end the daemon; returns whether it came, and the daemon ended as told."""
    deadline = time.monotonic() + LIMIT_SECONDS
    while process.poll() is None and not _has_ended(log) and time.monotonic() < deadline:
        time.sleep(0.05)
    if process.poll() is not None:
        return False
    subprocess.run(["pkill", "-TERM", "-P", str(process.pid)], check=False)
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        subprocess.run(["pkill", "-KILL", "-P", str(process.pid)], check=False)
        process.wait()
        return False
    return process.returncode == 0 and _has_ended(log)


def _has_ended(log: Path) -> bool:
    """The decision after a verdict, be it the cycle's own or the one that mending put into effect."""
    _, verdict, rest = re.sub("cycle_completed_after_crash", "candidate_", log.read_text()).partition('"candidate_')
    return bool(verdict) and '"decision_changed"' in rest


def _look_at(trace: Path, state: Path, outcome: Outcome) -> None:
    lines = trace.read_text(errors="replace").splitlines()
    refused = next((line for line in lines if line.endswith("(INJECTED)")), "")
    if str(state) in refused:
        outcome.call = re.sub(r"^\S+ ", "", refused).split("(")[0]
        outcome.seconds = float(lines[-1].split()[0]) - float(refused.split()[0])


def synced_again(trace: Path) -> list[str]:
    """Each sync of a descriptor on which one has failed: the kernel may have dropped what it now calls written.

    SQLite's own files are left out: it writes its log anew before it syncs it again.
    """
    failed: set[str] = set()
    found = []
    for line in trace.read_text(errors="replace").splitlines():
        match = re.match(r"\S+ (\w+)\((\d+)<([^>]*)>", line)
        if match is None or "/state.db" in match[3]:
            continue
        call, descriptor = match[1], match[2]
        if call == "close":
            failed.discard(descriptor)
        elif call in ("fsync", "fdatasync"):
            if descriptor in failed:
                found.append(line)
            if line.endswith("(INJECTED)"):
                failed.add(descriptor)
    return found


def syncs(trace: Path) -> list[tuple[str, bool]]:
    """Each ``fsync`` in order: its path, and whether it was refused. The n-th is number n to strace."""
    found = re.findall(r"^\S+ fsync\(\d+<([^>]*)>(.*)$", trace.read_text(errors="replace"), re.MULTILINE)
    return [(path, rest.endswith("(INJECTED)")) for path, rest in found]


def refuse_sync_of(name: str, directory: Path) -> tuple[Outcome, Path]:
    """A first cycle in which the last sync of ``staging/cycle_001/NAME`` (empty: of that directory) is refused.

    How often the status is written differs from life to life, and with it the number: it is counted anew after each
    miss. Returns the outcome, and the directory of the life in which it was hit.
    """
    number = 0
    for attempt in range(8):
        life = directory / str(attempt)
        life.mkdir()
        wanted = str(life / "state/staging/cycle_001" / name)
        outcome = try_fault(Fault("EIO" if number else "", "fsync" if number else "", number), life)
        calls = syncs(life / "trace")
        if (wanted, True) in calls or outcome.faults:
            return outcome, life
        number = max((place for place, (path, _) in enumerate(calls, 1) if path == wanted), default=number)
    raise AssertionError(f"the sync of {name!r} was never hit")


def points() -> list[tuple[str, int]]:
    """Name and number of the system calls that touch the state directory in a life without faults."""
    directory = Path(tempfile.mkdtemp(prefix="disk-"))
    try:
        outcome = try_fault(Fault("", "", 0), directory)
        assert not outcome.faults, outcome.faults
        lines = (directory / "trace").read_text(errors="replace").splitlines()
        counts: Counter[str] = Counter()
        found = []
        for line in (line for line in lines if "(" in line):
            call = re.sub(r"^\S+ ", "", line).split("(")[0]
            counts[call] += 1
            if call != "close" and str(directory / "state") in line:  # traced, and refuses nothing
                found.append((call, counts[call]))
        return found
    finally:
        shutil.rmtree(directory, ignore_errors=True)


# --- a disk that is full for real ---


def daemon_on_full_disk(disk: Path, directory: Path, fill: Callable[[Path], Path]) -> list[str]:
    """A daemon whose state directory lies on ``disk``, which fills up and is emptied; returns what is not as it should.

    Args:
        disk: a small file system.
        directory: for everything else.
        fill: takes all its space; returns the file that does.
    """
    faults: list[str] = []
    config = sweep.configured(directory, fake_interpreter(directory / "python", "promote"), None)
    config = changed(config, "state", directory=str(disk / "state"), min_free_megabytes=1)
    place_secret(disk / "state")
    write_buffer(directory / "buffer.json", experiences(sweep.FIRST))
    with DaemonProcess(directory, config) as daemon:
        daemon.await_true(lambda: sweep._is_judged(daemon), "the first verdict")
        filler = fill(disk)
        write_buffer(directory / "buffer.json", experiences(sweep.FIRST + sweep.MORE))
        daemon.await_true(lambda: "disk_full" in _vetoes(daemon), "the veto")
        daemon.await_true(lambda: daemon.status().last_error is not None, "an error in the status")
        try:
            daemon.call(Pause(), dict)
            faults.append("pause succeeded on a full disk")
        except LedgerUnusable:
            pass
        status = daemon.status()
        if status.champion is None or status.champion.cycle != 1:
            faults.append(f"the champion is {status.champion}")
        filler.unlink()
        everything = sweep.FIRST + sweep.MORE
        daemon.await_true(lambda: daemon.status().buffer.total == everything, "a look at the whole buffer")
        daemon.await_true(lambda: sweep._is_idle(daemon) and not _vetoes(daemon), "the second verdict")
        # The veto goes with the space; what is still said goes with the next look.
        daemon.await_true(lambda: _says_nothing(daemon), "an end of the errors and alarms")
    if "Traceback" in daemon.log():
        faults.append("a traceback: " + daemon.log()[-1200:])
    ids = {str(record["id"]) for record in experiences(sweep.FIRST + sweep.MORE)}
    return faults + faults_of(disk / "state", ids)


def _says_nothing(daemon: DaemonProcess) -> bool:
    status = daemon.status()
    return status.last_error is None and not status.alarms


def _vetoes(daemon: DaemonProcess) -> list[str]:
    return [veto.name for veto in daemon.status().decision.vetoes]


# --- the command ---


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--every", type=int, default=1, metavar="K", help="every K-th point")
    parser.add_argument("--error", choices=ERRORS, help="one of them only; default: in turn")
    options = parser.parse_args()
    chosen = points()[:: options.every]
    outcomes: list[Outcome] = []
    for index, (call, number) in enumerate(chosen):
        fault = Fault(options.error or ERRORS[index % 3], call, number)
        with tempfile.TemporaryDirectory(prefix="disk-") as directory:
            outcome = try_fault(fault, Path(directory))
        outcomes.append(outcome)
        for text in outcome.faults:
            print(f"{fault} ({outcome.call or 'elsewhere'}): {text}", flush=True)
    hit = [one for one in outcomes if one.call]
    running = [one for one in hit if one.is_started]
    seconds = sorted(one.seconds for one in running) or [0.0]
    print(f"points {len(chosen)}, refused on the state directory {len(hit)}, while answering {len(running)}")
    print(f"failures {sum(bool(one.faults) for one in outcomes)}, named {sum(one.is_named for one in hit)}")
    print(f"refusal to the daemon's end: median {seconds[len(seconds) // 2]:.1f} s, most {seconds[-1]:.1f} s")
    for call, count in Counter(one.call or "elsewhere" for one in outcomes).most_common():
        print(f"    {count:>4} at {call}")
    return 1 if any(one.faults for one in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
