"""What memory this process has held at most, and what it may still take."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")


def peak_bytes() -> int:
    """The most that it has held; 0: the kernel does not tell."""
    # Not getrusage: its ru_maxrss also counts what the parent process held when it started this one.
    return _kilobytes(Path("/proc/self/status"), "VmHWM:")


def available_bytes() -> int:
    """What the machine has left, or a limit of the unit that this process runs in; 0: neither is known."""
    return min((_kilobytes(Path("/proc/meminfo"), "MemAvailable:"), *_left_in_cgroups()))


def _left_in_cgroups() -> Iterator[int]:
    """Of each control group that this process is in, what is left below its limits."""
    for line in _read(Path("/proc/self/cgroup")).splitlines():
        number, _, path = line.partition("::/")
        group = _CGROUPS / path
        while number == "0" and group != _CGROUPS:
            held = _read(group / "memory.current").strip()
            for limit in (_read(group / name).strip() for name in ("memory.max", "memory.high")):
                if held.isdigit() and limit.isdigit():
                    yield max(0, int(limit) - int(held))
            group = group.parent


def _kilobytes(file: Path, name: str) -> int:
    for line in _read(file).splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    return 0


def _read(file: Path) -> str:
    """Its text; empty where there is none: not every kernel has every file."""
    try:
        return file.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
