"""What is in the buffer now, and how much of it is new, eligible, unlearned and held out."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

import msgspec

from sleepd.buffer.learnables import read_settings
from sleepd.buffer.reading.experience_buffer import ExperienceBuffer
from sleepd.buffer.reading.view import View
from sleepd.clock import Clock
from sleepd.config.buffer_config import BufferConfig
from sleepd.config.schema import Config
from sleepd.errors import BufferUnreadable, CheckpointInvalid
from sleepd.policy.selecting.selection import Counts
from sleepd.policy.selecting.surprise import weighed
from sleepd.policy.selecting.tally import Tally, count
from sleepd.quarantine.keeper import QuarantineKeeper
from sleepd.store.sqlite.ledger import Ledger
from sleepd.store.sqlite.surprises import Surprises

from .alarms import Alarms
from .history import PastCycles
from .longest_waiting import LongestWaiting
from .rated_down_keeper import RatedDownKeeper


class Intake:
    """The buffer of one configuration, read and counted against one history."""

    def __init__(self, config: Config, history: PastCycles, clock: Clock, ledger: Ledger, alarms: Alarms) -> None:
        self._config = config
        self.quarantine = QuarantineKeeper(
            Path(config.state.directory), ledger, clock, alarms.note, config.quarantine.personal_data
        )
        self._history = history
        self._clock = clock
        self.buffer = self._open(config)
        self.rated_down = RatedDownKeeper(Path(config.state.directory))
        self._alarms = alarms
        self._measured = Surprises(ledger)
        self._surprises: Mapping[int, float] = {}
        self._weighed = View()
        self._weighed_by: tuple[View, Mapping[int, float]] = (self._weighed, self._surprises)
        self.counts = Counts(total=0, new=0, eligible=0, unlearned=0, held_out=0)
        self._tally = Tally()
        self._recounting = asyncio.Lock()
        """Two polls at once, of a change and of a request, count once."""
        self._waiting = LongestWaiting(self.quarantine.screenings)
        self._counted: tuple[object, ...] = (None, None, None, None)
        self.unreadable: BufferUnreadable | None = None
        """Why the file could not be read when it was last read; None: it could."""
        self.unread_since: datetime | None = None
        """Since when the counts are not those of the file as it is; None: they are."""

    @property
    def view(self) -> View:
        """The last good view, with the saliences that count."""
        view, config = self.buffer.view, self._config.buffer
        if config.salience == "given":
            return view
        basis = (view, self._surprises)
        if any(one is not other for one, other in zip(basis, self._weighed_by, strict=True)):
            saliences = weighed(view, self._surprises, config.salience, config.default_salience)
            self._weighed, self._weighed_by = msgspec.structs.replace(view, saliences=saliences), basis
        self._weighed.is_settling = view.is_settling
        return self._weighed

    @property
    def problem(self) -> str:
        """Why the counts are not those of the file as it is now; empty: they are, or it is settling."""
        return self.unreadable.message if self.unreadable else self.view.problem

    def reconfigure(self, config: Config) -> None:
        """Count by another configuration, of another file perhaps, from the next reading on."""
        before = self._config
        if _reading(config) != _reading(before):
            self.buffer = self._open(config)
        self.quarantine.handle_personal_data(config.quarantine.personal_data)
        self._config = config

    @property
    def to_learn_since(self) -> datetime | None:
        """Since when the experience waits that has waited longest to be learned; None: nothing waits."""
        return self._waiting.since

    async def read(self) -> None:
        """Read the file and count; a file that cannot be read leaves the counts as they are."""
        await self._read()
        self.unread_since = (self.unread_since or self._clock.now()) if self.problem else None

    async def _read(self) -> None:
        try:
            view = await self.buffer.read()
        except BufferUnreadable as error:
            self.unreadable = error
            return
        self.unreadable = None
        self._history.take_first_poll(view)
        await self._follow_ratings(view)
        await self.quarantine.screen(self.buffer)
        await self.recount()

    async def _follow_ratings(self, view: View) -> None:
        why = ""
        try:
            await self.rated_down.follow(view, self.buffer.ratings, self._history)
        except (OSError, CheckpointInvalid) as error:
            why = f"what was rated down could not be noted: {error}; it may be repeated if it has left the buffer"
        self._alarms.note("ratings_not_noted", why)

    async def recount(self) -> None:
        """Count again if the buffer, what is known of it, or the threshold is another."""
        async with self._recounting:
            await self._recount()

    async def _recount(self) -> None:
        if self._config.buffer.salience != "given":
            self._surprises = self._measured.known()
        view, known, min_salience = self.view, self._history.known(), self._config.training.min_salience
        basis = (view, known, min_salience, self.quarantine.isolation)
        if all(one is other for one, other in zip(basis, self._counted, strict=True)):
            return
        # In a thread: a hundred thousand experiences take a while, and the loop must turn.
        excluded = await self.quarantine.excluded(view, known, min_salience)
        self.counts, unlearned = await asyncio.to_thread(
            self._tally.count, view, known=known, min_salience=min_salience, excluded=excluded
        )
        await self._waiting.follow(unlearned)
        self._counted = basis

    async def quarantine_said_under(self, cycle: int) -> int:
        """Count without what was recorded under a cycle that was rolled back; returns how many that excludes.

        They are those whose record names the cycle, those without a name that were said while it was proved to be
        served, and their near-duplicates, save what the operator released.
        It follows from the ledger's ``is_rolled_back``, so going back to the cycle lifts it.
        """
        await self.recount()
        causes = await self.quarantine.causes(self.view, self._history.known(), self._config.training.min_salience)
        return sum(cause.cycle == cycle for cause in causes.values())

    def count(self, min_salience: float) -> Counts:
        """The counts under another threshold."""
        view, known = self.view, self._history.known()
        excluded = self.quarantine.excluded_at_once(view, known, min_salience)
        return count(view, known=known, min_salience=min_salience, excluded=excluded)

    def _open(self, config: Config) -> ExperienceBuffer:
        settings, served_as, marks = _reading(config)
        return ExperienceBuffer(
            settings.paths,
            patience_seconds=settings.patience_seconds,
            clock=self._clock,
            settings=read_settings(settings, served_as, marks),
        )


def _reading(config: Config) -> tuple[BufferConfig, str, tuple[str, ...]]:
    """What the reading of the buffer depends on."""
    return config.buffer, config.serve.model, config.triggers.breakthrough_marks
