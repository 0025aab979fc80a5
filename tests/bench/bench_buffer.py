"""Reading a large buffer: how long it takes, for how long the event loop stands still, what the daemon grows by.

Run: python tests/bench/bench_buffer.py [--experiences 100000] [--repeats 3] [--append 20]

Every measurement is made in a process of its own, so that none inherits another's memory. A loop block is the longest
delay of a task that asks to be woken each millisecond; another process on the same cores counts too, so the least of
the repeats says what the reading itself costs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import psutil

from sleepd.buffer.reading.experience_buffer import ExperienceBuffer
from sleepd.buffer.reading.source_file import LARGE_BYTES
from sleepd.clock import SystemClock

TICK_SECONDS = 0.001
MIB = 2**20


def record(number: int, kilobytes: float = 1.0) -> dict[str, Any]:
    """An experience of about that size."""
    return {
        "id": f"{number * 0x9E3779B97F4A7C15 % 2**64:016x}",
        "prompt": f"What about case {number}? " + "and then " * 20,
        "response": f"Rule {number}: " + "keep it in order, dé nuit. " * round(22 * kilobytes),
        "salience": {"surprise": 0.5, "novelty": 0.6, "total": number % 100 / 100},
        "session": number // 16,
        "timestamp": "2026-01-10T06:00:00",
        "metadata": {"model": "bench", "tags": [1, 2, 3]},
    }


def write(path: Path, form: str, bytes_wanted: int | None, count: int) -> None:
    """A buffer of that form with so many experiences, or of that many bytes."""
    if bytes_wanted is not None:
        count = bytes_wanted // len(json.dumps(record(0)))
    records = [json.dumps(record(number)) for number in range(count)]
    text = "\n".join(records) + "\n" if form == "lines" else f"[{', '.join(records)}]"
    if form == "torn array":
        text = text[:-500]
    if form == "array with NaN":
        text = text.replace('"total": 0.5', '"total": NaN', 1)
    if form == "one huge text":
        text = json.dumps([record(0, count)], ensure_ascii=False)
    path.write_text(text)


async def measured(work: Callable[[], Awaitable[object]]) -> dict[str, float]:
    """Seconds until ``work`` is done, and the longest block meanwhile, in milliseconds."""
    longest, is_done = 0.0, False

    async def tick() -> None:
        nonlocal longest
        while not is_done:
            began = time.perf_counter()
            await asyncio.sleep(TICK_SECONDS)
            longest = max(longest, time.perf_counter() - began - TICK_SECONDS)

    ticker = asyncio.create_task(tick())
    await asyncio.sleep(0)
    began = time.perf_counter()
    await work()
    seconds, is_done = time.perf_counter() - began, True
    await ticker
    return {"seconds": seconds, "block_ms": longest * 1000}


async def life(path: Path, large_bytes: int, appends: int) -> dict[str, float]:
    """One reading process: a first read, then lines appended one by one, each read."""
    process = psutil.Process()
    buffer = ExperienceBuffer(path, patience_seconds=30.0, clock=SystemClock(), large_bytes=large_bytes)
    before = process.memory_info().rss
    found = await measured(buffer.read)
    found |= {"before_mib": before / MIB, "after_mib": process.memory_info().rss / MIB, "count": len(buffer.view.keys)}
    times = []
    for number in range(appends):
        with path.open("a") as file:
            file.write(json.dumps(record(10**7 + number)) + "\n")
        times.append(await measured(buffer.read))
    if times:
        found["append_ms"] = sorted(one["seconds"] for one in times)[len(times) // 2] * 1000
        found["append_block_ms"] = min(one["block_ms"] for one in times)
        found["count_after"] = len(buffer.view.keys)
        found["last_mib"] = process.memory_info().rss / MIB
    # The high-water mark says what the first read needed for a moment.
    status = Path("/proc/self/status").read_text()
    found["peak_mib"] = int(status.split("VmHWM:")[1].split()[0]) / 1024
    return found


def run(title: str, form: str, *, count: int, size: int | None, large: int, repeats: int, appends: int = 0) -> None:
    """Print the figures of one case: the least of each over the repeats, and the most of the block."""
    results = []
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "buffer.json")
        for _ in range(repeats):
            write(path, form, size, count)
            command = [sys.executable, __file__, "--child", str(path), str(large), str(appends)]
            results.append(json.loads(subprocess.run(command, check=True, capture_output=True).stdout))
        size = path.stat().st_size
    least = {key: min(one[key] for one in results) for key in results[0]}
    most = max(one["block_ms"] for one in results)
    line = f"{title:42} {size / MIB:6.1f} MiB {least['count']:7.0f} read {least['seconds']:6.2f} s"
    line += f"  block {least['block_ms']:5.0f}..{most:.0f} ms"
    line += f"  resident {least['before_mib']:.1f} -> {least['after_mib']:.1f}, peak {least['peak_mib']:.1f} MiB"
    if appends:
        line += f"  append+read {least['append_ms']:.1f} ms, block {least['append_block_ms']:.1f} ms"
        line += f", then {least['count_after']:.0f}, resident {least['last_mib']:.1f} MiB"
    print(line, flush=True)


def main() -> None:
    """Print all cases."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--experiences", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--append", type=int, default=20, help="lines appended one by one")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        path, large, appends = arguments.child
        print(json.dumps(asyncio.run(life(Path(path), int(large), int(appends)))))
        return
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; in a process above {LARGE_BYTES / MIB:g} MiB")
    many = {"count": arguments.experiences, "size": None, "large": LARGE_BYTES, "repeats": arguments.repeats}
    run("array", "array", **many)
    run("lines", "lines", **many, appends=arguments.append)
    for form in ("array", "lines", "torn array", "array with NaN", "one huge text"):
        for large in (8 * MIB, LARGE_BYTES):
            where = "process" if large < 8 * MIB else "thread"
            case = {"count": 0, "size": int(7.5 * MIB), "large": large, "repeats": arguments.repeats}
            run(f"{form}, just below 8 MiB, in a {where}", form, **case)
        case = {"count": 0, "size": int(0.95 * LARGE_BYTES), "large": LARGE_BYTES, "repeats": arguments.repeats}
        run(f"{form}, just below the limit, in a thread", form, **case)


if __name__ == "__main__":
    main()
