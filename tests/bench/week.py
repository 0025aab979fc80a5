"""A week in an hour: a buffer grows day by day, the daemon sleeps whenever it decides to, and at the end it reports.

    python tests/bench/week.py BUFFER.json DIRECTORY [--days 7] [--threads 0]

The records of the buffer (a JSON array) are divided by their timestamps into days of equal numbers. Each morning one
day's records are added to the file that a real daemon watches; the day ends when a cycle was judged with them. It runs
with default settings but for the hours between two sleeps, which nobody waits for here. Printed are a line a day, then
``sleepctl history`` and ``sleepctl report`` as they come. DIRECTORY keeps everything: buffer, state, the daemon's log.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[2]))

from sleepd.protocol.status import Status
from tests.agents import changed, config_for, write_buffer
from tests.processes import DaemonProcess

LOOK_SECONDS = 1.0


def days_of(buffer: Path, days: int) -> list[list[dict[str, Any]]]:
    """The records in time order, in so many parts; what does not divide is left to the last ones."""
    records = sorted(json.loads(buffer.read_bytes()), key=lambda record: str(record.get("timestamp", "")))
    return [records[len(records) * day // days : len(records) * (day + 1) // days] for day in range(days)]


def await_cycle(daemon: DaemonProcess, cycles: int, written_at: datetime) -> Status:
    """The status once the daemon has screened what was written and has judged a cycle with it, after so many before.

    ``written_at`` is a moment before the writing: the daemon may have read the file as soon as it is there.
    Ends the program where a cycle failed: the pause that follows is longer than anybody waits here.
    """
    while True:
        status = daemon.status()
        buffer = status.buffer
        is_read = buffer.read_at is not None and buffer.read_at > written_at and not buffer.unscreened
        if is_read and status.state == "idle" and buffer.new == 0 and status.total_cycles > cycles:
            return status
        if status.last_error:
            sys.exit(f"{status.last_error.message}\nhint: {status.last_error.hint}")
        time.sleep(LOOK_SECONDS)


def main() -> None:
    """Run the week."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("buffer", type=Path)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--days", type=int, default=7)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--base", default="embedded", help="the base model, as model.base names it")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the daemon ends with it
    options.directory.mkdir(parents=True, exist_ok=True)
    config = config_for(options.directory, min_hours_between_sleep=0.0)
    config = changed(config, "model", base=options.base)
    config = changed(config, "worker", threads=options.threads, silence_seconds=300.0)
    written: list[dict[str, Any]] = []
    write_buffer(Path(config.buffer.path), written)
    cycles = 0
    with DaemonProcess(options.directory, config) as daemon:
        for day, records in enumerate(days_of(options.buffer, options.days), 1):
            started, written_at = time.monotonic(), datetime.now(UTC)
            written += records
            write_buffer(Path(config.buffer.path), written)
            status = await_cycle(daemon, cycles, written_at)
            cycles = status.total_cycles
            champion = status.champion.cycle if status.champion else "none"
            minutes = (time.monotonic() - started) / 60
            print(
                f"day {day}: {len(written)} experiences, {status.total_cycles} cycles, in use: {champion}, "
                f"{minutes:.1f} min",
                flush=True,
            )
        for command in ("history", "report"):
            print(f"\n$ sleepctl {command}\n{daemon.sleepctl(command).stdout}", flush=True)


if __name__ == "__main__":
    main()
