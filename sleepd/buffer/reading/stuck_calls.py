"""Calls into the file system that may never return: a share whose server is gone blocks whoever touches it.

Each kind of call has one thread of its own, which nobody waits for at the end of the program. While an earlier call is
still stuck no other is begun, so that threads do not pile up.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any, TypeVar

_T = TypeVar("_T")


class Stuck(Exception):
    """The call has not returned in time, or an earlier one still has not."""


class Caller:
    """Makes blocking calls, one at a time, without ever blocking the loop."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._ended: asyncio.Event | None = None
        """Set once the last call has returned. One that nobody waited for may still be under way."""
        self._is_stuck = False
        """The last call did not return in time."""

    async def call(self, function: Callable[[], _T], *, seconds: float, undo: Callable[[_T], object]) -> _T:
        """What ``function`` returns.

        Args:
            function: run in a thread.
            seconds: longest wait.
            undo: given the result of a call that returns after all, when nobody waits for it any more.

        Raises:
            Stuck: it has not returned in time.
        """
        await self._wait_for_earlier(seconds)
        answer: asyncio.Future[_T] = asyncio.get_running_loop().create_future()
        self._start(function, answer, undo)
        try:
            # Not wait_for: before Python 3.12 it swallows a cancellation that comes together with the answer.
            async with asyncio.timeout(seconds):
                return await answer
        except (TimeoutError, asyncio.CancelledError) as end:
            if answer.done() and not answer.cancelled() and answer.exception() is None:
                undo(answer.result())
            if isinstance(end, TimeoutError):
                self._is_stuck = True
                raise Stuck from None
            raise

    async def _wait_for_earlier(self, seconds: float) -> None:
        """One whose caller was cancelled is waited for, one that was stuck already is not."""
        if self._ended is None or self._ended.is_set():
            return
        if self._is_stuck:
            raise Stuck
        try:
            async with asyncio.timeout(seconds):
                await self._ended.wait()
        except TimeoutError:
            self._is_stuck = True
            raise Stuck from None

    def _start(self, function: Callable[[], _T], answer: asyncio.Future[_T], undo: Callable[[_T], object]) -> None:
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        self._ended, self._is_stuck = ended, False

        def work() -> None:
            try:
                result, error = function(), None
            except Exception as raised:  # noqa: BLE001 - handed to whoever waits
                result, error = None, raised
            try:
                loop.call_soon_threadsafe(ended.set)
                loop.call_soon_threadsafe(_settle, answer, undo, result, error)
            except RuntimeError:  # the loop is closed
                ended.set()
                if error is None:
                    undo(result)  # type: ignore[arg-type]

        threading.Thread(target=work, name=self._name, daemon=True).start()


def _settle(answer: asyncio.Future[_T], undo: Callable[[_T], object], result: Any, error: BaseException | None) -> None:
    """Hand the outcome to whoever waits for it; undo the call where nobody does any more."""
    if answer.done():
        if error is None:
            undo(result)
    elif error is not None:
        answer.set_exception(error)
    else:
        answer.set_result(result)
