"""The gate of coverage: each group is judged by itself, and a group of which nothing was measured fails."""

from __future__ import annotations

from typing import Any

from tests.coverage_gate import judged


def measured(**ran: int) -> dict[str, Any]:
    """What coverage writes of modules with 80 statements and 20 branches each, of which so many ran."""
    return {
        "files": {
            f"/env/lib/sleepd/{name.replace('_', '/')}.py": {
                "summary": {
                    "covered_lines": min(count, 80),
                    "covered_branches": max(count - 80, 0),
                    "num_statements": 80,
                    "num_branches": 20,
                }
            }
            for name, count in ran.items()
        }
    }


def test_enough_in_each_group_passes() -> None:
    """95 of 100 in the daemon and 90 of 100 in the worker are enough; the demo is not judged."""
    lines, is_enough = judged(measured(client=95, worker_run=90, demo_stage=0))
    assert is_enough
    assert ["95.00" in lines[0], "90.00" in lines[1], len(lines)] == [True, True, 2]


def test_one_group_cannot_hide_another() -> None:
    """A worker that is wholly tested does not make up for a daemon that is not; what is missing is named."""
    lines, is_enough = judged(measured(client=94, store_sqlite_ledger=95, worker_run=100))
    assert not is_enough
    assert [line.split()[-1] for line in lines if line.startswith("  ")] == [
        "sleepd/client.py",
        "sleepd/store/sqlite/ledger.py",
    ]


def test_nothing_measured_is_not_enough() -> None:
    """Where a group has no module, nothing was measured, and the gate is shut."""
    assert not judged(measured(client=100))[1]
    assert not judged({"files": {}})[1]
