"""Ctrl-C and a plain kill: both end the demo as KeyboardInterrupt, and never between a start and its being known."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from typing import Final, NoReturn

_NUMBERS: Final = (signal.SIGINT, signal.SIGTERM)


def take_interrupts() -> None:
    """From now on a plain kill is a Ctrl-C too."""
    signal.signal(signal.SIGTERM, _interrupt)


@contextlib.contextmanager
def interrupted_later() -> Iterator[None]:
    """Hold an interrupt back until the block is done: a process that was started is one that can be stopped.

    Raises:
        KeyboardInterrupt: at the end of the block, where one came.
    """
    came: list[int] = []
    before = {number: signal.signal(number, lambda one, _frame: came.append(one)) for number in _NUMBERS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if came:
        raise KeyboardInterrupt


def _interrupt(_number: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt
