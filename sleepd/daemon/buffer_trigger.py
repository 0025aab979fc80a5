"""A change of the buffer file wakes the daemon once its writer has rested.

inotify may fail or miss a change, so it is only a hint: the daemon's periodic check reads the buffer too, and
``ensure`` sets the watch up again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from sleepd.buffer.reading.watch import BufferWatch
from sleepd.config.buffer_config import BufferConfig


class BufferTrigger:
    """Of one buffer at a time.

    Args:
        settings: which files, and how long their writer must rest.
        wake: called after a change, once the writer has rested.
        warn: called with why there is no watch; an empty text: there is one.
    """

    def __init__(self, settings: BufferConfig, *, wake: Callable[[], None], warn: Callable[[str], None]) -> None:
        self._settings = settings
        self._wake = wake
        self._warn = warn
        self._changed = asyncio.Event()
        self._watch = self._new_watch()

    def _new_watch(self) -> BufferWatch:
        return BufferWatch(self._settings.paths, self._changed.set)

    def start(self) -> None:
        """Watch."""
        self._watch.start(asyncio.get_running_loop())
        self._note_problem()

    def ensure(self) -> None:
        """Watch again, where the watch was lost or the directory is another one."""
        self._watch.ensure()
        self._note_problem()

    def stop(self) -> None:
        """Watch no more."""
        self._watch.stop()

    def reconfigure(self, settings: BufferConfig) -> None:
        """Wait as long as configured now, and watch another file if the path changed."""
        is_other = settings.path != self._settings.path
        self._settings = settings
        if is_other:
            self._watch.stop()
            self._watch = self._new_watch()
            self.start()

    async def run(self) -> None:
        """Wake once the file was left alone for the settle time, for ever.

        A writer that never rests never wakes the daemon; the periodic check reads the file all the same.
        """
        while True:
            await self._changed.wait()
            quiet = False
            while not quiet:
                self._changed.clear()
                try:
                    async with asyncio.timeout(self._settings.settle_seconds):
                        await self._changed.wait()
                except TimeoutError:
                    quiet = True
            self._wake()

    def _note_problem(self) -> None:
        problem = self._watch.problem
        self._warn(f"{problem}; the buffer is read by the periodic check alone" if problem else "")
