"""The quarantine of one state directory: has new experiences screened, and knows which are excluded from training now.

Screening runs in the background; a poll waits a while for it. What was not screened yet, because it just
came or because the screening failed, is not trained: nothing reaches the weights unseen.
"""

from __future__ import annotations

import asyncio
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime
from itertools import compress
from pathlib import Path
from typing import Final

import msgspec

from sleepd.buffer.learnables import ReadSettings
from sleepd.buffer.reading.experience_buffer import ExperienceBuffer, Part
from sleepd.buffer.reading.view import View
from sleepd.clock import Clock
from sleepd.errors import SleepdError
from sleepd.log import get_logger
from sleepd.policy.selecting.selection import Excluded, HashSet, Known
from sleepd.policy.selecting.tally import table_of
from sleepd.store.sqlite.ledger import Ledger
from sleepd.store.sqlite.served import KEPT as KEPT_SPANS
from sleepd.store.sqlite.served import ServedTable
from sleepd.text.personal_data import Handling

from .near_duplicates import Screened
from .overrides import Overrides
from .rules import OUTDATED, PERSONAL, UNSCREENED, Cause, Findings, Isolation, Override, OverrideKind, excluded
from .screening_client import Earlier, screened
from .screening_table import BEYOND, KEPT, Screenings
from .served_times import NEVER, ServedTimes, served_times

PATIENCE_SECONDS: Final = 20.0
"""How long a poll waits for the screening: a few thousand experiences."""

FIRST_PAUSE_SECONDS: Final = 60.0
"""After a second failure in a row; it doubles with each further one. After the first it is tried again at once."""
LONGEST_PAUSE_SECONDS: Final = 3600.0

_TO_SCREEN: Final = table_of(lambda bits: bool(bits & (UNSCREENED | OUTDATED)))
_PERSONAL: Final = table_of(lambda bits: bool(bits & PERSONAL))
Warn = Callable[[str, str], None]
"""Called with the name of a warning and its text; an empty text ends the warning."""


class QuarantineKeeper:
    """One state directory's.

    Raises:
        CheckpointInvalid: the operator's overrides cannot be read.
    """

    def __init__(self, directory: Path, ledger: Ledger, clock: Clock, warn: Warn, personal_data: Handling) -> None:
        self._personal_data = personal_data
        self.screenings = Screenings(ledger.database)
        self._served = ServedTable(ledger.database)
        self._clock = clock
        self._warn = warn
        self._overrides = Overrides(directory)
        self._findings: Findings | None = None
        self._isolation: Isolation | None = None
        self._rolled_back: frozenset[int] = frozenset()
        self._proofs: tuple[int, ...] = ()
        self._times = NEVER
        """When the rolled-back cycles were served, after so many proofs."""
        self._screened: View | None = None
        """The view of which all was screened at the last poll."""
        self._task: asyncio.Task[None] | None = None
        self._failures = 0
        """Screenings that failed, one after the other."""
        self._paused_until = 0.0
        self._starting = asyncio.Lock()
        self._counting = asyncio.Lock()
        """Held while a thread reads the findings, and while they change."""

    @property
    def is_screening(self) -> bool:
        """Whether there is more to come soon."""
        return self._task is not None and not self._task.done()

    @property
    def overrides(self) -> Mapping[int, Override]:
        """The operator's overrides, by key."""
        return self._overrides.by_key

    @property
    def isolation(self) -> Isolation:
        """The rule as it stands; the same object as long as nothing changed."""
        rolled_back = self.screenings.rolled_back()
        times = self._served_times(rolled_back)
        if self._isolation is None or (rolled_back, times) != (self._rolled_back, self._times):
            self._rolled_back, self._times = rolled_back, times
            self._isolation = Isolation(
                self._findings or Findings(),
                self._overrides.by_key,
                rolled_back,
                served=times,
                excludes_personal=self._personal_data == "set_aside",
            )
        return self._isolation

    def _served_times(self, rolled_back: frozenset[int]) -> ServedTimes:
        """When they were served; read anew after each proof, for that may lengthen a span."""
        if not rolled_back:
            return NEVER
        proofs = self._served.proofs()
        if (rolled_back, proofs) == (self._rolled_back, self._proofs):
            return self._times
        self._proofs = proofs
        return served_times(self._served.spans(limit=KEPT_SPANS), rolled_back)

    def said_under(self, found: Screened) -> tuple[int | None, bool]:
        """The cycle under whose adapter it was recorded, and whether only its time tells that."""
        if found.said_under is not None or found.said_at is None:
            return found.said_under, False
        cycle = served_times(self._served.spans(limit=KEPT_SPANS)).cycle_at(found.said_at)
        return cycle, cycle is not None

    def handle_personal_data(self, personal_data: Handling) -> None:
        """Treat what holds personal data in another way, from now on."""
        if personal_data != self._personal_data:
            self._personal_data = personal_data
            self._isolation = None

    async def personal(self, view: View) -> Counter[str]:
        """Of each kind of personal data, how many experiences of the view hold some."""
        present, counts = HashSet(view.keys), Counter[str]()
        for page in self.screenings.personal():
            for key, found in page:
                if key in present:
                    counts.update(found.keys())
            await asyncio.sleep(0)
        return counts

    # --- screening ---

    async def screen(self, buffer: ExperienceBuffer) -> None:
        """Have what is new in the buffer screened; wait a while for it.

        A failure becomes an alarm, and the screening is tried again at the next poll.
        """
        async with self._starting:
            if not self.is_screening and not await self._start(buffer):
                return
        task = self._task
        assert task is not None
        await asyncio.wait([task], timeout=PATIENCE_SECONDS)
        if task.done() and not task.cancelled():
            task.result()

    async def _start(self, buffer: ExperienceBuffer) -> bool:
        """Begin to screen what is new; False: there is nothing, the view is not the file, or a failure is recent."""
        await self._load()
        view = buffer.view
        if view is self._screened or self._clock.monotonic() < self._paused_until:
            return False
        self._screened = None  # an old view takes megabytes
        wanted = await self._unscreened(view)
        parts = buffer.files_with(wanted)
        if not wanted:
            self._screened = view
        if parts:
            work = self._screen(parts, buffer.settings, HashSet(wanted), kept=KEPT + 2 * len(view.keys))
            self._task = asyncio.create_task(work)
        return bool(parts)

    async def end(self) -> None:
        """Break off a screening under way."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _load(self) -> None:
        if self._findings is not None:
            return
        findings = Findings()
        for page in self.screenings.pages():
            for each in page:
                findings.put(each)
            await asyncio.sleep(0)
        self._findings = findings
        self._isolation = None

    async def _unscreened(self, view: View) -> array[int]:
        assert self._findings is not None
        findings = self._findings

        def gather() -> array[int]:
            return array("Q", compress(view.keys, findings.marks(view).translate(_TO_SCREEN)))

        async with self._counting:
            return await asyncio.to_thread(gather)

    async def _screen(self, parts: Sequence[Part], settings: ReadSettings, wanted: HashSet, *, kept: int) -> None:
        try:
            await self._catch_up()
            async with aclosing(screened(parts, self._earlier(wanted), settings=settings)) as pages:
                async for page in pages:
                    await self._take_in(page)
            assert self._findings is not None
            if len(self._findings.groups) > kept * (1 + BEYOND) and self.screenings.trim(kept):
                self._findings = self._screened = None
            await self._catch_up()
        except SleepdError as error:
            self._pause()
            self._warn("screening_failed", f"{error.message}; experiences that are not screened are not trained")
            return
        self._failures = 0
        self._warn("screening_failed", "")

    def _earlier(self, wanted: HashSet) -> Earlier:
        """What was screened; not what is screened anew, or an earlier one would resemble a later one."""
        assert self._findings is not None
        is_anew = HashSet(key for key in self._findings.outdated if key in wanted).test()

        def signatures() -> Iterator[Sequence[tuple[int, bytes]]]:
            for page in self.screenings.signatures():
                yield [pair for pair in page if not is_anew(pair[0])]

        return Earlier(signatures, lambda bands: self.screenings.bands.sharing(bands, is_anew))

    async def _catch_up(self) -> None:
        for _ in iter(self.screenings.bands.catch_up, False):
            await asyncio.sleep(0)

    def _pause(self) -> None:
        """Wait longer after each failure: a process that fails whenever it is started takes a processor for nothing."""
        self._failures += 1
        if self._failures > 1:
            pause = min(FIRST_PAUSE_SECONDS * 2 ** min(self._failures - 2, 16), LONGEST_PAUSE_SECONDS)
            self._paused_until = self._clock.monotonic() + pause

    async def _take_in(self, page: Sequence[Screened]) -> None:
        now = self._clock.now()
        page = [_with_past_time(each, now) for each in page]
        self.screenings.record(page, at=now)
        async with self._counting:
            assert self._findings is not None
            for each in page:
                self._findings.put(each)
            self._isolation = None
        quarantined = [each for each in page if each.reason not in ("", "bare_question")]
        if quarantined:
            reasons = sorted({each.reason for each in quarantined})
            get_logger().warning(
                "experiences_quarantined", count=len(quarantined), text=", ".join(reasons), hint="sleepctl quarantine"
            )

    # --- who is in ---

    async def causes(self, view: View, known: Known, min_salience: float) -> dict[int, Cause]:
        """Each experience of the view that is excluded from training, and why, in file order."""
        isolation = self.isolation
        async with self._counting:
            return await asyncio.to_thread(lambda: dict(_causes(isolation, view, known, min_salience)))

    async def excluded(self, view: View, known: Known, min_salience: float) -> Excluded:
        """The same in little, counted in a thread: a hundred thousand experiences take a while."""
        isolation = self.isolation
        async with self._counting:
            return await asyncio.to_thread(lambda: self.excluded_at_once(view, known, min_salience, isolation))

    def excluded_at_once(
        self, view: View, known: Known, min_salience: float, isolation: Isolation | None = None
    ) -> Excluded:
        """The same, while the loop waits: for a caller who gave a threshold of his own."""
        causes = _causes(isolation or self.isolation, view, known, min_salience)
        marks = self._findings.marks(view) if self._findings else b""
        return excluded(causes, personal=marks.translate(_PERSONAL).count(1))

    # --- overrides ---

    def decide(self, kind: OverrideKind | None, chosen: Mapping[int, tuple[str, int]]) -> None:
        """Release or drop experiences, or (None) take back what was decided; ``chosen``: key -> id and group.

        Raises:
            OSError: the disk did not take it; nothing was decided.
        """
        at = self._clock.now()
        self._overrides.change(
            {
                key: None if kind is None else Override(id=id_, group=group, kind=kind, at=at)
                for key, (id_, group) in chosen.items()
            }
        )
        self._isolation = None
        get_logger().info("quarantine_decided", word=kind or "reset", ids=[id_ for id_, _ in chosen.values()][:20])


def _with_past_time(found: Screened, now: datetime) -> Screened:
    """Without a time that is still to come: a clock was wrong when it was noted, or is now."""
    is_to_come = found.said_at is not None and found.said_at > now.timestamp()
    return msgspec.structs.replace(found, said_at=None) if is_to_come else found


def _causes(isolation: Isolation, view: View, known: Known, min_salience: float) -> Iterator[tuple[int, Cause]]:
    return isolation.causes(view, learned=known.learned, min_salience=min_salience)
