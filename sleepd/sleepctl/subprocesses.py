"""Other programs that are asked something: started, waited for, and never a reason to fail."""

from __future__ import annotations

import shutil
import subprocess

_SECONDS = 10.0
"""What systemd and its like may take; one that hangs is as one that is not there."""


def answer_of(name: str, *arguments: str) -> str | None:
    """The program's output on stdout; None: it is not installed, refuses, or hangs."""
    program = shutil.which(name)
    if program is None:
        return None
    try:
        done = subprocess.run(
            [program, *arguments], stdin=subprocess.DEVNULL, capture_output=True, timeout=_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode(errors="replace") if done.returncode == 0 else None


def properties(text: str) -> dict[str, str]:
    """``NAME=value`` lines, as ``systemctl show`` and ``timedatectl show`` print them."""
    return {name: value for name, _, value in (line.partition("=") for line in text.splitlines())}
