"""Every page and every action in a real browser, on a real daemon with a cycle of every ending and one that runs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import NamedTuple

import pytest

from sleepd.config.schema import Config
from sleepd.protocol.control import Quarantine
from sleepd.protocol.status import QuarantineList
from tests.processes import LIMIT_SECONDS, DaemonProcess
from tests.web import layout
from tests.web.browser import MISSING, Browser
from tests.web.real_history import ENDINGS, make_history, use_history
from tests.web.web_process import WebProcess

pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"PAGE NOT TESTED IN A BROWSER: missing: {', '.join(MISSING)}")
TAB, ENTER = "\ue004", "\ue007"
PICTURES = os.environ.get("PAGE_PICTURES", "")
"""A folder for a picture of each page at each width; not set: none is kept."""
PAGES = (
    "/",
    "/cycles",
    *(f"/cycles/{number}" for number in range(1, len(ENDINGS) + 2)),
    "/compare?a=2&b=4",
    "/buffer",
    "/buffer?search=lamp",
    "/quarantine",
    "/do/use?cycle=2",
    "/do/drop?id=loop-0",
)
PLACE = """
const all = "a[href], button, input:not([type=hidden]), select, summary, [tabindex]";
const reached = Array.from(document.querySelectorAll(all)).filter(it => it.checkVisibility());
return reached.findIndex(it => it.closest("main") && it.innerText.trim() === arguments[0]);
"""
"""How many keys before a link or button of the page's main part; -1: there is none."""
OTHER_VERSION = "import sleepd.protocol.control as it; it.PROTOCOL_VERSION += 1"
"""Runs in a daemon before it starts."""
FOCUSED = "const it = document.activeElement; return [it.innerText.trim(), getComputedStyle(it).outlineStyle]"


class Act(NamedTuple):
    """One action: where its button is, what the button and the confirmation say, and what is said afterwards."""

    path: str
    button: str
    confirmed: str
    said: str


PAUSE = Act("/", "Pause", "Pause", "Paused: no new cycle starts.")
RESUME = Act("/", "Resume", "Resume", "Resumed: a cycle starts when it is due.")
RUN = Act("/", "Start if due", "Start a cycle if one is due", "There is nothing to do")
FORCE = Act("/", "Start now", "Start a cycle now", "Cycle 9 started.")
CANCEL = Act("/", "Cancel the cycle", "Cancel the running cycle", "Cycle 9 is cancelled; what it learned is discarded.")
TAG = Act("/cycles/2", "Tag", "Tag a cycle", "Cycle 2 is tagged liked.")
RELEASE = Act("/quarantine", "Release", "Release from quarantine", "1 experience released.")
RESET = Act(
    "/quarantine", "Leave it to the screening", "Leave it to the screening", "1 experience left to the screening again."
)
DROP = Act("/quarantine", "Drop", "Drop", "1 experience dropped.")
USE = Act("/cycles/2", "Put in use", "Put another adapter in use", "Cycle 2 is in use; before: cycle 4.")
ROLLBACK = Act("/", "Roll back", "Roll back", "The base model is in use; before: cycle 2.")


@pytest.fixture(scope="session")
def made_history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made once."""
    directory = tmp_path_factory.mktemp("history") / "made"
    make_history(directory)
    return directory


@pytest.fixture(scope="module")
def config(made_history: Path, directory: Path) -> Config:
    return use_history(made_history, directory / "real")


@pytest.fixture(scope="module")
def real(config: Config, directory: Path) -> Iterator[DaemonProcess]:
    with DaemonProcess(directory / "real", config) as process:
        process.await_true(lambda: process.counts(81), "the buffer to be read")
        yield process


@pytest.fixture(scope="module")
def page(config: Config, directory: Path, browser: Browser) -> Iterator[WebProcess]:
    with WebProcess(directory, Path(config.control.socket)) as process:
        process.log_in_with(browser)
        yield process


def do(browser: Browser, page: WebProcess, act: Act) -> None:
    """With the mouse: the button, the confirmation, and what was done."""
    browser.open(page.address + act.path)
    browser.click_on(act.button)
    browser.await_text("h1", f"{act.confirmed}?")
    if act is TAG:
        browser.click("#name")
        browser.press("liked")
    browser.click_on(act.confirmed)
    browser.await_text("h1", act.said)


def do_by_keyboard(browser: Browser, page: WebProcess, act: Act) -> None:
    """With the keys alone; what has the focus is seen to have it."""
    browser.open(page.address + act.path)
    _press(browser, act.button)
    browser.await_text("h1", f"{act.confirmed}?")
    _press(browser, act.confirmed)
    browser.await_text("h1", act.said)


def _press(browser: Browser, button: str) -> None:
    place = browser.run(PLACE, button)
    assert place >= 0, button
    browser.press(TAB * (place + 1))
    assert browser.run(FOCUSED) == [button, "solid"]
    browser.press(ENTER)


def quarantined(real: DaemonProcess) -> dict[str, str]:
    """Id -> its state."""
    known = real.call(Quarantine(limit=100), QuarantineList)
    return {each.id: each.state for each in known.entries}


def test_cycles_of_every_ending_are_listed(real: DaemonProcess, page: WebProcess, browser: Browser) -> None:
    """The table has each cycle with its ending; the one that was rolled back says so."""
    browser.open(f"{page.address}/cycles")
    layout.lay_out(browser)
    shown = [text.strip() for text in browser.texts("[aria-label=Cycles] .mark")]
    assert shown[::-1] == [*list(ENDINGS.values())[:-1], "rolled back"]


def test_orders_are_clicked(real: DaemonProcess, page: WebProcess, browser: Browser) -> None:
    """Without script, with the mouse: what is ordered is done, and the daemon itself says so."""
    browser.allow_scripts(is_allowed=False)
    try:
        do(browser, page, PAUSE)
        assert real.status().state == "paused"
        do(browser, page, RESUME)
        assert real.status().state == "idle"
        do(browser, page, RUN)
        assert "Insufficient new experiences (8 < 20)" in browser.texts("main")[0]
        do(browser, page, TAG)
        do(browser, page, RELEASE)
        do(browser, page, DROP)
        assert sorted(quarantined(real).values()) == ["dropped", "quarantined", "quarantined", "released"]
        do(browser, page, RESET)
    finally:
        browser.allow_scripts(is_allowed=True)


def test_running_cycle_is_followed(real: DaemonProcess, page: WebProcess, browser: Browser) -> None:
    """A cycle that was started by the buttons is seen on the open page; every page is whole beside it, then it ends."""
    do(browser, page, FORCE)
    browser.open(page.address)
    browser.await_text("h1", "Training: cycle 9")
    real.await_true(lambda: "step 1 of 2" in browser.texts("#head")[0], "the progress")
    browser.resize(360)
    for path in PAGES:
        browser.open(page.address + path)
        assert browser.run("return document.documentElement.scrollWidth") <= 360, path
        assert layout.faults(browser) == [], path
        keep(browser, path)
    do(browser, page, CANCEL)
    real.await_true(lambda: real.status().running_cycle is None, "the cycle's end")


def keep(browser: Browser, path: str) -> None:
    """Pictures of the open page at every width, where they are wanted."""
    if not PICTURES:
        return
    name = "real" + path.rstrip("/").translate(str.maketrans("/?&=", "----"))
    for width, scheme in product((800, 1600, 360), ("dark", "light")):
        browser.prefer(scheme)
        browser.resize(width)
        browser.picture(Path(PICTURES) / f"{name}-{width}-{scheme}.png")


def test_adapters_are_changed_by_keyboard(real: DaemonProcess, page: WebProcess, browser: Browser) -> None:
    """By the keys alone: a pause and its end, an earlier adapter put in use, and the base model after a rollback."""
    for act, champion in ((PAUSE, 4), (RESUME, 4), (USE, 2), (ROLLBACK, None)):
        do_by_keyboard(browser, page, act)
        status = real.status()
        assert (status.champion and status.champion.cycle) == champion


def test_open_page_survives_a_restart(real: DaemonProcess, page: WebProcess, browser: Browser, config: Config) -> None:
    """While the daemon is away or of another version the open page says so, and a page that is opened then; the open
    page shows the state by itself once the daemon is back.
    """
    browser.open(page.address)
    browser.await_text("h1", "Idle")
    real.process.terminate()
    real.process.wait(LIMIT_SECONDS)
    browser.await_text("h1", "The daemon does not answer")
    assert "from before" in browser.texts("#head")[0]
    assert page.get("/cycles", cookie=page.log_in()).status == 503
    with DaemonProcess(real.directory, config, prelude=OTHER_VERSION):
        browser.await_text("h1", "The daemon has another version")
    with DaemonProcess(real.directory, config):
        browser.await_text("h1", "Idle")
