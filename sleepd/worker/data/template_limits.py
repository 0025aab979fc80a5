"""Limits for code that came with a base: its chat template is a program, and may loop or grow without end.

transformers runs it in jinja's sandbox, which keeps it from the file system and limits one ``range``, but neither loops
within loops nor strings that are multiplied.
"""

from __future__ import annotations

import contextlib
import resource
import signal
from collections.abc import Iterator
from types import FrameType
from typing import Final

from sleepd.worker.failure import GiveUp

TEMPLATE_SECONDS: Final = 20.0
"""Processor time for one conversation. A long one takes a few milliseconds."""
TEXT_SECONDS: Final = 5.0
"""The same for one that holds an experience, which is left out alone where it takes longer."""
LESS_SECONDS: Final = 1.0
"""The same once some experiences took longer, so that many of them do not stop the others either."""
SOME: Final = 3
TEMPLATE_BYTES: Final = 2**30
"""Memory beyond what the process has."""
_HINT: Final = "take chat_template from the base's source, or name another base"


class TemplateExceeded(GiveUp):
    """``base_unusable``: it takes too long or too much memory for what it was given."""

    def __init__(self, came: str) -> None:
        super().__init__("base_unusable", f"the base's chat template {came} for one conversation", _HINT)


class _TooLong(BaseException):
    """No ``Exception``, so that nobody's ``except Exception`` swallows it."""


@contextlib.contextmanager
def bounded_template(most_seconds: float) -> Iterator[None]:
    """The body renders one conversation, in the main thread, in so much processor time or ``TEMPLATE_SECONDS``.

    Raises:
        TemplateExceeded: it takes too long or too much memory.
    """
    seconds = min(TEMPLATE_SECONDS, most_seconds)

    def on_alarm(_signum: int, _frame: FrameType | None) -> None:
        raise _TooLong

    before = signal.signal(signal.SIGVTALRM, on_alarm)
    memory = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (_within(memory[1], _mapped_bytes() + TEMPLATE_BYTES), memory[1]))
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    except _TooLong:
        raise TemplateExceeded(f"took longer than {seconds:g} s of processor time") from None
    except MemoryError:
        raise TemplateExceeded(f"needs more than {TEMPLATE_BYTES // 2**20} MiB") from None
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
        resource.setrlimit(resource.RLIMIT_AS, memory)


def _within(hard: int, wanted: int) -> int:
    return wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)


def _mapped_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[0]) * resource.getpagesize()
