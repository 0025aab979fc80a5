"""The screen of ``sleepctl live``."""

from __future__ import annotations

from sleepd.protocol.deployment.live_request import LiveAnswer

from .terminal import Page, Row, Span
from .wording import count, duration, model


def live_page(answer: LiveAnswer) -> Page:
    """What the endpoint runs, beside what is in use."""
    identity = answer.identity
    page = [
        _row("Engine", f"{answer.url}, model {answer.model}"),
        _row("In use", model(answer.in_use)),
        _row("Runs", identity.text, "green" if answer.is_in_use else "red"),
    ]
    if identity.reason:
        page.append(_row("", identity.reason))
    if identity.dial is not None:
        page.append(_row("", f"from the base towards cycle {answer.compared[0]}: {identity.dial:.0%}"))
    if identity.is_named and not answer.is_in_use:
        page.append(_row("", f"it does not run what is in use, {model(answer.in_use)}"))
    names = ", ".join(map(str, answer.compared))
    page.append(_row("Compared", f"with the fingerprints of cycle {names}; {duration(answer.seconds)}"))
    if answer.without:
        cycles = ", ".join(map(str, answer.without))
        text = f"{count(len(answer.without), 'checkpoint')} without a fingerprint: cycle {cycles}"
        page.append(_row("", f"{text}; they cannot be recognised"))
    return page


def _row(label: str, text: str, style: str = "") -> Row:
    return Row([Span(text, style)], label)
