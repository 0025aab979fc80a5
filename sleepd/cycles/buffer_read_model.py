"""What the socket and the page may read of the buffer and of its screening."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Mapping
from datetime import datetime

from sleepd.buffer.experience import Experience
from sleepd.buffer.reading.view import View
from sleepd.policy.selecting.selection import Counts
from sleepd.quarantine.near_duplicates import Screened
from sleepd.quarantine.rules import Cause, Override

from .composition import Parts
from .quarantine_override import known_key


class BufferReadModel:
    """The buffer as last read, and which of its experiences are excluded from training."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    @property
    def view(self) -> View:
        """The last good view."""
        return self._parts.intake.view

    @property
    def counts(self) -> Counts:
        """How much of it is new, eligible, unlearned and held out."""
        return self._parts.intake.counts

    @property
    def problem(self) -> str:
        """Why the counts are not those of the file as it is now; empty: they are."""
        return self._parts.intake.problem

    @property
    def waits_since(self) -> tuple[datetime | None, datetime | None]:
        """Since when it waits to be read, having that problem; and since when the oldest experience, to be learned."""
        return self._parts.intake.unread_since, self._parts.intake.to_learn_since

    @property
    def is_unsettled(self) -> bool:
        """Whether it must be read again soon: its writer is in the middle of it, or a screening is under way."""
        return self.view.is_settling or self._parts.intake.quarantine.is_screening

    @property
    def rated_down(self) -> Collection[int]:
        """The keys of learned replies that were rated down."""
        return self._parts.intake.rated_down.keys

    async def ratings_without_reply(self) -> list[str]:
        """As ``RatingFiles.without_reply``."""
        return await asyncio.to_thread(self._parts.intake.buffer.ratings_without_reply)

    async def texts(self, keys: Collection[int], *, characters: int | None = None) -> list[Experience]:
        """The experiences with these keys that the file still has; as ``ExperienceBuffer.extract``.

        Raises:
            BufferUnreadable: it cannot be read.
        """
        return await self._parts.intake.buffer.extract(keys, characters=characters)

    # --- quarantine ---

    async def causes(self) -> dict[int, Cause]:
        """Each experience of the view that is excluded from training, and why, in file order."""
        intake, min_salience = self._parts.intake, self._parts.state.config.training.min_salience
        return await intake.quarantine.causes(intake.view, self._parts.history.known(), min_salience)

    async def personal(self) -> Counter[str]:
        """Of each kind of personal data, how many experiences hold some."""
        return await self._parts.intake.quarantine.personal(self.view)

    def known_key(self, identifier: str) -> int:
        """As ``quarantine_override.known_key``: NotFound where nothing is known of it."""
        return known_key(self._parts.intake.quarantine, identifier, self.view.keys)

    @property
    def overrides(self) -> Mapping[int, Override]:
        """The operator's, by key."""
        return self._parts.intake.quarantine.overrides

    def said_under(self, found: Screened) -> tuple[int | None, bool]:
        """As ``QuarantineKeeper.said_under``."""
        return self._parts.intake.quarantine.said_under(found)

    def screening(self, key: int) -> Screened | None:
        """What screening found in an experience; None: it was not screened."""
        return self._parts.intake.quarantine.screenings.find(key)

    def screened_at(self, key: int) -> datetime | None:
        """When it was screened."""
        return self._parts.intake.quarantine.screenings.screened_at(key)

    def trained_in(self, identifier: str) -> list[int]:
        """Cycles that trained it."""
        return self._parts.intake.quarantine.screenings.trained_in(identifier)

    def may_text_be_shown(self, text: Experience) -> bool:
        """Whether every reader of the status may read it."""
        return self._parts.intake.quarantine.screenings.may_text_be_shown(text)

    def may_be_shown(self, key: int, group: int) -> bool:
        """As ``may_text_be_shown``, of a text that is known by its hashes only."""
        return self._parts.intake.quarantine.screenings.may_be_shown(key, group)
