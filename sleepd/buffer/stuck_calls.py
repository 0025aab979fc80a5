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
        self._is_busy = False

    async def call(self, function: Callable[[], _T], *, seconds: float, undo: Callable[[_T], object]) -> _T:
        """What ``function`` returns.

        Args:
            function: run in a thread.
            seconds: longest wait.
            undo: given the result of a call that returns after all, when nobody waits for it any more.

        Raises:
            Stuck: it has not returned in time.
        """
        if self._is_busy:
            raise Stuck
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[_T] = loop.create_future()

        def work() -> None:
            try:
                result, error = function(), None
            except Exception as raised:  # noqa: BLE001 - handed to whoever waits
                result, error = None, raised
            self._is_busy = False
            try:
                loop.call_soon_threadsafe(_settle, answer, undo, result, error)
            except RuntimeError:  # the loop is closed
                if error is None:
                    undo(result)  # type: ignore[arg-type]

        self._is_busy = True
        threading.Thread(target=work, name=self._name, daemon=True).start()
        try:
            # Not wait_for: before Python 3.12 it swallows a cancellation that comes together with the answer.
            async with asyncio.timeout(seconds):
                return await answer
        except (TimeoutError, asyncio.CancelledError) as end:
            if answer.done() and not answer.cancelled() and answer.exception() is None:
                undo(answer.result())
            if isinstance(end, TimeoutError):
                raise Stuck from None
            raise


def _settle(answer: asyncio.Future[_T], undo: Callable[[_T], object], result: Any, error: BaseException | None) -> None:
    """Hand the outcome to whoever waits for it; undo the call where nobody does any more."""
    if answer.done():
        if error is None:
            undo(result)
    elif error is not None:
        answer.set_exception(error)
    else:
        answer.set_result(result)
