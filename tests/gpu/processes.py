"""A worker in its own process, as the daemon starts it, with what it takes of the machine and of the card."""

from __future__ import annotations

import contextlib
import os
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from sleepd.protocol.job import Job, TrainingExample, decode_message, encode
from sleepd.worker.channel import Channel

from .shared import IS_CPU, ROOT

_SHORT = """
import sys
from tests.gpu.shared import shorten_replies
shorten_replies()
import sleepd.worker.__main__ as worker
sys.exit(worker.main())
"""


class Card:
    """NVML's view of the card; None for all where there is none."""

    def __init__(self) -> None:
        self._nvml: Any = None
        with contextlib.suppress(Exception):
            import pynvml

            pynvml.nvmlInit()
            self._handle = pynvml.nvmlDeviceGetHandleByIndex(0)
            self._nvml = pynvml

    def used(self) -> int | None:
        """Bytes, of all processes."""
        return int(self._nvml.nvmlDeviceGetMemoryInfo(self._handle).used) if self._nvml else None

    def joules(self) -> float | None:
        """Since the driver was loaded; old cards do not count them."""
        with contextlib.suppress(Exception):
            return float(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)) / 1000
        return None

    def busy(self) -> float | None:
        """Percent of the time in which a kernel ran."""
        return float(self._nvml.nvmlDeviceGetUtilizationRates(self._handle).gpu) if self._nvml else None


@dataclass
class Cost:
    """What one worker took."""

    seconds: float = 0.0
    began: dict[str, float] = field(default_factory=dict)
    """Seconds until the first message of each phase."""
    exit_code: int | None = None
    rss_peak: int = 0
    card_peak: int | None = None
    """Bytes on the card beyond those before."""
    card_left: int | None = None
    """Bytes on the card half a second after the end, beyond those before."""
    joules: float | None = None
    busy: float | None = None


class Recording(Channel):
    """Keeps its messages; asks for an end after so many heartbeats of training, as SIGTERM does."""

    def __init__(self, stop_after: int | None = None) -> None:
        super().__init__(socket.socketpair()[0])
        self.messages: list[Any] = []
        self._beats_left = stop_after

    def send(self, message: Any) -> None:
        """Keep it."""
        self.messages.append(message)

    def progress(self, message: Any) -> None:
        """As the worker's."""
        if self._beats_left is not None and message.phase == "training":
            self._beats_left -= 1
            self._stop_requested = self._beats_left <= 0
        super().progress(message)


def run_worker(
    job: Job,
    given: list[TrainingExample],
    environment: dict[str, str] | None = None,
    on_message: Callable[[Any, subprocess.Popen[bytes]], None] = lambda _message, _process: None,
) -> tuple[list[Any], Cost]:
    """All messages of a worker on that job, and what it took."""
    staging = Path(job.staging)
    (staging / "work/job.json").write_bytes(msgspec.json.encode(job))
    (staging / "work/experiences.jsonl").write_bytes(b"".join(encode(each) for each in given))
    ours, theirs = socket.socketpair()
    program = ["-c", _SHORT] if IS_CPU else ["-m", "sleepd.worker"]
    command = [sys.executable, *program, "--fd", str(theirs.fileno()), str(staging)]
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, **(environment or {})}
    card, messages, cost = Card(), [], Cost()
    before, joules, started = card.used(), card.joules(), time.monotonic()
    with subprocess.Popen(command, pass_fds=[theirs.fileno()], env=environment) as process, ours:
        theirs.close()
        with _sampled(process.pid, card, cost, before):
            for line in ours.makefile("rb"):
                messages.append(decode_message(line))
                phase = getattr(messages[-1], "phase", None) or type(messages[-1]).__name__
                cost.began.setdefault(phase, round(time.monotonic() - started, 1))
                on_message(messages[-1], process)
            ours.shutdown(socket.SHUT_RDWR)
            cost.exit_code = process.wait(timeout=20)
    cost.seconds = time.monotonic() - started
    now = card.joules()
    cost.joules = None if joules is None or now is None else now - joules
    time.sleep(0.5)
    after = card.used()
    cost.card_left = None if before is None or after is None else after - before
    return messages, cost


@contextlib.contextmanager
def _sampled(pid: int, card: Card, cost: Cost, before: int | None) -> Any:
    """In this context the process and the card are looked at ten times a second."""
    over, busy = threading.Event(), []

    def sample() -> None:
        while not over.wait(0.1):
            with contextlib.suppress(OSError):
                pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
                cost.rss_peak = max(cost.rss_peak, pages * os.sysconf("SC_PAGE_SIZE"))
            used, share = card.used(), card.busy()
            if used is not None and before is not None:
                cost.card_peak = max(cost.card_peak or 0, used - before)
            if share is not None:
                busy.append(share)

    sampler = threading.Thread(target=sample)
    sampler.start()
    try:
        yield
    finally:
        over.set()
        sampler.join()
        cost.busy = statistics.mean(busy) if busy else None
