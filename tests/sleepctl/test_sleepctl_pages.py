"""The pages of ``sleepctl``, word by word: each is the one that is kept in ``tests/data/pages/``."""

from __future__ import annotations

import time

import pytest

from tests.sleepctl.sleepctl_pages import KEPT, as_shown, pages

NAMES = sorted(pages())


@pytest.mark.parametrize("name", NAMES)
def test_page_is_as_kept(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A page says what its kept file says; after a change: ``python -m tests.sleepctl.sleepctl_pages``."""
    with monkeypatch.context() as patched:
        patched.setenv("TZ", "UTC")
        time.tzset()
        shown = as_shown(pages()[name])
    time.tzset()
    assert shown == (KEPT / f"{name}.txt").read_text(encoding="utf-8")


def test_every_kept_page_is_shown() -> None:
    """No kept file is left over from a page that is no more."""
    assert {path.stem for path in KEPT.iterdir()} == set(NAMES)
