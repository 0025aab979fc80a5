"""``python tests/faults/huge_buffers.py``: buffers that are too large, met by a real daemon; its memory meanwhile.

A gigabyte of JSON lines and of an array, one line of 500 MB between good ones, and sparse files of a terabyte. The
daemon and its reader process are measured every 50 ms. What counts is the state that the status names, and that the
daemon stays small and goes on to answer.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))

from sleepd.protocol.status import Status  # noqa: E402
from tests.agents import changed, config_for, experiences, write_buffer  # noqa: E402
from tests.processes import DaemonProcess  # noqa: E402

TERABYTE = 10**12


def lines(path: Path, size: int) -> None:
    one = json.dumps({**experiences(1)[0], "response": "x" * 900}).encode()
    with path.open("wb") as file:
        number = 0
        while file.tell() < size:
            file.write(one.replace(b'"0000000000000000"', f'"{number:016x}"'.encode()) + b"\n")
            number += 1


def array_of(path: Path, size: int) -> None:
    lines(path, size)
    data = path.read_bytes().rstrip(b"\n").replace(b"\n", b",\n")
    path.write_bytes(b"[" + data + b"]")


def long_line(path: Path, size: int) -> None:
    good = [json.dumps(record).encode() for record in experiences(4)]
    with path.open("wb") as file:
        file.write(b"\n".join(good[:2]) + b"\n" + b'{"id": "long", "prompt": "')
        for _ in range(size // 2**20):
            file.write(b"x" * 2**20)
        file.write(b'"}\n' + b"\n".join(good[2:]) + b"\n")


def sparse(start: bytes) -> Callable[[Path, int], None]:
    def make(path: Path, _size: int) -> None:
        path.write_bytes(start)
        os.truncate(path, TERABYTE)

    return make


def watched(make: Callable[[Path, int], None], size: int, limit: float) -> tuple[Status, float, int, int, float]:
    """The state it ends in, after how many seconds, the greatest memory of daemon and reader, the slowest status."""
    with tempfile.TemporaryDirectory(prefix="huge-") as made:
        directory = Path(made)
        config = config_for(directory, min_experiences=10**8, check_interval_seconds=5.0)
        config = changed(config, "buffer", patience_seconds=2.0)
        write_buffer(directory / "buffer.json", experiences(3))
        make(directory / "buffer.json.new", size)
        with DaemonProcess(directory, config) as daemon:
            daemon.await_true(lambda: daemon.status().buffer.total == 3, "the small buffer")
            process = psutil.Process(daemon.process.pid)
            (directory / "buffer.json.new").rename(directory / "buffer.json")
            started = time.monotonic()
            largest, readers, slowest = 0, 0, 0.0
            while True:
                asked = time.monotonic()
                status = daemon.status()
                slowest = max(slowest, time.monotonic() - asked)
                largest = max(largest, process.memory_info().rss)
                with contextlib.suppress(psutil.Error):
                    readers = max([readers, *(child.memory_info().rss for child in process.children())])
                seconds = time.monotonic() - started
                if status.buffer.problem or status.buffer.total not in (0, 3) or seconds > limit:
                    return status, seconds, largest, readers, slowest
                time.sleep(0.05)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--limit", type=float, default=240.0, help="seconds to wait for a state")
    parser.add_argument("--no-sparse", action="store_true", help="leave the sparse terabytes out")
    options = parser.parse_args()
    size = options.megabytes * 10**6
    cases: dict[str, tuple[Callable[[Path, int], None], int]] = {
        f"{options.megabytes} MB of lines": (lines, size),
        f"{options.megabytes} MB of an array": (array_of, size),
        f"one line of {options.megabytes // 2} MB": (long_line, size // 2),
    }
    if not options.no_sparse:
        cases |= {
            "a sparse terabyte": (sparse(b""), 0),
            "a sparse terabyte that begins an array": (sparse(b"["), 0),
        }
    print(f"{'buffer':<40} {'s':>6} {'daemon':>7} {'reader':>8} {'status':>7}  state")
    for name, (make, length) in cases.items():
        status, seconds, largest, readers, slowest = watched(make, length, options.limit)
        buffer = status.buffer
        state = buffer.problem.rpartition("/")[2] or f"{buffer.total} experiences, {buffer.set_aside} skipped"
        figures = f"{seconds:>6.1f} {largest / 2**20:>5.0f} M {readers / 2**20:>6.0f} M {slowest * 1000:>4.0f} ms"
        print(f"{name:<40} {figures}  {state}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
