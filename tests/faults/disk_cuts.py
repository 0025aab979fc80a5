"""``python tests/faults/disk_cuts.py``: the power fails after every file operation of a whole cycle.

The file operations of a daemon's life (start, first cycle, end) and of its fake worker are recorded once. For each of
them, several states of the disk are made that a loss of power right after it may leave (``recorded_disk``), and on each
the start-up runs that a daemon would run. What must hold then is in ``soundness.py``; on every tenth state the cycle is
also brought to its verdict.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from random import Random

import structlog

ROOT = Path(__file__).parents[2]
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))

from sleepd.clock import SystemClock  # noqa: E402
from sleepd.config.schema import Config  # noqa: E402
from sleepd.cycles.running.planning import Order  # noqa: E402
from sleepd.errors import SleepdError  # noqa: E402
from tests.agents import changed, experiences, write_buffer, write_config  # noqa: E402
from tests.fakes import fake_interpreter, fake_worker  # noqa: E402
from tests.faults.crash_sweep import FIRST, INLINE, configured, wait_for_end  # noqa: E402
from tests.faults.recorded_disk import Disk, recording  # noqa: E402
from tests.faults.soundness import faults_of  # noqa: E402
from tests.stages import open_sleeper  # noqa: E402

KINDS = ("all", "least", "names", "mixed", "mixed")
FINISHED_EVERY = 10


def record(directory: Path, trace: Path, *, is_pair: bool) -> Config:
    """One life of a daemon with one cycle, or with the two of a pair, its file operations in ``trace``."""
    config = configured(directory, fake_interpreter(directory / "python", "better,promote"), None)
    if is_pair:
        config = changed(config, "training", explore=1.0)
    write_buffer(directory / "buffer.json", experiences(FIRST))
    write_config(directory / "config.toml", config)
    command = [*recording(trace), sys.executable, "-c", INLINE, "--config", str(directory / "config.toml")]
    with (directory / "daemon.log").open("ab") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, cwd=ROOT)
        wait_for_end(process, directory / "daemon.log")
    assert process.returncode == 0, (directory / "daemon.log").read_text()
    return config


async def start(config: Config, *, to_the_verdict: bool) -> None:
    """What a daemon does at its start; and, if wanted, its next cycle."""
    sleeper = open_sleeper(config, clock=SystemClock(), worker=fake_worker("promote"))
    try:
        decision = await sleeper.refresh()
        if to_the_verdict and decision.should_sleep:
            await sleeper.begin(Order())
            await sleeper.finished()
    finally:
        sleeper.close()


def try_state(state: Path, config: Config, *, to_the_verdict: bool) -> list[str]:
    """Start on one state of the disk; everything that is not as it must be."""
    config = changed(config, "state", directory=str(state))
    try:
        asyncio.run(start(config, to_the_verdict=to_the_verdict))
        ids = {str(record["id"]) for record in experiences(FIRST)}
        return faults_of(state, ids, all_ended=to_the_verdict)
    except (SleepdError, OSError, ValueError, AssertionError) as error:
        return [f"{type(error).__name__}: {error}"]


def cut(*, every: int, seed: int, is_pair: bool = False) -> tuple[int, int, int]:
    """Every state of every ``every``-th cut; returns the operations, the states tried, and those with a fault."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))  # the damage is meant
    with tempfile.TemporaryDirectory(prefix="cuts-") as made:
        directory = Path(made)
        trace = directory / "trace"
        config = record(directory, trace, is_pair=is_pair)
        disk = Disk(config.state.directory)
        tried = failed = 0
        number = 0
        for number, name in enumerate(disk.replay(trace), start=1):
            if number % every:
                continue
            for which, kind in enumerate(KINDS):
                state = directory / "cut"
                disk.write_state(state, kind=kind, random=Random(f"{seed}:{number}:{which}"))
                tried += 1
                faults = try_state(state, config, to_the_verdict=tried % FINISHED_EVERY == 0)
                failed += bool(faults)
                for fault in faults:
                    print(f"after operation {number} ({name}), {kind}: {fault}", flush=True)
                shutil.rmtree(state)
        return number, tried, failed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--every", type=int, default=1, metavar="K", help="after every K-th operation")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pair", action="store_true", help="two cycles on the same experiences (training.explore)")
    options = parser.parse_args()
    operations, tried, failed = cut(every=options.every, seed=options.seed, is_pair=options.pair)
    print(f"{operations} file operations, {tried} states of the disk, {failed} with a fault")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
