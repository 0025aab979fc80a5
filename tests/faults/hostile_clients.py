"""``python tests/faults/hostile_clients.py``: slow, many, loud or vanished clients of a real daemon.

While each of them does its worst, other processes ask for the status. Afterwards the daemon must have the descriptors
that it had before, and about the memory.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))

from tests.agents import config_for, experiences, write_buffer  # noqa: E402
from tests.processes import DaemonProcess  # noqa: E402

SUBSCRIBE = b'{"v": 1, "op": "subscribe"}\n'
STATUS = b'{"v": 1, "op": "getstatus"}\n'


@dataclass
class Result:
    """What one kind of client did to the daemon."""

    slowest: float = 0.0
    """Seconds that a status request took meanwhile, the process that asked included."""
    asked: int = 0
    refused: int = 0
    grown_bytes: int = 0
    left_descriptors: int = 0
    log: list[str] = field(default_factory=list)


def connect(path: str) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(5.0)
    client.connect(path)
    return client


def crowd(path: str, count: int, stop: threading.Event) -> None:
    """So many connections at once, which say nothing."""
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            with contextlib.suppress(OSError):
                stack.enter_context(connect(path))
        stop.wait()


def trickle(path: str, count: int, stop: threading.Event) -> None:
    """A byte of a request now and then."""
    with connect(path) as client, contextlib.suppress(OSError):
        for byte in STATUS * count:
            if stop.wait(0.02):
                return
            client.send(bytes([byte]))


def deaf(path: str, count: int, stop: threading.Event) -> None:
    """Requests without end, whose answers nobody reads."""
    with connect(path) as client, contextlib.suppress(OSError):
        while not stop.is_set():
            client.sendall(STATUS * count)


def deaf_subscribers(path: str, count: int, stop: threading.Event) -> None:
    """Subscribers that read nothing while much happens."""
    with contextlib.ExitStack() as stack:
        for _ in range(min(count, 10)):
            client = stack.enter_context(connect(path))
            client.sendall(SUBSCRIBE)
        stop.wait()


def garbage(path: str, count: int, stop: threading.Event) -> None:
    """Bytes that are no request, on one connection after the other."""
    while not stop.is_set():
        with contextlib.suppress(OSError), connect(path) as client:
            client.sendall(os.urandom(4000) + b"\n" + b"[" * 20_000 + b"\n" + b'{"v": 1e999, "op": []}\n')


def endless_line(path: str, count: int, stop: threading.Event) -> None:
    """A line of a gigabyte, as far as it is taken."""
    with contextlib.suppress(OSError), connect(path) as client:
        for _ in range(count):
            if stop.is_set():
                return
            client.sendall(b"x" * 2**20)
    stop.wait()


def half_closed(path: str, count: int, stop: threading.Event) -> None:
    """Asks, closes its own side, and vanishes before the answer is whole."""
    while not stop.is_set():
        with contextlib.suppress(OSError), connect(path) as client:
            client.sendall(STATUS)
            client.shutdown(socket.SHUT_WR)
            client.recv(10)


KINDS: dict[str, tuple[Callable[[str, int, threading.Event], None], int]] = {
    "1,000 silent connections": (crowd, 1000),
    "a byte now and then": (trickle, 1000),
    "requests whose answers nobody reads": (deaf, 1000),
    "subscribers that do not read": (deaf_subscribers, 10),
    "garbage": (garbage, 0),
    "a line of 1 GB": (endless_line, 1000),
    "half-closed, gone in mid-reply": (half_closed, 0),
}


def attack(daemon: DaemonProcess, kind: str, *, seconds: float, scale: float = 1.0) -> Result:
    """One kind of client for so long, and the status meanwhile."""
    work, count = KINDS[kind]
    process = psutil.Process(daemon.process.pid)
    result = Result()
    # As in a process of its own: what one process may hold must not be what all may hold.
    before, memory = process.num_fds(), process.memory_info().rss
    with _attacker(daemon.config.control.socket, kind, max(1, int(count * scale)) if count else 0):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            started = time.monotonic()
            status = subprocess.run(
                [sys.executable, "-m", "sleepd.sleepctl", "--socket", daemon.config.control.socket, "status", "--json"],
                capture_output=True,
                cwd=ROOT,
                timeout=60,
            )
            result.slowest = max(result.slowest, time.monotonic() - started)
            result.asked += 1
            result.refused += status.returncode != 0
    result.grown_bytes = process.memory_info().rss - memory
    deadline = time.monotonic() + 20
    while process.num_fds() > before and time.monotonic() < deadline:
        time.sleep(0.05)
    result.left_descriptors = process.num_fds() - before
    assert work is not None
    return result


@contextlib.contextmanager
def _attacker(path: str, kind: str, count: int) -> Iterator[None]:
    command = [sys.executable, __file__, "--attack", kind, "--on", path, "--count", str(count)]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        try:
            time.sleep(0.5)  # an interpreter's start; whether it has begun matters little
            yield
        finally:
            process.kill()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10.0, help="for each kind")
    parser.add_argument("--attack", help=argparse.SUPPRESS)
    parser.add_argument("--on", help=argparse.SUPPRESS)
    parser.add_argument("--count", type=int, default=1, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.attack:
        KINDS[options.attack][0](options.on, options.count, threading.Event())
        return 0
    is_well = True
    with tempfile.TemporaryDirectory(prefix="clients-") as made:
        directory = Path(made)
        write_buffer(directory / "buffer.json", experiences(3))
        with DaemonProcess(directory, config_for(directory, min_experiences=1000)) as daemon:
            daemon.await_true(lambda: daemon.counts(3), "all that it holds open for good")
            print(f"{'client':<38} {'asked':>5} {'refused':>7} {'slowest':>8} {'memory':>8} {'descriptors':>11}")
            for kind in KINDS:
                result = attack(daemon, kind, seconds=options.seconds)
                figures = f"{result.slowest * 1000:>5.0f} ms {result.grown_bytes / 2**20:>+6.1f} M"
                print(
                    f"{kind:<38} {result.asked:>5} {result.refused:>7} {figures} {result.left_descriptors:>+11}",
                    flush=True,
                )
                is_well = is_well and not result.refused and result.left_descriptors <= 0 and result.slowest < 1.0
            is_well = is_well and "Traceback" not in daemon.log()
    print("well" if is_well else "NOT WELL")
    return 0 if is_well else 1


if __name__ == "__main__":
    sys.exit(main())
