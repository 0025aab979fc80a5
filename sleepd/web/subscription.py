"""What happens, as it happens: one subscription to the daemon, shared by every browser that looks.

The subscription stands while somebody looks. A page learns only that something changed, and is then made anew from the
daemon's own answers, so that a lost or repeated announcement shows nothing wrong.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

from starlette.concurrency import run_in_threadpool

from sleepd.client import Client
from sleepd.errors import Busy, SleepdError
from sleepd.protocol.control import Announcement

STREAMS = 16
"""Browsers that look at the same time."""
PAUSE_SECONDS = 1.0
"""Between two parts that are sent to one browser, however much happens."""
TICK_SECONDS = 30.0
"""A part is made anew after so long: it says how long ago things were. It also keeps the connection open."""
RETRY_SECONDS = 2.0
MOST_LOSSES = 20_000


class Subscription:
    """Follows the daemon while anybody looks."""

    def __init__(self, socket_path: str) -> None:
        self._socket_path = socket_path
        self._changed = asyncio.Event()
        self._lookers = 0
        self._task: asyncio.Task[None] | None = None
        self._client: Client | None = None
        self._cycle: int | None = None
        self.losses: list[tuple[int, float]] = []
        """Step and loss of the cycle under way, since somebody began to look."""

    def refuse_more(self) -> None:
        """Bound the number of browsers that look.

        Raises:
            Busy: as many look as may.
        """
        if self._lookers >= STREAMS:
            raise Busy(f"{STREAMS} browsers look already", hint="close a page")

    async def parts(self, make: Callable[[], dict[str, str]]) -> AsyncIterator[str]:
        """Server-sent events: each part of the page when it differs from what this browser has."""
        self._lookers += 1
        if self._task is None:
            self._task = asyncio.create_task(self._follow())
        sent: dict[str, str] = {}
        try:
            yield "retry: 3000\n\n"
            while True:
                changed = self._changed  # before the parts are made: nothing that happens meanwhile is missed
                for name, part in (await run_in_threadpool(make)).items():
                    if sent.get(name) != part:
                        yield _event(name, part)
                        sent[name] = part
                yield ": here\n\n"
                await asyncio.sleep(PAUSE_SECONDS)
                await _wait(changed)
        finally:
            self._lookers -= 1
            if not self._lookers:
                self.stop()

    def stop(self) -> None:
        """Give the subscription up."""
        if self._task is not None:
            self._task.cancel()
            self._task = None
        if self._client is not None:
            self._client.hang_up()

    async def _follow(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            with suppress(SleepdError):  # the page says so itself: it asks the daemon and shows the error
                await run_in_threadpool(self._read, loop)
            self._tell()
            await asyncio.sleep(RETRY_SECONDS)

    def _read(self, loop: asyncio.AbstractEventLoop) -> None:
        """In a thread: until one side hangs up."""
        with Client(self._socket_path, None) as client:
            self._client = client
            loop.call_soon_threadsafe(self._tell)  # it answers, perhaps again
            for announcement in client.subscribe():
                loop.call_soon_threadsafe(self._note, announcement)

    def _note(self, announcement: Announcement) -> None:
        fields = announcement.fields
        if announcement.event == "progress":
            if fields.get("cycle") != self._cycle:
                self._cycle, self.losses = fields.get("cycle"), []
            step, loss = fields.get("step"), fields.get("loss")
            last = self.losses[-1][0] if self.losses else -1
            if isinstance(step, int) and isinstance(loss, float) and last < step and len(self.losses) < MOST_LOSSES:
                self.losses.append((step, loss))
        self._tell()

    def _tell(self) -> None:
        """Wake everybody who waits, once."""
        self._changed.set()
        self._changed = asyncio.Event()


async def _wait(changed: asyncio.Event) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(TICK_SECONDS):
            await changed.wait()


def _event(name: str, part: str) -> str:
    lines = "\n".join(f"data: {line}" for line in part.splitlines())
    return f"event: {name}\n{lines}\n\n"
