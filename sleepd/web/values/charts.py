"""Coordinates of charts. Templates draw them; every chart stands beside a table of the same figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

WIDTH = 640.0
HEIGHT = 158.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 44.0, 8.0, 18.0, 30.0


class Dot(NamedTuple):
    """One figure in a chart."""

    x: float
    y: float
    title: str
    shape: str = "disc"
    colour: str = "accent"
    link: str = ""
    low_y: float | None = None
    """The ends of its interval; None: it has none."""
    high_y: float | None = None
    limit_y: float | None = None
    """The limit that it was held against."""


class Tick(NamedTuple):
    """A line across the chart, with its figure."""

    y: float
    text: str


class Lines(NamedTuple):
    """Several lines in one chart."""

    title: str
    lines: list[tuple[str, str]]
    """Of each its name, and the points of its polyline."""
    ticks: list[Tick]
    ends: tuple[str, str]
    """What stands below its left and its right end."""
    width: float = WIDTH
    height: float = HEIGHT


class Point(NamedTuple):
    """One figure before it has a place."""

    value: float
    title: str
    shape: str = "disc"
    colour: str = "accent"
    link: str = ""
    low: float | None = None
    high: float | None = None
    limit: float | None = None


class Chart(NamedTuple):
    """A chart ready to be drawn."""

    title: str
    dots: list[Dot]
    line: str
    """Points of a polyline; empty: none is drawn."""
    ticks: list[Tick]
    ends: tuple[str, str]
    """What stands below its left and its right end."""
    rows: Sequence[tuple[str, str]] = ()
    """Its figures as a table, where they stand in no other one of the page: heading and figure."""
    width: float = WIDTH
    height: float = HEIGHT


def chart(title: str, points: Sequence[Point | None], ends: tuple[str, str], *, is_line: bool = False) -> Chart | None:
    """Points from left to right; None leaves its place empty, for what was not measured. None: there is no figure."""
    known = [point for point in points if point is not None]
    if not known:
        return None
    bounds = [end for each in known for end in (each.value, each.low, each.high, each.limit) if end is not None]
    low, high = min(0.0, *bounds), max(0.0, *bounds)
    if low == high:
        high = 1.0  # all are 0, and lie on the ground
    span = high - low

    def y_of(value: float | None) -> float | None:
        return None if value is None else round(_TOP + (HEIGHT - _TOP - _BOTTOM) * (high - value) / span, 1)

    dots = []
    for number, point in enumerate(points):
        if point is not None:
            marks = [y_of(each) for each in (point.low, point.high, point.limit)]
            dots.append(Dot(x_of(number, len(points)), y_of(point.value) or 0.0, *point[1:5], *marks))
    ticks = [Tick(y_of(value) or 0.0, f"{value:.3g}".replace("-", "−")) for value in sorted({low, 0.0, high})]
    line = " ".join(f"{dot.x},{dot.y}" for dot in dots) if is_line else ""
    return Chart(title, dots, line, _apart(ticks), ends)


def lines_chart(title: str, series: Mapping[str, Sequence[float]], ends: tuple[str, str]) -> Lines:
    """Several figures at the same moments, from left to right; each line has a stroke of its own."""
    high = max((max(figures, default=0.0) for figures in series.values()), default=0.0) or 1.0

    def y_of(value: float) -> float:
        return round(_TOP + (HEIGHT - _TOP - _BOTTOM) * (high - value) / high, 1)

    def points(figures: Sequence[float]) -> str:
        return " ".join(f"{x_of(number, len(figures))},{y_of(figure)}" for number, figure in enumerate(figures))

    return Lines(
        title,
        [(name, points(figures)) for name, figures in series.items()],
        [Tick(y_of(value), f"{value:.3g}") for value in (0.0, high)],
        ends,
    )


def x_of(place: float, places: int) -> float:
    """Where one of so many places is, the first being 0; a place may lie between two others."""
    step = (WIDTH - _LEFT - _RIGHT) / max(places - 1, 1)
    return round(_LEFT + step * place, 1) if places > 1 else round((_LEFT + WIDTH) / 2, 1)


def _apart(ticks: list[Tick]) -> list[Tick]:
    """Ticks whose figures do not lie on each other."""
    kept: list[Tick] = []
    for tick in ticks:
        if all(abs(tick.y - other.y) >= 12 for other in kept):
            kept.append(tick)
    return kept


class Bar(NamedTuple):
    """A figure against its limit, as shares of the bar's width from 0 to 100."""

    start: float
    length: float
    limit: float | None
    upper_limit: float | None


def bar(value: float | None, limit: float | None, upper_limit: float | None = None) -> Bar:
    """The bar of one figure; without a value it has no length."""
    known = [each for each in (value, limit, upper_limit) if each is not None]
    low, high = min([0.0, *known]), max([0.0, *known])
    span = (high - low) * 1.2 or 1.0
    # Room beyond the outermost figure, so that the mark of a limit at the end is seen.
    left = low - (high - low) * 0.1 if low < 0 else 0.0

    def share(figure: float) -> float:
        return round(min(max((figure - left) / span * 100, 0.0), 100.0), 2)

    zero, end = share(0.0), share(value or 0.0)
    return Bar(
        start=min(zero, end),
        length=round(abs(end - zero), 2),
        limit=None if limit is None else share(limit),
        upper_limit=None if upper_limit is None else share(upper_limit),
    )
