"""What is published of the daemon without being asked: systemd's sentence, ``status.json`` and ``history.json``.

A failed write is an alarm and is tried again; it never ends the daemon.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import msgspec

from sleepd.cycles.read_model import ReadModel
from sleepd.cycles.sleeper import Sleeper
from sleepd.errors import LedgerUnusable
from sleepd.files import replace_file
from sleepd.protocol.prometheus import metrics_text
from sleepd.protocol.status import Status

from .status_view import offline_copies, overview, write_offline_copies
from .systemd import Notifier

RETRY_SECONDS = 30.0
"""What failed is tried again after so long."""
METRICS_MODE = 0o644
"""Of the figures for Prometheus: no text is among them, and the collector runs as another user."""
_PAUSE_SECONDS = 1.0
"""Between two publications, however much happens."""


@dataclass(kw_only=True, slots=True)
class Life:
    """What the daemon alone knows of itself."""

    config_path: Path
    stage: str = "starting"
    """``starting``, ``stopping`` or ``stopped``; empty: it runs, and the state of its cycles is shown."""
    next_check_at: datetime | None = None


class Publisher:
    """Publishes after ``request``, at most once a second."""

    def __init__(self, sleeper: Sleeper, reader: ReadModel, notifier: Notifier, life: Life) -> None:
        self._sleeper = sleeper
        self._reader = reader
        self._notifier = notifier
        self._life = life
        self._is_requested = asyncio.Event()
        self._last_key: object = None
        """What the files on disk say, without what changes all the time."""

    def request(self) -> None:
        """Something may have changed."""
        self._is_requested.set()

    async def run(self) -> None:
        """Publish whenever it is requested, for ever."""
        while True:
            await self._is_requested.wait()
            self._is_requested.clear()
            await self.publish()
            await asyncio.sleep(_PAUSE_SECONDS)

    async def publish(self) -> None:
        """Publish now; a disk that fails is an alarm."""
        try:
            await self._write()
        except (OSError, LedgerUnusable) as error:
            self._sleeper.note_alarm("status_not_written", f"status.json is not up to date: {error}")
            asyncio.get_running_loop().call_later(RETRY_SECONDS, self.request)
        else:
            self._sleeper.note_alarm("status_not_written", "")

    async def _write(self) -> None:
        life = self._life
        status = overview(
            self._reader, next_check_at=life.next_check_at, config_path=str(life.config_path), life=life.stage
        )
        self._notifier.status(status.sentence)
        # Progress, hours and free bytes change all the time; they are not worth a write.
        key = msgspec.structs.replace(
            status,
            written_at=status.since,
            progress=None,
            decision=status.decision.reason,
            next_check_at=None,
            free_bytes=None,
        )
        if key == self._last_key:
            return
        copies = offline_copies(self._reader, status)
        await asyncio.to_thread(write_offline_copies, self._reader.directory, copies)
        await self._write_metrics(status)
        self._last_key = key

    async def _write_metrics(self, status: Status) -> None:
        """The figures for Prometheus, where a file is configured."""
        textfile, problem = self._reader.config.metrics.textfile, ""
        if textfile:
            judged = next((each.cycle for each in status.recent_cycles if each.holdout_after is not None), None)
            report = None if judged is None else self._reader.report(judged)
            text = metrics_text(status, report).encode()
            try:
                await asyncio.to_thread(replace_file, Path(textfile), text, mode=METRICS_MODE)
            except OSError as error:
                problem = f"{textfile} (metrics.textfile) is not up to date: {error.strerror}"
        self._sleeper.note_alarm("metrics_not_written", problem)
