"""Soak: a real daemon lives through many short cycles, and what it uses is measured on the way.

Run: nice python tests/faults/soak.py --cycles 1000 [--seed 0] [--every 25]

The worker is the fake one, and behaves as a plan drawn from the seed says for each cycle: promoted, rejected, failed,
crashed, killed, cancelled in the middle. Before each cycle an agent rewrites the buffer: it adds experiences, and now
and then forgets old ones, rewrites one, or writes one that is set aside. Prints a row every so many cycles and a
verdict; the exit status is 1 when a limit was passed.

Memory is judged by its slope (least squares over the samples after the first fifth), descriptors, threads and zombies
by what they are between two cycles, compared with before the first one.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psutil

sys.path.append(str(Path(__file__).parents[2]))

from sleepd.cycle import JUDGED_STATES
from sleepd.protocol.control import Announcement, Cancel
from tests.agents import changed, config_for, experiences, write_buffer
from tests.fakes import fake_interpreter
from tests.processes import DaemonProcess

BEHAVIOURS = {
    "promote": 60,
    "reject": 15,
    "loop": 3,
    "wait": 6,  # cancelled once it trains
    "fail": 5,
    "crash": 5,
    "kill": 3,
    "garbage": 2,
    "flood": 1,
}
"""Shares of the plan, in per cent."""
SLIDING = 200
"""Experiences that the agent remembers."""

MOST_RESIDENT_MIB = 40.0
"""The design's limit, above which the daemon counts as fat."""
MOST_SLOPE_KIB = 200.0
"""Per 100 cycles. Each cycle brings experiences whose sides are kept in memory; a leak is a multiple of that."""
MOST_STATUS_MILLISECONDS = 1000.0
REST_SECONDS = 5.0
"""A connection that is not let go within so long is leaked."""
POOL_THREADS = min(32, (os.cpu_count() or 1) + 4)
"""What asyncio keeps for work that blocks; they are started as they are needed."""


class Sample(NamedTuple):
    """What the daemon uses between two cycles."""

    cycle: int
    seconds: float
    """Since the start."""
    resident_kib: float
    descriptors: int
    threads: int
    zombies: int
    children: int
    state_kib: float
    """All files below the state directory, as the disk counts them."""
    ledger_kib: float
    status_milliseconds: float
    """The slowest of the status requests since the last sample."""


class Soak:
    """One daemon and its agent in ``directory``."""

    def __init__(self, directory: Path, *, cycles: int, seed: int, every: int) -> None:
        self._random = random.Random(seed)
        self._directory = directory
        drawn = self._random.choices(list(BEHAVIOURS), list(BEHAVIOURS.values()), k=cycles)
        # After a verdict the daemon waits for the agent; without one the next cycle begins at once, and no two samples
        # would be alike.
        self._sampled = {*range(every, cycles, every), cycles}
        self._plan = ["promote" if n in self._sampled else behaviour for n, behaviour in enumerate(drawn, 1)]
        (directory / "plan").write_text("\n".join(self._plan) + "\n")
        # The number of the cycle, from the end of its staging directory, is the line of the plan.
        behaviour = f'"$(sed -n "${{3##*_}}p" {directory / "plan"})"'
        python = fake_interpreter(directory / "python", behaviour)
        config = config_for(
            directory, min_experiences=1, min_new_experiences=1, min_hours_between_sleep=0.0, cooldown_seconds=0.0
        )
        config = changed(config, "worker", python=str(python))
        self.daemon = DaemonProcess(directory, config)
        self._records: list[dict[str, Any]] = []
        self._written = 0
        self._slowest = 0.0
        self._descriptors: int | None = None
        """Before the first cycle; None until they are counted."""
        self._started = time.monotonic()
        self.endings: Counter[str] = Counter()

    def run(self) -> Iterator[Sample]:
        """Live through the plan; a sample before it, and one every so many cycles."""
        with self.daemon.client(None) as ears:
            heard = ears.subscribe()
            yield self._sample(0)
            state = "promoted"
            for number, behaviour in enumerate(self._plan, 1):
                if state in JUDGED_STATES:
                    self._let_the_agent_live()  # else the daemon goes on by itself
                state = self._await_end(heard, number, behaviour)
                if number in self._sampled:
                    yield self._sample(number)

    def _let_the_agent_live(self) -> None:
        """Three new experiences, so that one can be held out and a cycle is due in any case; and some changes."""
        chance = self._random.random()
        self._records += experiences(3, start=self._written)
        self._written += 3
        if chance < 0.1:
            self._records.append({"id": f"bad-{self._written}", "prompt": 5, "response": "r", "salience": 0.5})
        elif chance < 0.2:
            self._records[0] = {**self._records[0], "response": f"Rewritten as number {self._written}."}
        elif chance < 0.3:
            self._random.shuffle(self._records)
        self._records = self._records[-SLIDING:]
        write_buffer(self._directory / "buffer.json", self._records)

    def _await_end(self, heard: Iterator[Announcement], number: int, behaviour: str) -> str:
        """Follow cycle ``number`` to its end; cancel it if the plan says so, ask for the status in the middle."""
        for announcement in heard:
            fields = announcement.fields
            if announcement.event == "decision_changed" and "Nothing to train" in fields["reason"]:
                self._let_the_agent_live()  # all that was new is held out
            if fields.get("cycle") != number:
                continue
            if announcement.event == "progress" and fields["phase"] == "training":
                if behaviour == "wait":
                    self.daemon.call(Cancel(), dict)
                    behaviour = "cancelled"
                elif self._slowest == 0.0 or number % 5 == 0:
                    self._time_a_status()
            if announcement.event == "cycle_ended":
                self.endings[fields["state"]] += 1
                return str(fields["state"])
        raise AssertionError(f"the daemon hung up in cycle {number}\n{self.daemon.log()[-4000:]}")

    def _time_a_status(self) -> None:
        start = time.monotonic()
        self.daemon.status()
        self._slowest = max(self._slowest, time.monotonic() - start)

    def _sample(self, cycle: int) -> Sample:
        process = psutil.Process(self.daemon.process.pid)
        self._time_a_status()
        self.daemon.await_true(lambda: self.daemon.status().state == "idle" and not process.children(), "rest")
        descriptors = self._descriptors_at_rest(process)
        state = Path(self.daemon.config.state.directory)
        children = process.children(recursive=True)
        sample = Sample(
            cycle=cycle,
            seconds=time.monotonic() - self._started,
            resident_kib=process.memory_info().rss / 1024,
            descriptors=descriptors,
            threads=process.num_threads(),
            zombies=sum(_is_zombie(child) for child in children),
            children=len(children),
            state_kib=sum(path.lstat().st_blocks / 2 for path in state.rglob("*")),
            ledger_kib=sum(path.stat().st_size / 1024 for path in state.glob("state.db*")),
            status_milliseconds=self._slowest * 1000,
        )
        self._slowest = 0.0
        return sample

    def _descriptors_at_rest(self, process: psutil.Process) -> int:
        """The fewest descriptors in a while: the daemon closes our last connections some time after we do.

        Before the first cycle the whole while is waited for. Later it ends as soon as there are no more than then.
        """
        fewest = process.num_fds()
        patience = time.monotonic() + REST_SECONDS
        while time.monotonic() < patience and (self._descriptors is None or fewest > self._descriptors):
            time.sleep(0.05)
            fewest = min(fewest, process.num_fds())
        if self._descriptors is None:
            self._descriptors = fewest
        return fewest


def _is_zombie(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def slope(samples: list[Sample], field: str) -> float | None:
    """Growth of a figure per 100 cycles, by least squares over what comes after the first fifth.

    None: that is less than 100 cycles, and says more about warming up than about growth.
    """
    settled = samples[len(samples) // 5 :]
    cycles = [sample.cycle for sample in settled]
    if cycles[-1] - cycles[0] < 100:
        return None
    return 100 * statistics.linear_regression(cycles, [getattr(sample, field) for sample in settled]).slope


def verdict(samples: list[Sample]) -> list[str]:
    """The limits that were passed, a sentence each."""
    most = {name: max(getattr(sample, name) for sample in samples) for name in Sample._fields}
    growth = slope(samples, "resident_kib") or 0.0
    limits = (
        ("resident MiB", most["resident_kib"] / 1024, MOST_RESIDENT_MIB),
        ("KiB of memory per 100 cycles", growth, MOST_SLOPE_KIB),
        ("descriptors", most["descriptors"], samples[0].descriptors),
        ("threads", most["threads"], samples[0].threads + POOL_THREADS),
        ("zombies", most["zombies"], 0),
        ("slowest status in ms", most["status_milliseconds"], MOST_STATUS_MILLISECONDS),
    )
    return [f"{name}: {figure:.1f} > {limit:.1f}" for name, figure, limit in limits if figure > limit]


def print_row(sample: Sample) -> None:
    print(
        f"{sample.cycle:>6} {sample.seconds:>7.0f} {sample.resident_kib / 1024:>8.2f} {sample.descriptors:>5}"
        f" {sample.threads:>7} {sample.zombies:>7} {sample.state_kib / 1024:>9.2f} {sample.ledger_kib / 1024:>10.2f}"
        f" {sample.status_milliseconds:>9.1f}",
        flush=True,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cycles", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every", type=int, default=25, help="cycles between two samples")
    options = parser.parse_args()
    print(f"{'cycle':>6} {'seconds':>7} {'RSS MiB':>8} {'fds':>5} {'threads':>7} {'zombies':>7}", end=" ")
    print(f"{'state MiB':>9} {'ledger MiB':>10} {'status ms':>9}")
    samples = []
    with tempfile.TemporaryDirectory(prefix="soak") as directory:
        soak = Soak(Path(directory), cycles=options.cycles, seed=options.seed, every=options.every)
        with soak.daemon:
            for sample in soak.run():
                samples.append(sample)
                print_row(sample)
        log_kib = soak.daemon.log_path.stat().st_size / 1024
    print("endings:", json.dumps(soak.endings))
    growth = {name: slope(samples, name) for name in ("resident_kib", "state_kib", "ledger_kib")}
    if None not in growth.values():
        print("KiB per 100 cycles:", ", ".join(f"{name[:-4]} {figure:+.0f}" for name, figure in growth.items()))
    print(f"log: {100 * log_kib / options.cycles:.0f} KiB per 100 cycles")
    passed = verdict(samples)
    print("PASS" if not passed else f"FAIL: {'; '.join(passed)}")
    return 1 if passed else 0


if __name__ == "__main__":
    sys.exit(main())
