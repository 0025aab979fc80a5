"""``python tests/faults/rewriting_writer.py --minutes 3``: an agent that rewrites its buffer in place without a pause.

The file is opened for writing, emptied, and written in chunks with 2 ms between them, again and again, one experience
more each time. Meanwhile a real daemon watches it; its status is looked at all the time. A false alarm is any moment at
which the status calls the buffer broken, or counts fewer experiences than it did before.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))

from tests.agents import changed, config_for, experiences  # noqa: E402
from tests.processes import DaemonProcess  # noqa: E402

CHUNKS = 40
PAUSE_SECONDS = 0.002


@dataclass
class Result:
    """What was seen."""

    rewrites: int = 0
    written: int = 0
    """Experiences in the file as it was last written."""
    looks: int = 0
    last_total: int = 0
    false_alarms: list[str] = field(default_factory=list)


def rewrite_and_watch(directory: Path, *, seconds: float) -> Result:
    """Rewrite for so long, look all the while, and once more at the end."""
    result = Result()
    path = directory / "buffer.json"
    config = config_for(directory, min_experiences=10**6, check_interval_seconds=1.0)
    config = changed(config, "buffer", patience_seconds=30.0, settle_seconds=0.05)
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            result.written += 1
            data = json.dumps(experiences(result.written)).encode()
            size = max(1, len(data) // CHUNKS)
            with path.open("wb", buffering=0) as file:
                for start in range(0, len(data), size):
                    file.write(data[start : start + size])
                    time.sleep(PAUSE_SECONDS)
            result.rewrites += 1

    with DaemonProcess(directory, config) as daemon:
        writer = threading.Thread(target=write)
        writer.start()
        deadline = time.monotonic() + seconds
        try:
            while time.monotonic() < deadline:
                status = daemon.status()
                result.looks += 1
                if status.buffer.problem or status.buffer.total < result.last_total or status.last_error:
                    result.false_alarms.append(f"{status.buffer.total} {status.buffer.problem} {status.last_error}")
                result.last_total = status.buffer.total
                time.sleep(0.02)
        finally:
            stop.set()
            writer.join()
        daemon.await_true(lambda: daemon.status().buffer.total == result.written, "the last state")
        result.last_total = daemon.status().buffer.total
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=3.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rewriting-") as made:
        result = rewrite_and_watch(Path(made), seconds=options.minutes * 60)
    print(
        f"{result.rewrites} rewrites in place, up to {result.written} experiences; {result.looks} looks at the status, "
        f"{len(result.false_alarms)} false alarms"
    )
    for alarm in result.false_alarms[:5]:
        print(f"    {alarm}")
    return 1 if result.false_alarms else 0


if __name__ == "__main__":
    sys.exit(main())
