"""The pages in a real browser: at every width, dark and light, by keyboard, without script, and for readers."""

from __future__ import annotations

import importlib.util
import json
import os
from importlib import resources
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from sleepd.errors import DaemonNotRunning
from sleepd.protocol import control
from sleepd.protocol.answers import Paused
from sleepd.protocol.control import Announcement, GetStatus
from sleepd.sleepctl.asking import known_cycle
from sleepd.web.daemon_access import DaemonAccess
from sleepd.web.report_file import report_file
from tests.sleepctl import sleepctl_scenes as scenes
from tests.sleepctl.sleepctl_fake_daemon import FakeDaemon
from tests.web import layout
from tests.web.browser import MISSING, Browser
from tests.web.pages_daemon import PAGES
from tests.web.web_process import TOKEN, WebProcess

pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"PAGE NOT TESTED IN A BROWSER: missing: {', '.join(MISSING)}")
WIDTHS = (360, 800, 1600)
SCHEMES = ("light", "dark")
TAB, ENTER = "\ue004", "\ue007"
PICTURES = os.environ.get("PAGE_PICTURES", "")
"""A folder for a picture of each page; not set: none is kept."""
LAYOUT = Path(__file__).parents[1] / "data" / "page_layout.json"
"""Where the parts of each page are; ``KEEP_LAYOUT=1`` writes it anew."""
LOOKS = (("light", 360), ("light", 800), ("light", 1600), ("dark", 360))
"""The colours do not depend on the width."""
AXE = """
axe.run({exclude: [["tbody > tr:nth-child(n+5)"]]}, {resultTypes: ["violations"]}).then(arguments[0])
"""
"""The rows of a table are alike: the first four are looked at."""
README, README_HEIGHT = ("now-800-light", "now-800-dark"), 700
"""The two pictures of the README."""


def keep(browser: Browser, name: str) -> None:
    if PICTURES:
        browser.picture(Path(PICTURES) / f"{name}.png")
        if name in README:
            browser.picture(Path(PICTURES) / f"{name}.webp", README_HEIGHT)


def test_pages_fit_every_width(site: WebProcess, browser: Browser) -> None:
    """At 360, 800 and 1600 pixels no page is wider than the window, nothing overlaps, and each part is at its place."""
    site.log_in_with(browser)
    grounds = set()
    found: dict[str, dict[str, list[list[Any]]]] = {}
    for path in PAGES:
        browser.open(site.address + path)
        name = path.strip("/").translate(str.maketrans("/?&=", "----")) or "now"
        for scheme in SCHEMES:
            browser.prefer(scheme)
            ground = browser.run("return getComputedStyle(document.documentElement).backgroundColor")
            grounds.add((scheme, sum(map(int, ground[4:-1].split(","))) < 200))
            for width in WIDTHS:
                browser.resize(width)
                assert browser.run("return document.documentElement.scrollWidth") <= width, (path, width)
                if scheme == "light":
                    found.setdefault(path, {})[str(width)] = layout.places(browser)
                    assert layout.faults(browser) == [], (path, width)
                keep(browser, f"{name}-{width}-{scheme}")
    browser.prefer("light")
    assert grounds == {("light", False), ("dark", True)}
    if os.environ.get("KEEP_LAYOUT"):
        LAYOUT.write_text(json.dumps(found, indent=1))
    kept = json.loads(LAYOUT.read_text())
    for path, wide in product(PAGES, map(str, WIDTHS)):
        assert layout.is_close(found[path][wide], kept[path][wide]), (path, wide, found[path][wide])


@pytest.mark.skipif(
    not importlib.util.find_spec("axe_core_python"), reason="READERS NOT TESTED: needs the package axe-core-python"
)
def test_axe_finds_nothing(site: WebProcess, browser: Browser) -> None:
    """axe-core finds no violation on any page, at any width, light and dark: names, roles, contrast, headings."""
    axe = resources.files("axe_core_python").joinpath("axe.min.js").read_text()
    site.log_in_with(browser)
    found = {}
    for path in filter(lambda each: "limit" not in each, PAGES):
        browser.open(site.address + path)
        layout.lay_out(browser)
        browser.run(axe)
        for scheme, width in LOOKS:
            browser.prefer(scheme)
            browser.resize(width)
            found[path, scheme, width] = [
                (each["id"], [node["html"][:200] for node in each["nodes"]][:3])
                for each in browser.run_async(AXE)["violations"]
            ]
    browser.prefer("light")
    assert {where: each for where, each in found.items() if each} == {}


def test_pages_read_without_script(site: WebProcess, browser: Browser) -> None:
    """With scripts switched off the login works and every page says the same."""
    browser.open(f"{site.address}/login?next=/")
    browser.allow_scripts(is_allowed=False)
    try:
        browser.open(f"{site.address}/login?next=/")
        browser.click("#token")
        browser.press(TOKEN + ENTER)
        browser.await_text("h1", "Training: cycle 9")
        browser.open(f"{site.address}/cycles/8")
        assert "Its adapter is in use." in browser.texts(".lead")[0]
    finally:
        browser.allow_scripts(is_allowed=True)


def test_cycle_prints_whole(site: WebProcess, browser: Browser) -> None:
    """On paper nothing is folded away, the ground is white although the screen is dark, and no button is there."""
    site.log_in_with(browser)
    browser.open(f"{site.address}/cycles/8")
    browser.prefer("dark")
    browser.print_media()
    folded = "Array.from(document.querySelectorAll('details > :not(summary)'))"
    heights = browser.run(f"return {folded}.map(it => it.getBoundingClientRect().height)")
    assert heights
    assert min(heights) > 0
    assert browser.run("return getComputedStyle(document.documentElement).backgroundColor") == "rgb(255, 255, 255)"
    assert browser.run("return document.querySelector('.buttons').getClientRects().length") == 0
    assert browser.printed().startswith(b"%PDF-")
    browser.prefer("light")


def test_keyboard_alone_pauses(site: WebProcess, daemon: FakeDaemon, browser: Browser) -> None:
    """With Tab and Enter alone: from the start page to the confirmation, and the answer says how to undo it."""
    daemon.replies[control.Pause] = Paused(is_paused=True, undo="sleepctl resume")
    site.log_in_with(browser)
    for said in ("Pause?", "Paused: no new cycle starts."):
        for _ in range(80):
            browser.press(TAB)
            focused = browser.run(
                "const it = document.activeElement; const ring = getComputedStyle(it).outlineStyle;"
                "return [it.textContent.trim(), ring]"
            )
            if focused == ["Pause", "solid"]:
                break
        assert focused == ["Pause", "solid"]
        browser.press(ENTER)
        browser.await_text("h1", said)
    assert browser.texts(".command") == ["sleepctl resume"]


def test_policy_stops_a_script(site: WebProcess, browser: Browser) -> None:
    """Markup that would get into a page runs no script: the browser enforces the policy."""
    site.log_in_with(browser)
    browser.run(
        "document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.hurt = 1\">');"
        "const it = document.createElement('script'); it.textContent = 'window.hurt = 1'; document.body.append(it)"
    )
    assert browser.run("return window.hurt === undefined")


def test_report_file_has_its_style(daemon: FakeDaemon, browser: Browser, directory: Path) -> None:
    """The self-contained file shows its own style, which the policy in it allows by its hash."""
    path = directory / "cycle.html"
    path.write_text(report_file(known_cycle(DaemonAccess(str(daemon.path)).ask, 8, limit=10), [], scenes.NOW))
    browser.open(path.as_uri())
    assert browser.run("return getComputedStyle(document.querySelector('.card')).borderTopWidth") == "1px"
    keep(browser, "report-file")


def test_page_recovers_with_the_daemon(site: WebProcess, daemon: FakeDaemon, browser: Browser) -> None:
    """While the daemon is away the page says so; when it is back, the page shows the state again."""
    site.log_in_with(browser)
    daemon.announcements = [Announcement(event="decision_changed", at=scenes.NOW, fields={})]
    daemon.replies[GetStatus] = DaemonNotRunning("it is not running", hint="sudo systemctl start sage-sleepd")
    try:
        browser.open(f"{site.address}/")
        assert browser.texts("h1") == ["The daemon does not answer"]
    finally:
        daemon.replies[GetStatus] = scenes.TRAINING
        daemon.announcements = []
    browser.open(f"{site.address}/")
    assert browser.texts("h1") == ["Training: cycle 9"]
