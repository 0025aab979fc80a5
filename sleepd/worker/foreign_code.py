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

from .failure import GiveUp

TEMPLATE_SECONDS: Final = 20.0
"""Processor time for one conversation. A long one takes a few milliseconds."""
TEMPLATE_BYTES: Final = 2**30
"""Memory beyond what the process has."""
_HINT: Final = "take chat_template from the base's source, or name another base"


class _TooLong(BaseException):
    """No ``Exception``, so that nobody's ``except Exception`` swallows it."""


@contextlib.contextmanager
def bounded_template() -> Iterator[None]:
    """The body renders one conversation, in the main thread.

    Raises:
        GiveUp: ``base_unusable``, it takes too long or too much memory.
    """

    def on_alarm(_signum: int, _frame: FrameType | None) -> None:
        raise _TooLong

    before = signal.signal(signal.SIGVTALRM, on_alarm)
    memory = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (_within(memory[1], _mapped_bytes() + TEMPLATE_BYTES), memory[1]))
    signal.setitimer(signal.ITIMER_VIRTUAL, TEMPLATE_SECONDS)
    try:
        yield
    except _TooLong:
        came = f"took longer than {TEMPLATE_SECONDS:g} s of processor time for one conversation"
        raise GiveUp("base_unusable", f"the base's chat template {came}", _HINT) from None
    except MemoryError:
        came = f"needs more than {TEMPLATE_BYTES // 2**20} MiB for one conversation"
        raise GiveUp("base_unusable", f"the base's chat template {came}", _HINT) from None
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
        resource.setrlimit(resource.RLIMIT_AS, memory)


def _within(hard: int, wanted: int) -> int:
    return wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)


def _mapped_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[0]) * resource.getpagesize()
