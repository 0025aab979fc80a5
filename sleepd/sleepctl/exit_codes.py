"""What ``sleepctl`` returns. Scripts rely on these; the errors of ``sleepd.errors`` carry the same numbers."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """How a command ended."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_RUNNING = 3
    NOT_FOUND = 4
    NOTHING_TO_DO = 5
    BUSY = 7
    PERMISSION = 8
    CONFIG = 9
    DETACHED = 130


MEANINGS = {
    ExitCode.OK: "done; run --wait: the cycle ended with a verdict (any)",
    ExitCode.FAILED: "failed; run --wait: so did the cycle; doctor, live: something is wrong",
    ExitCode.USAGE: "wrong command line",
    ExitCode.NOT_RUNNING: "the daemon, or the engine, is not running (what is shown is from disk)",
    ExitCode.NOT_FOUND: "no such cycle, file or strategy",
    ExitCode.NOTHING_TO_DO: "nothing to do (run, check --apply)",
    ExitCode.BUSY: "a cycle is running, or another process holds the state",
    ExitCode.PERMISSION: "no permission",
    ExitCode.CONFIG: "the configuration is wrong",
    ExitCode.DETACHED: "interrupted with Ctrl-C; with run --wait the cycle continues",
}


def table() -> str:
    """The codes and their meanings, one a line, as ``--help`` shows them."""
    return "\n".join(f"  {code:>3}  {meaning}" for code, meaning in MEANINGS.items())
