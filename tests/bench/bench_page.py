"""``python tests/bench/bench_page.py [--cycles N] [--paint]``: what each page costs after so many cycles.

It prints how long the daemon and the page take, how large each page is and, with ``--paint``, when Chromium has painted
it first. The newest cycles are recorded as ``tests/faults/ten_years.py`` records them. The older ones are copies of
compacted rows with experiences of their own; ten decisions are recorded for each cycle (the ledger itself keeps 1,000),
and each cycle has its directory. A real daemon opens all of it; the page is asked by HTTP on the loopback. On a machine
with other work the processor time says more than the time.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

sys.path.append(str(Path(__file__).parents[2]))

from sleepd.protocol.checkpoint.checkpoint_files import WEIGHTS_FILE
from sleepd.store.checkpoints import Manifest, file_record
from sleepd.store.sqlite.ledger import Ledger
from tests.agents import config_for, experiences, write_buffer
from tests.faults.ten_years import live
from tests.processes import DaemonProcess
from tests.web.browser import MISSING, Browser
from tests.web.web_process import WebProcess

REAL = 120
"""Cycles that are recorded one by one; all but the newest hundred of them are compacted."""
COMPACTED = 20
TIMES = 5
NUMBERS = "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n+1 FROM numbers WHERE n<{most})"
OLDER = f"""{NUMBERS}
INSERT INTO cycles SELECT n, state, strftime('%Y-%m-%dT03:00:00+00:00', started_at, (n-cycle)||' days'),
  strftime('%Y-%m-%dT03:20:00+00:00', started_at, (n-cycle)||' days'), nullif(max(n-1-((n-1)%4=0), 0), 0),
  strategy, is_forced, reason, hint, is_rolled_back, report, seen, verdict, trained, replayed, held_out
FROM numbers JOIN cycles ON cycle={{most}}+1+(n-1)%{COMPACTED}"""
LEARNED = f"""{NUMBERS}, each(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM each WHERE i<16),
  keys AS MATERIALIZED (SELECT n, random() AS key FROM numbers, each WHERE n%4)
INSERT INTO placements SELECT n, printf('%016x', key), key, key, 'train', NULL FROM keys"""
DECISIONS = f"{NUMBERS} INSERT INTO decisions SELECT at, decision, facts FROM numbers JOIN decisions LIMIT {{most}}"


def fill(state: Path, cycles: int) -> None:
    """A state directory with so many cycles; more than the recorded ones only in steps of twenty."""
    ledger = Ledger(state / "state.db")
    database = ledger._db
    database.execute("PRAGMA synchronous=OFF")
    live(ledger, min(cycles, REAL), lambda ledger, _number: ledger.compact())
    older = cycles - REAL
    if older > 0:
        assert older % COMPACTED == 0, "copies stand at numbers that are promoted as their originals are"
        with database.transaction():
            # Below zero on the way: a number must not be there twice.
            database.execute("UPDATE cycles SET cycle=-cycle-?, parent=parent+?", (older, older))
            database.execute("UPDATE cycles SET cycle=-cycle")
            database.execute("UPDATE placements SET cycle=-cycle-?", (older,))
            database.execute("UPDATE placements SET cycle=-cycle")
            database.execute(OLDER.format(most=older))
            database.execute("UPDATE cycles SET parent=? WHERE cycle=?", (older - 1, older + 1))
            database.execute(LEARNED.format(most=older))
            database.execute(DECISIONS.format(most=10 * cycles))
    make_directories(state, ledger)
    ledger.close()


def make_directories(state: Path, ledger: Ledger) -> None:
    """A folder for each cycle; the newest three champions have their weights, and the newest is whole and in use."""
    active = set(ledger.active())
    for cycle in range(1, ledger.highest_cycle() + 1):
        (state / ("." if cycle in active else "retired") / f"cycle_{cycle:03d}").mkdir(parents=True)
    newest = sorted(active)[-3:]
    for cycle in newest:
        (state / f"cycle_{cycle:03d}" / WEIGHTS_FILE).write_bytes(b"weights")
    champion = state / f"cycle_{newest[-1]:03d}"
    manifest = Manifest(
        cycle=newest[-1],
        parent=newest[-2],
        verdict="promoted",
        reason="better",
        base_fingerprint="f",
        lora_shape="r16",
        strategy="consolidate",
        created_at="2026-01-01T00:00:00+00:00",
        files={WEIGHTS_FILE: file_record(champion / WEIGHTS_FILE, most=100)},
    )
    (champion / "manifest.json").write_bytes(manifest.encoded())
    (state / "current").symlink_to(champion.name)


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


def paint(site: WebProcess, paths: list[str]) -> None:
    """When Chromium has painted text first, from the start of the request on, and what it used and loaded; median."""
    with Browser() as browser:
        for path in paths:
            seen = []
            used = browser.processor_seconds()
            for _ in range(TIMES):
                browser.open(site.address + path)
                seen.append(browser.run_async(PAINTED))
            used = (browser.processor_seconds() - used) * 1000 / TIMES
            milliseconds, size = statistics.median(each[0] for each in seen), max(each[1] for each in seen)
            painted = f"{path:<30} {milliseconds:>7.0f} ms to the first paint"
            print(f"{painted} {used:>7.0f} ms processor for the whole page {size / 1000:>7.1f} kB")


PAINTED = """
const done = arguments[arguments.length - 1];
const loaded = () => performance.getEntries().reduce((sum, each) => sum + (each.encodedBodySize || 0), 0);
new PerformanceObserver((list) => {
  const found = list.getEntriesByName("first-contentful-paint")[0];
  if (found) done([found.startTime, loaded()]);
}).observe({ type: "paint", buffered: true });
"""


def main() -> None:
    """Fill, ask, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--cycles", type=int, default=10_000)
    parser.add_argument("--paint", action="store_true", help="also measure the first paint in Chromium")
    options = parser.parse_args()
    cycles = options.cycles
    with tempfile.TemporaryDirectory(prefix="page") as name:
        place = Path(name)
        config = config_for(place, min_experiences=10_000)
        write_buffer(place / "buffer.json", experiences(200))
        began = time.perf_counter()
        fill(place / "state", cycles)
        print(
            f"{cycles} cycles, {10 * cycles} decisions, made in {time.perf_counter() - began:.0f} s; median of {TIMES}"
        )
        with (
            DaemonProcess(place, config) as daemon,
            WebProcess(place, Path(config.control.socket), "--read-without-token") as site,
        ):
            daemon.await_true(lambda: daemon.status().buffer.total == 200, "the buffer to be read")
            last, old = f"/cycles/{cycles}", f"/cycles/{cycles // 2}"
            paths = [
                "/",
                "/cycles",
                "/cycles?limit=60",
                f"/cycles?limit=60&before={cycles // 2}",
                last,
                old,
                f"/compare?a={cycles - 1}&b={cycles}",
                "/buffer",
            ]
            for path in [*paths, "/quarantine", "/metrics"]:
                milliseconds, used, size = measure(site, daemon, path)
                print(f"{path:<30} {milliseconds:>7.0f} ms {used:>7.0f} ms processor {size / 1000:>7.1f} kB")
            if options.paint:
                assert not MISSING, f"missing: {', '.join(MISSING)}"
                paint(site, paths)


if __name__ == "__main__":
    main()
