"""What this process is to the system: last for the processor, first for the OOM killer, dead with its parent.

As a program, ``process_limits.py PARENT COMMAND…`` runs a command and leaves no process of it behind, also where
PARENT (a process id) ends first. It is started without site-packages, so it imports the standard library alone.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from pathlib import Path
from typing import NoReturn

NICENESS = 10
OOM_SCORE = 900
"""Of 1000: the kernel takes the worker before anything else of the unit."""

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def lower_priority() -> None:
    """Yield the processor to everybody else, and be the first to go when memory runs out."""
    os.nice(NICENESS)
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        # A container may forbid it; the unit file sets it as well.
        file.write(str(OOM_SCORE))


def die_with_parent(parent: int, number: int = signal.SIGKILL) -> None:
    """Have the kernel kill this process when ``parent`` (a process id) ends, even where SIGKILL ended it.

    A parent that ended before the request took effect would never be noticed, so it is checked once more.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:
        sys.exit("the daemon ended before its worker had started")


def _oversee(parent: str, *command: str) -> NoReturn:
    """Run a command and end with its exit status; whatever descends from it ends before.

    Orphans of this process come to it, also those in a session of their own, so that none is missed.
    """
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER) failed")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    child = os.fork()
    if child == 0:
        _become(os.getppid(), *command)
    code = 1
    try:
        die_with_parent(int(parent), signal.SIGTERM)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        _kill_descendants()
    if code < 0:  # end as it did, so that the signal is reported
        with contextlib.suppress(OSError):  # SIGKILL cannot be set
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    sys.exit(code)


def _become(parent: int, *command: str) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        die_with_parent(parent)
        os.execvp(command[0], command)  # noqa: S606 - without a shell, as is meant
    except OSError as error:
        sys.stderr.write(f"{command[0]}: {error.strerror}\n")
        sys.stderr.flush()
        os._exit(1)


def _kill_descendants() -> None:
    """Kill this process's children until it has none: the orphans of each come up as the next ones."""
    while children := _children():
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        for child in children:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(child, 0)


def _children() -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):  # it ended meanwhile
                # After the name, which may hold anything: state, parent.
                parent = (entry / "stat").read_bytes().rpartition(b")")[2].split()[1]
                found += [int(entry.name)] if int(parent) == os.getpid() else []
    return found


if __name__ == "__main__":
    _oversee(*sys.argv[1:])
