"""``python -m tests.sleepctl.sleepctl_pages``: write the kept pages in ``tests/data/pages/`` anew, from the code.

Each is a page of ``sleepctl`` on a terminal of 80 columns without colours, in UTC. ``test_sleepctl_pages.py`` compares
them with what the code says now; after a change of words, write them anew and read the difference.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any, Final

import msgspec

from sleepd.protocol.status import CycleDetail, CycleSummary
from sleepd.sleepctl.pages.cycle_table import history_page
from sleepd.sleepctl.pages.report_page import KnownCycle, report_page
from sleepd.sleepctl.pages.show_page import show_page
from sleepd.sleepctl.pages.status_page import status_page
from sleepd.sleepctl.pages.terminal import Page, render
from tests.sleepctl import sleepctl_scenes as scenes

KEPT: Final = Path(__file__).parents[1] / "data" / "pages"
PROMOTED = scenes.PROMOTED
ENDINGS: Final[dict[str, CycleSummary]] = {
    "in-use": PROMOTED,
    "superseded": msgspec.structs.replace(PROMOTED, is_champion=False),
    "rolled-back": msgspec.structs.replace(PROMOTED, is_champion=False, is_rolled_back=True),
    "rejected": scenes.REJECTED,
    "inconclusive": scenes.cycle(11, "inconclusive"),
    "failed": scenes.FAILED,
    "imported": scenes.IMPORTED,
    "running": scenes.cycle(12, "training", ended_at=None),
}
"""How a cycle can have ended."""


def bare(summary: CycleSummary) -> CycleDetail:
    """A cycle of which nothing but its line is known."""
    return msgspec.structs.replace(scenes.DETAIL, summary=summary, report=None, undo="")


def report(detail: CycleDetail, *, is_live: bool = True) -> Page:
    """The report on it, without the texts that it was trained on."""
    return report_page(KnownCycle(detail, None, scenes.BUFFER, [], [], is_live), scenes.NOW)


def pages() -> dict[str, Page]:
    """Every page, by the name of its file."""
    withheld: Any = msgspec.structs.replace(scenes.LEARNED.experiences[0], prompt="", response="", is_withheld=True)
    learned = msgspec.structs.replace(scenes.LEARNED, experiences=[withheld])
    now = scenes.NOW
    return {
        **{f"report-{name}": report(bare(summary)) for name, summary in ENDINGS.items()},
        "report-everything": report_page(scenes.KNOWN, now),
        "report-probation": report(scenes.ON_PROBATION),
        "report-withheld-text": report_page(KnownCycle(scenes.FULL, learned, scenes.BUFFER, [], [], is_live=True), now),
        "report-without-verdict": report(msgspec.structs.replace(scenes.DETAIL, verdict=None)),
        "report-from-disk": report(scenes.FULL, is_live=False),
        "show-everything": show_page(scenes.FULL, now),
        "show-probation": show_page(scenes.ON_PROBATION, now),
        "history": history_page(list(ENDINGS.values()), now, is_live=True),
        **{f"status-{name}": status_page(each, now=now, is_live=True) for name, each in scenes.STATUSES.items()},
    }


def as_shown(page: Page) -> str:
    """The page's text."""
    return render(page, width=80, is_coloured=False)


def main() -> None:
    """Write every page, and remove those that are no more."""
    os.environ["TZ"] = "UTC"
    time.tzset()
    KEPT.mkdir(exist_ok=True)
    for old in KEPT.glob("*.txt"):
        old.unlink()
    for name, page in pages().items():
        (KEPT / f"{name}.txt").write_text(as_shown(page), encoding="utf-8")


if __name__ == "__main__":
    main()
