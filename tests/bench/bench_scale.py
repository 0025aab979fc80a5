"""What many session files, and one file of very many turns, cost the daemon: memory, a poll, one more turn.

    python tests/bench/bench_scale.py [--files 1000] [--turns-a-file 125] [--megabytes 1000] [--turns 1000000]
        [--as-screened]

Every figure is of a real daemon process. A poll is what a request that reads the buffer anew costs the daemon. One more
turn is timed from its line to the answer of such a request: it was read, screened and counted, and decided on. Beside
the time stands the processor time of the daemon and its processes, which other programs disturb less. Medians. With
``--as-screened`` the turns of the one file stand in the ledger as screened, with their sketches, before the daemon
starts: it is then measured beside them without the minutes that their screening takes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import psutil

sys.path.append(str(Path(__file__).parents[2]))

from sleepd.buffer.columns import MOST_EXPERIENCES
from sleepd.buffer.experience import Experience, group_of, id_hash, parse
from sleepd.protocol.control import Check, GetStatus
from sleepd.protocol.decision_view import DecisionView
from sleepd.protocol.status import Status
from sleepd.quarantine.near_duplicates import Screened, sketch
from sleepd.quarantine.screening_table import Screenings
from sleepd.store.sqlite.ledger import Ledger
from tests.agents import changed, config_for
from tests.bench.bench_daemon import words
from tests.processes import DaemonProcess

REPEATS = 7
AT_ONCE = 10_000
"""Rows of the ledger that are written together."""
AS_INSTALLED = "import sys; sys.modules['rich'] = None"
"""structlog loads rich where there is one: four megabytes. The environment of the service has none."""


def session(number: int, turns: int, size: int) -> str:
    """A file of conversations, each of a system message, a question and an answer, of about ``size`` bytes in all."""
    padding = words(number) * max(1, size // turns // 1600)
    lines = []
    for turn in range(turns):
        said = (("system", f"You are Robin. {padding}"), ("user", f"Case {number}-{turn}? {words(turn)}"))
        answer = ("assistant", f"{words(number * turns + turn)[:300]} {number} {turn}")
        lines.append({"messages": [{"role": role, "content": text} for role, text in (*said, answer)]})
    return "".join(json.dumps(line) + "\n" for line in lines)


def write_turns(path: Path, count: int) -> None:
    """One file of the short form."""
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            file.write(json.dumps({"prompt": f"Case {number}?", "response": f"Rule {number}: {number * 7919}"}) + "\n")


def record_as_screened(path: Path, state: Path) -> None:
    """Note that nothing is wrong with the newest turns of a file, as their screening would."""
    at, page = datetime.now(UTC), list[Screened]()
    with closing(Ledger(state / "state.db")) as ledger, path.open(encoding="utf-8") as lines:
        screenings = Screenings(ledger.database)
        for line in deque(lines, MOST_EXPERIENCES):
            one = parse(json.loads(line))
            assert isinstance(one, Experience)
            page.append(
                Screened(
                    key=id_hash(one.id),
                    group=group_of(one),
                    id=one.id,
                    said_under=None,
                    reason="",
                    detail="",
                    signature=sketch(one),
                )
            )
            if len(page) == AT_ONCE:
                screenings.record(page, at=at)
                page = []
        screenings.record(page, at=at)


def measure(name: str, directory: Path, path: str, grown: Path, wait: Callable[[Status], bool]) -> None:
    """The figures of one buffer; ``grown`` is the file to which turns are appended."""
    config = changed(config_for(directory, min_experiences=10**9), "buffer", path=path, settle_seconds=0.0)
    # The screening is another figure (bench_quarantine), and would share the cores.
    with DaemonProcess(directory, config, prelude=AS_INSTALLED) as daemon, daemon.client() as client:
        process = psutil.Process(daemon.process.pid)
        start = time.perf_counter()
        while not wait(client.call(GetStatus(), Status)):
            time.sleep(0.05)
        print(f"{name}: first reading {time.perf_counter() - start:.1f} s")
        print(f"{name}: resident {process.memory_info().rss / 2**20:.1f} MiB, peak {peak_mib(process.pid):.1f} MiB")
        while client.call(GetStatus(), Status).buffer.unscreened:
            time.sleep(1.0)
        polls = []
        for _ in range(REPEATS):
            used = processor_seconds(process)
            client.call(Check(), DecisionView)
            polls.append(processor_seconds(process) - used)
        print(f"{name}: a poll of unchanged files {statistics.mean(polls) * 1000:.0f} ms of processor time (mean)")
        times, costs, owns = [], [], []
        for number in range(REPEATS):
            used, own, start = processor_seconds(process), sum(process.cpu_times()[:2]), time.perf_counter()
            with grown.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"prompt": f"New {number}?", "response": f"It is {number}."}) + "\n")
            client.call(Check(), DecisionView)
            times.append(time.perf_counter() - start)
            costs.append(processor_seconds(process) - used)
            owns.append(sum(process.cpu_times()[:2]) - own)
        turn, cost, own = (statistics.median(each) * 1000 for each in (times, costs, owns))
        print(
            f"{name}: one more turn to decision {turn:.0f} ms, {cost:.0f} ms of processor time, "
            f"{own:.0f} of it in the daemon"
        )
        print(f"{name}: resident {process.memory_info().rss / 2**20:.1f} MiB, peak {peak_mib(process.pid):.1f} MiB")


def processor_seconds(process: psutil.Process) -> float:
    """Of the daemon and of those processes of its own that have ended."""
    return sum(process.cpu_times()[:4])


def peak_mib(pid: int) -> float:
    """The most that was resident since the start."""
    lines = Path("/proc", str(pid), "status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


def main() -> None:
    """Print a line a figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=1000, help="0: leave them out")
    parser.add_argument("--turns-a-file", type=int, default=125)
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--turns", type=int, default=1_000_000, help="of the one file; 0: leave it out")
    parser.add_argument("--as-screened", action="store_true", help="those of the one file stand in the ledger already")
    options = parser.parse_args()
    if options.files:
        measure_sessions(options)
    if options.turns:
        measure_turns(options)


def measure_sessions(options: argparse.Namespace) -> None:
    """Many files of conversations."""
    with tempfile.TemporaryDirectory() as name:
        directory, sessions = Path(name), Path(name, "sessions")
        sessions.mkdir()
        size = options.megabytes * 10**6 // options.files
        for number in range(options.files):
            (sessions / f"{number:05}.jsonl").write_text(session(number, options.turns_a_file, size), encoding="utf-8")
        megabytes = sum(path.stat().st_size for path in sessions.iterdir()) / 10**6
        print(f"sessions: {options.files} files, {megabytes:.0f} MB, {options.files * options.turns_a_file} turns")
        wanted = min(options.files * options.turns_a_file, MOST_EXPERIENCES)
        measure(
            "sessions",
            directory,
            str(sessions),
            sessions / "00000.jsonl",
            lambda status: status.buffer.total >= wanted,
        )


def measure_turns(options: argparse.Namespace) -> None:
    """One file of the short form."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        write_turns(directory / "turns.jsonl", options.turns)
        print(f"one file: {options.turns} turns, {(directory / 'turns.jsonl').stat().st_size / 10**6:.0f} MB")
        wanted = min(options.turns, MOST_EXPERIENCES)
        if options.as_screened:
            config_for(directory)
            record_as_screened(directory / "turns.jsonl", directory / "state")
        measure(
            "one file",
            directory,
            str(directory / "turns.jsonl"),
            directory / "turns.jsonl",
            lambda status: status.buffer.total >= wanted,
        )


if __name__ == "__main__":
    main()
