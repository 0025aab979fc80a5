"""What the daemon costs: memory, idle CPU, latency of ``sleepctl status``, from a change of the buffer to its decision.

    python tests/bench/bench_daemon.py [--experiences 100000] [--idle-seconds 600]

Every figure is of a real daemon process with an interpreter of its own. Latencies are medians of several.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

sys.path.append(str(Path(__file__).parents[2]))

from sleepd.protocol.control import GetStatus
from sleepd.protocol.status import Status
from tests.agents import changed, config_for, experiences
from tests.fakes import fake_interpreter
from tests.processes import DaemonProcess

REPEATS = 7
LETTERS = str.maketrans("0123456789", "ghijklmnop")


def padded(count: int, *, start: int = 0) -> list[dict[str, Any]]:
    """Experiences of about a kilobyte each, as real ones are, and no two alike: none is a loop or a near-duplicate."""
    return [
        record | {"response": f"{record['response']} {words(start + number)}"}
        for number, record in enumerate(experiences(count, start=start))
    ]


def words(number: int) -> str:
    """A hundred words of seven letters, others for each number."""
    letters = hashlib.shake_128(str(number).encode()).hexdigest(350).translate(LETTERS)
    return " ".join(letters[place : place + 7] for place in range(0, len(letters), 7))


def resident_mib(daemon: DaemonProcess) -> float:
    return psutil.Process(daemon.process.pid).memory_info().rss / 2**20


def status_latency(daemon: DaemonProcess) -> float:
    """Median seconds of the whole process ``sleepctl status``."""
    command = [sys.executable, "-m", "sleepd.sleepctl", "--socket", daemon.config.control.socket, "status"]
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def awaited(daemon: DaemonProcess, holds: Callable[[Status], bool]) -> tuple[float, float]:
    """Seconds until the status says so, and the longest that one answer took meanwhile: how long the loop stood."""
    start, longest = time.perf_counter(), 0.0
    with daemon.client() as client:
        while True:
            asked = time.perf_counter()
            status = client.call(GetStatus(), Status)
            longest = max(longest, time.perf_counter() - asked)
            if holds(status):
                return time.perf_counter() - start, longest
            time.sleep(0.005)


def measure_form(form: str, count: int) -> None:
    """From a change to its decision on a large buffer, less the settle time."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        config = changed(config_for(directory, min_experiences=10**9), "buffer", settle_seconds=0.0)
        path = Path(config.buffer.path)
        records = padded(count)

        def write(these: list[dict[str, Any]]) -> None:
            temporary = path.with_suffix(".tmp")
            with temporary.open("w") as file:
                if form == "array":
                    json.dump(these, file)
                else:
                    file.writelines(json.dumps(record) + "\n" for record in these)
            temporary.rename(path)

        with DaemonProcess(directory, config) as daemon:
            before = resident_mib(daemon)
            write(records)
            first, longest = awaited(daemon, lambda status: status.buffer.total == count)
            size = path.stat().st_size / 2**20
            print(f"{form}: {count} experiences, {size:.0f} MiB: first read to decision {first:.2f} s")
            print(f"{form}: longest answer to a status request meanwhile {longest * 1000:.0f} ms")
            times = []
            for number in range(REPEATS):
                added = padded(1, start=count + number)
                if form == "array":
                    records += added
                    write(records)
                else:
                    with path.open("a") as file:
                        file.write(json.dumps(added[0]) + "\n")
                wanted = count + number + 1
                times.append(awaited(daemon, lambda status, wanted=wanted: status.buffer.total == wanted)[0])
            print(f"{form}: one more experience to decision {statistics.median(times) * 1000:.0f} ms (median)")
            print(f"{form}: resident {before:.1f} -> {resident_mib(daemon):.1f} MiB")


def measure_idle(seconds: float) -> None:
    """Memory and CPU with a small buffer and nothing to do, and during a cycle."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        config = config_for(directory, min_experiences=5)
        config = changed(config, "worker", python=str(fake_interpreter(directory / "python", "wait")))
        with DaemonProcess(directory, config) as daemon:
            Path(config.buffer.path).write_text(json.dumps(padded(3)))
            awaited(daemon, lambda status: status.buffer.total == 3)
            process = psutil.Process(daemon.process.pid)
            print(f"idle: resident {resident_mib(daemon):.1f} MiB")
            print(f"idle: sleepctl status {status_latency(daemon) * 1000:.0f} ms (median, whole process)")
            used = process.cpu_times()
            time.sleep(seconds)
            now = process.cpu_times()
            busy = now.user + now.system - used.user - used.system
            print(f"idle: {busy:.2f} s of CPU in {seconds:.0f} s ({busy / seconds:.4%})")
            Path(config.buffer.path).write_text(json.dumps(padded(180)))
            awaited(daemon, lambda status: status.state == "training")
            time.sleep(5)
            print(f"in a cycle: resident {resident_mib(daemon):.1f} MiB")
            print(f"in a cycle: sleepctl status {status_latency(daemon) * 1000:.0f} ms (median, whole process)")


def main() -> None:
    """Print a line a figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--experiences", type=int, default=100_000)
    parser.add_argument("--idle-seconds", type=float, default=600.0)
    options = parser.parse_args()
    for form in ("array", "lines"):
        measure_form(form, options.experiences)
    measure_idle(options.idle_seconds)


if __name__ == "__main__":
    main()
