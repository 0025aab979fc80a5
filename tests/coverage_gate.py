"""``python tests/coverage_gate.py FILE``: is enough of the code tested? The exit status is 1 where it is not.

FILE is what ``coverage json`` writes. Two groups are judged, each by the share of its statements and branches that ran:
the worker, and all else that is installed but the demo.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

LEAST_PERCENT: Final = {"daemon and client": 95.0, "worker": 90.0}
SHOWN: Final = 15


def group_of(module: str) -> str | None:
    """Which group a module is judged with; None: with none. The module is given by its path inside the package."""
    if module.startswith("demo/"):
        return None
    return "worker" if module.startswith("worker/") else "daemon and client"


def counts(summary: dict[str, Any]) -> tuple[int, int]:
    """How many statements and branches of a module ran, and how many it has."""
    ran = summary["covered_lines"] + summary["covered_branches"]
    return ran, summary["num_statements"] + summary["num_branches"]


def judged(measured: dict[str, Any]) -> tuple[list[str], bool]:
    """What to print, and whether every group has enough. A group without a module has not."""
    files = {name.rpartition("sleepd/")[2]: counts(each["summary"]) for name, each in measured["files"].items()}
    lines, is_enough = [], True
    for group, least in LEAST_PERCENT.items():
        members = {name: figures for name, figures in files.items() if group_of(name) == group}
        ran, every = (sum(column) for column in zip((0, 0), *members.values(), strict=True))
        percent = 100 * ran / every if every else 0.0
        is_enough &= percent >= least
        lines.append(f"coverage of {group}: {percent:.2f} %, at least {least:g} % ({ran} of {every})")
        missing = sorted(((every - ran, name) for name, (ran, every) in members.items()), reverse=True)
        if percent < least:
            lines += [f"  {count:5d} not run in sleepd/{name}" for count, name in missing[:SHOWN]]
    return lines, is_enough


def main() -> int:
    """Print the figures."""
    lines, is_enough = judged(json.loads(Path(sys.argv[1]).read_text()))
    print(*lines, sep="\n")
    return 0 if is_enough else 1


if __name__ == "__main__":
    sys.exit(main())
