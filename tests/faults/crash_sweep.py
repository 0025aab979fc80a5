"""``python tests/faults/crash_sweep.py``: the daemon, and then its worker, killed at every write of a whole cycle.

Every write-like system call of a daemon's life (start, first cycle) is a point. For each one a daemon is started anew
on a folder of its own under strace, which delivers SIGKILL as that call begins; then a second daemon is started,
untraced, which must recover, bring the cycle to its verdict, and sleep once more. What must hold then is in
``soundness.py``.

So that strace counts all writes in one order, the traced daemon runs in its own thread what it otherwise gives to
others (``asyncio.to_thread``): the same calls in the same order. Its worker is the fake one unless ``--real`` is given:
a real process and wire, without the seconds of loading torch. The worker's own points are always those of the real
worker on a tiny random model: it is killed at each of its writes, by the same means, and the daemon must do with that
what it can.
"""

from __future__ import annotations

import argparse
import random
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import msgspec

ROOT = Path(__file__).parents[2]
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))

from sleepd.config.schema import Config  # noqa: E402
from sleepd.cycle import JUDGED_STATES  # noqa: E402
from sleepd.errors import SleepdError  # noqa: E402
from tests.agents import changed, config_for, experiences, write_buffer, write_config  # noqa: E402
from tests.fakes import fake_interpreter  # noqa: E402
from tests.faults.soundness import faults_of  # noqa: E402
from tests.processes import DaemonProcess  # noqa: E402

WRITES = (
    "write,writev,pwrite64,ftruncate,fsync,fdatasync,rename,renameat,renameat2,link,linkat,symlink,symlinkat,"
    "unlink,unlinkat,mkdir,mkdirat,rmdir,chmod,fchmod,fchmodat"
)
FIRST, MORE = 12, 8
"""Experiences in the buffer before the crash, and how many come afterwards."""
NOT_KILLED = "it was not killed"
LIVES = 4
LIMIT_SECONDS = 120.0

INLINE = """
import asyncio, sys
async def to_thread(function, /, *args, **kwargs):
    return function(*args, **kwargs)
asyncio.to_thread = to_thread
from sleepd.__main__ import main
sys.exit(main(sys.argv[1:]))
"""
"""The daemon, with what it would give to other threads done in its own."""


class Point(msgspec.Struct, kw_only=True):
    """One kill and what came of it."""

    number: int
    syscall: str = ""
    after: str = ""
    """The last event that was logged before."""
    seconds: float = 0.0
    """From the second start to the verdict."""
    faults: list[str] = []


def configured(directory: Path, python: Path | None, model: Path | None) -> Config:
    config = config_for(directory, cooldown_seconds=0.0, min_hours_between_sleep=0.0, check_interval_seconds=1.0)
    config = changed(config, "worker", resume_point_minutes=0.0)
    if python is not None:
        config = changed(config, "worker", python=str(python))
    if model is not None:
        config = changed(config, "model", base=str(model))
    return config


def strace(number: int, names: list[str], log: Path) -> list[str]:
    """The command that kills what follows it at its n-th write; 0: never, it only counts.

    strace counts each call for itself, so the n-th of ``names``, the writes of an untouched run, is told to it as the
    so-and-so-many-th of its kind.
    """
    inject = []
    if number:
        name = names[number - 1]
        inject = [f"--inject={name}:signal=KILL:when={names[:number].count(name)}"]
    return ["strace", "-qq", "-o", str(log), "-e", f"trace={WRITES}", "-e", "signal=none", *inject]


def writes(log: Path) -> list[str]:
    """The names of the calls in a trace, in order."""
    lines = log.read_text(errors="replace").splitlines()
    return [line.partition("(")[0] for line in lines if "(" in line]


# --- the daemon ---


def daemon_point(number: int, names: list[str], *, model: Path | None) -> tuple[Point, list[str]]:
    """Kill the daemon at its n-th write (0: never); returns what came of it, and its writes.

    How often it writes its status depends on how fast it is: a life that ended before that write is lived again.
    """
    for _ in range(LIVES):
        point, names_met = _daemon_life(number, names, model=model)
        if point.faults != [NOT_KILLED]:
            break
    return point, names_met


def _daemon_life(number: int, names: list[str], *, model: Path | None) -> tuple[Point, list[str]]:
    directory = Path(tempfile.mkdtemp(prefix="sweep-"))
    try:
        python = None if model else fake_interpreter(directory / "python", "promote")
        config = configured(directory, python, model)
        write_buffer(directory / "buffer.json", experiences(FIRST))
        write_config(directory / "config.toml", config)
        point = Point(number=number)
        log, trace = directory / "daemon.log", directory / "trace"
        with log.open("ab") as out:
            command = [
                *strace(number, names, trace),
                sys.executable,
                "-c",
                INLINE,
                "--config",
                str(directory / "config.toml"),
            ]
            process = subprocess.Popen(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, cwd=ROOT)
            wait_for_end(process, log)
        point.after = _last_event(log)
        if number and process.returncode == 0:
            point.faults.append(NOT_KILLED)
        _recover(directory, config, point)
        return point, writes(trace)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def wait_for_end(process: subprocess.Popen[bytes], log: Path) -> None:
    """Until it was killed, or its first cycle has ended; then it is told to end, which is part of its life too."""
    deadline = time.monotonic() + LIMIT_SECONDS
    is_told = False
    while process.poll() is None:
        assert time.monotonic() < deadline, log.read_text()
        if not is_told and _has_ended(log):
            subprocess.run(["pkill", "-TERM", "-P", str(process.pid)], check=False)
            is_told = True
        time.sleep(0.02)


def _has_ended(log: Path) -> bool:
    """The decision that follows a verdict is the last thing to be written down."""
    _, verdict, rest = log.read_text().partition('"candidate_')
    return bool(verdict) and '"decision_changed"' in rest


def _last_event(log: Path) -> str:
    events = re.findall(r'"event": "(\w+)"', log.read_text())
    return events[-1] if events else "(start)"


# --- the worker ---


def worker_point(
    number: int, names: list[str], *, model: Path, worker: str = sys.executable
) -> tuple[Point, list[str]]:
    """Kill the real worker at its n-th write (0: never), once; the daemon lives on. ``worker`` is its interpreter."""
    directory = Path(tempfile.mkdtemp(prefix="sweep-"))
    try:
        trace, used = directory / "trace", directory / "used"
        python = directory / "python"
        python.write_text(
            f'#!/bin/sh\nif [ -e {used} ]; then exec {worker} "$@"; fi\n: >{used}\n'
            f'exec {shlex.join(strace(number, names, trace))} {worker} "$@"\n'
        )
        python.chmod(0o755)
        config = configured(directory, python, model)
        write_buffer(directory / "buffer.json", experiences(FIRST))
        point = Point(number=number)
        _recover(directory, config, point)
        ended = re.findall(r'"event": "cycle_(suspended|failed)"', (directory / "daemon.log").read_text())
        point.after = ended[0] if ended else ""
        return point, writes(trace)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


# --- afterwards ---


def _recover(directory: Path, config: Config, point: Point) -> None:
    """Start again, wait for the verdict, sleep once more, and look at everything."""
    started = time.monotonic()
    begin = len((directory / "daemon.log").read_text()) if (directory / "daemon.log").exists() else 0
    try:
        with DaemonProcess(directory, config) as daemon:
            daemon.await_true(lambda: _is_judged(daemon), "the verdict")
            point.seconds = time.monotonic() - started
            write_buffer(directory / "buffer.json", experiences(FIRST + MORE))
            daemon.await_true(lambda: daemon.status().buffer.total == FIRST + MORE, "the new experiences")
            daemon.await_true(lambda: _is_idle(daemon), "the second verdict")
        ids = {str(record["id"]) for record in experiences(FIRST + MORE)}
        point.faults += faults_of(directory / "state", ids)
        log = (directory / "daemon.log").read_text()[begin:]
        if "Traceback" in log:
            point.faults.append("a traceback: " + log[log.index("Traceback") :][-600:])
    except (AssertionError, SleepdError, OSError) as error:
        point.faults.append(f"{type(error).__name__}: {str(error)[-1500:]}")


def _is_judged(daemon: DaemonProcess) -> bool:
    status = daemon.status()
    return status.running_cycle is None and any(each.state in JUDGED_STATES for each in status.recent_cycles)


def _is_idle(daemon: DaemonProcess) -> bool:
    status = daemon.status()
    return status.running_cycle is None and status.buffer.new == 0


# --- the command ---


def chosen(names: list[str], *, every: int, sample: int, seed: int) -> list[int]:
    points = list(range(1, len(names) + 1, every))
    if sample and sample < len(points):
        points = sorted(random.Random(seed).sample(points, sample))
    return points


def sweep(who: str, names: list[str], points: Iterable[int], *, model: Path | None) -> list[Point]:
    """Every point, a line each where something is wrong."""
    done = []
    for number in points:
        if who == "daemon":
            point, _ = daemon_point(number, names, model=model)
        else:
            assert model is not None
            point, _ = worker_point(number, names, model=model)
        point.syscall = names[number - 1]
        done.append(point)
        for fault in point.faults:
            print(f"{who} {number} ({point.syscall}, after {point.after}): {fault}", flush=True)
    return done


def report(who: str, names: list[str], points: list[Point]) -> bool:
    """The table; returns whether all is well."""
    failed = [point for point in points if point.faults]
    seconds = sorted(point.seconds for point in points)
    middle = f"{seconds[len(seconds) // 2]:.1f} s" if seconds else "–"
    killed = f"killed at {len(points)}, failures {len(failed)}"
    print(f"{who}: {len(names)} writes, {killed}, start to verdict {middle} (median)")
    for syscall, number in Counter(point.syscall for point in points).most_common():
        print(f"    {number:>4} at {syscall}")
    return not failed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=("daemon", "worker"))
    parser.add_argument("--every", type=int, default=1, metavar="K", help="every K-th point")
    parser.add_argument("--sample", type=int, default=0, metavar="K", help="K points at random")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--real", action="store_true", help="the real worker while the daemon is killed, too")
    options = parser.parse_args()
    is_well = True
    with tempfile.TemporaryDirectory(prefix="tiny-") as made:
        model = Path(made)
        if options.real or options.only != "daemon":
            from sleepd.worker.programs.tiny_model import make_tiny_model

            make_tiny_model(model)
        picked = {"every": options.every, "sample": options.sample, "seed": options.seed}
        if options.only != "worker":
            base = model if options.real else None
            _, names = daemon_point(0, [], model=base)
            points = sweep("daemon", names, chosen(names, **picked), model=base)
            is_well = report("daemon", names, points)
        if options.only != "daemon":
            _, names = worker_point(0, [], model=model)
            is_well = report("worker", names, sweep("worker", names, chosen(names, **picked), model=model)) and is_well
    return 0 if is_well else 1


if __name__ == "__main__":
    sys.exit(main())
