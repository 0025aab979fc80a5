"""Templates. Every text that goes into a page is made visible and escaped here, whoever wrote it.

Texts of experiences are hostile. Two steps that no template can leave out: ``finalize`` makes control, bidirectional
and invisible characters visible, then Jinja escapes what is left. No Python code of this package makes HTML.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from sleepd.sleepctl.pages import wording
from sleepd.text.display import clean, clean_lines

LONGEST_TEXT = 4000
"""Characters of one text on a page; what was cut is said."""


@cache
def environment() -> Environment:
    """The one environment of all pages."""
    made = Environment(
        loader=ChoiceLoader([PackageLoader("sleepd.web"), PackageLoader("sleepd.web", "static")]),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalized,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(
        duration=wording.duration,
        count=wording.count,
        size=wording.size,
        energy=wording.energy,
        number=number,
        signed=signed,
        cut=cut,
        utc=utc,
        spaced=spaced,
    )
    made.globals.update(model=wording.model, moment=wording.moment, ago=wording.ago)
    return made


def render(template: str, **values: Any) -> str:
    """A page. ``now`` must be among the values where times are shown."""
    return environment().get_template(template).render(**values)


def static(name: str) -> bytes:
    """A file of ``static/``."""
    return resources.files("sleepd.web").joinpath("static", name).read_bytes()


def number(value: float | None, digits: int = 3) -> str:
    """A figure; a dash where it was not measured."""
    return wording.MISSING if value is None else f"{value:.{digits}g}".replace("-", "−")


def signed(value: float | None) -> str:
    """A difference with its sign; a dash where it is not known."""
    if value is None:
        return wording.MISSING
    return f"{value:+.3g}".replace("-", "−") if value else "0"


def utc(moment: datetime) -> str:
    """For the ``title`` of a time: the same moment in UTC."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def cut(text: str, longest: int = LONGEST_TEXT) -> str:
    """The beginning of a long text."""
    return text if len(text) <= longest else f"{text[:longest]}… ({len(text) - longest} more characters)"


def spaced(name: str) -> str:
    """The name of a figure or of a reason, as words."""
    return name.replace("_", " ")


def _finalized(value: Any) -> Any:
    if isinstance(value, str) and not isinstance(value, Markup):
        return "\n".join(clean_lines(value)) if "\n" in value else clean(value)
    return value
