"""What memory this process holds, and has held at most."""

from __future__ import annotations

from pathlib import Path


def peak_bytes() -> int:
    """The most that it has held; 0: the kernel does not tell."""
    # Not getrusage: its ru_maxrss also counts what the parent process held when it started this one.
    return _status("VmHWM:")


def resident_bytes() -> int:
    """What it holds now; 0: the kernel does not tell."""
    return _status("VmRSS:")


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    return 0
