"""Where a page's parts stand, as figures that do not depend on the fonts of a machine."""

from __future__ import annotations

from typing import Any

from .browser import Browser

WHOLE = "document.querySelectorAll('main > .card').forEach(it => it.style.contentVisibility = 'visible')"
"""Otherwise what is below the first screen has no place until it is scrolled to."""
PLACES = """
const named = it => it.getAttribute("aria-label") || (it.querySelector("h2, figcaption") || it).innerText.slice(0, 40);
return Array.from(document.querySelectorAll("main, h1, section.card, form.card, main figure.chart"), it => {
  const box = it.getBoundingClientRect();
  const name = it.matches("main, h1") ? it.localName : it.matches("form") ? "form" : named(it);
  return [name, Math.round(box.left), Math.round(box.width)];
});
"""
"""Of the parts of a page in their order: name, left edge, width, in pixels."""
FAULTS = """
const shown = it => it.checkVisibility() && it.getBoundingClientRect().width > 0 ? it.getBoundingClientRect() : null;
const parts = "h1, h2, h3, p, dt, dd, li, label, input, select, summary, .button, figure, .card, nav a, svg text";
const boxes = Array.from(document.querySelectorAll(parts), it => [it, shown(it)]).filter(each => each[1]);
const say = it => `${it.localName} ${it.textContent.trim().slice(0, 30)}`;
const found = [];
boxes.forEach(([one, a], place) => {
  if ((a.left < -1 || a.right > innerWidth + 1) && !one.closest(".scroll")) found.push(`outside: ${say(one)}`);
  for (const [other, b] of boxes.slice(place + 1)) {
    const wide = Math.min(a.right, b.right) - Math.max(a.left, b.left);
    const high = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
    if (wide > 1 && high > 1 && !one.contains(other) && !other.contains(one)) {
      found.push(`overlap: ${say(one)} / ${say(other)}`);
    }
  }
});
return found;
"""
"""Parts that stick out of the window, and parts that lie on each other."""
TOLERANCE = 8
"""Pixels: a scroll bar, and rounding."""


def lay_out(browser: Browser) -> None:
    """All of the open page, also what is not seen yet."""
    browser.run(WHOLE)


def places(browser: Browser) -> list[list[Any]]:
    """Of the open page, at the width that the window has."""
    lay_out(browser)
    return list(browser.run(PLACES))


def faults(browser: Browser) -> list[str]:
    """None should be found."""
    lay_out(browser)
    return list(browser.run(FAULTS))


def is_close(found: list[list[Any]], kept: list[list[Any]]) -> bool:
    """The same parts in the same order, at the same places."""
    return [each[0] for each in found] == [each[0] for each in kept] and all(
        abs(one - other) <= TOLERANCE
        for each, was in zip(found, kept, strict=True)
        for one, other in zip(each[1:], was[1:], strict=True)
    )
