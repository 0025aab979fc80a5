"""``python tests/bench/bench_page.py [--cycles N]``: how long the daemon and the page take for each page after so many
cycles, and how large the pages are.

The ledger is filled as ``tests/faults/ten_years.py`` does, with ten decisions for each cycle. A real daemon opens it;
the page is asked by HTTP on the loopback. On a machine with other work the processor time says more than the time.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path

import psutil

sys.path.append(str(Path(__file__).parents[2]))

from sleepd.policy.timing.triggers import Facts, Policy, decide
from sleepd.store.sqlite.ledger import Ledger
from tests.agents import config_for, experiences, write_buffer
from tests.faults.ten_years import START, live
from tests.processes import DaemonProcess
from tests.web.web_process import WebProcess

DECISIONS = 7
"""Beside the three that ``ten_years`` records for each cycle."""
TIMES = 10


def record_decisions(ledger: Ledger, number: int) -> None:
    """Changed decisions of one day; and what the daemon does after a cycle."""
    for each in range(DECISIONS):
        facts = Facts(total=1000, new=each, hours_since_last_sleep=each / 2, trainable=16, held_out=100)
        ledger.record_decision(decide(facts, Policy()), facts, at=START + timedelta(days=number, hours=each))
    ledger.compact()


def fill(path: Path, cycles: int) -> None:
    """A ledger with so many cycles."""
    ledger = Ledger(path)
    ledger._db.execute("PRAGMA synchronous=OFF")
    live(ledger, cycles, record_decisions)
    ledger.close()


def processor_seconds(*processes: subprocess.Popen[bytes]) -> float:
    """What these have used up to now."""
    times = [psutil.Process(each.pid).cpu_times() for each in processes]
    return sum(each.user + each.system for each in times)


def measure(site: WebProcess, daemon: DaemonProcess, path: str) -> tuple[float, float, int]:
    """Of one page: milliseconds (median), those of the processor in both processes (mean), bytes."""
    taken = []
    used = processor_seconds(site.process, daemon.process)
    for _ in range(TIMES):
        began = time.perf_counter()
        answer = site.get(path)
        taken.append((time.perf_counter() - began) * 1000)
        assert answer.status == 200, (path, answer.text)
    used = (processor_seconds(site.process, daemon.process) - used) * 1000 / TIMES
    return statistics.median(taken), used, len(answer.text.encode())


def main() -> None:
    """Fill, ask, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--cycles", type=int, default=10_000)
    cycles = parser.parse_args().cycles
    with tempfile.TemporaryDirectory(prefix="page") as name:
        place = Path(name)
        config = config_for(place, min_experiences=10_000)
        write_buffer(place / "buffer.json", experiences(200))
        fill(place / "state" / "state.db", cycles)
        with (
            DaemonProcess(place, config) as daemon,
            WebProcess(place, Path(config.control.socket), "--read-without-token") as site,
        ):
            daemon.await_true(lambda: daemon.status().buffer.total == 200, "the buffer to be read")
            print(f"{cycles} cycles, {10 * cycles} decisions; median of {TIMES}")
            last = f"/cycles/{cycles}"
            paths = ("/", "/cycles", "/cycles?limit=1000", last, f"/compare?a={cycles - 1}&b={cycles}", "/buffer")
            for path in (*paths, "/quarantine", "/metrics"):
                milliseconds, used, size = measure(site, daemon, path)
                print(f"{path:<30} {milliseconds:>7.0f} ms {used:>7.0f} ms processor {size / 1000:>7.1f} kB")


if __name__ == "__main__":
    main()
