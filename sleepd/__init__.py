"""sage-sleepd: lets a local LLM agent learn from its experiences while it sleeps.

``from sleepd import ExperienceLog, SleepScheduler`` is the public Python API. Each is loaded on first use, so that the
agents, the command line and the worker, which import other parts of this package, start fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .version import VERSION

if TYPE_CHECKING:
    from .experience_log import ExperienceLog
    from .scheduler import SleepScheduler

__version__ = VERSION
__all__ = ["ExperienceLog", "SleepScheduler", "__version__"]


def __getattr__(name: str) -> Any:
    if name == "ExperienceLog":
        from .experience_log import ExperienceLog

        return ExperienceLog
    if name == "SleepScheduler":
        from .scheduler import SleepScheduler

        return SleepScheduler
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
