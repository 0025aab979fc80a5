"""The owner's limits on the owner's figures: ``accuracy >= 0.8``, ``seconds <= parent + 0.5``. Pure.

``parent`` is the same figure of the champion before. A figure that was not measured meets no limit.
"""

from __future__ import annotations

import math
import re
from typing import Literal

import msgspec

from sleepd.protocol.control import METRIC_NAME
from sleepd.protocol.verdict import Figure

_NUMBER = r"[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?"
_LIMIT = re.compile(
    rf"\s*(?P<name>{METRIC_NAME})\s*(?P<sign>>=|<=)\s*"
    rf"(?:(?P<fixed>-?{_NUMBER})|(?P<parent>parent)(?:\s*(?P<by_sign>[+-])\s*(?P<by>{_NUMBER}))?)\s*"
)


class MetricLimit(msgspec.Struct, frozen=True, kw_only=True):
    """One limit."""

    name: str
    is_least: bool
    """The figure must be at least the limit; else at most."""
    is_relative: bool
    """The limit is the parent's figure plus ``offset``; else ``offset`` itself."""
    offset: float


def parse_limit(text: str) -> MetricLimit:
    """``NAME >= NUMBER``, ``NAME <= NUMBER``, ``NAME >= parent``, ``NAME >= parent - NUMBER`` and so on.

    Raises:
        ValueError: it is none of these.
    """
    match = _LIMIT.fullmatch(text)
    offset = float((match["fixed"] or f"{match['by_sign'] or '+'}{match['by'] or 0}") if match else "nan")
    if match is None or not math.isfinite(offset):
        raise ValueError('a limit such as "accuracy >= 0.8" or "accuracy >= parent - 0.02"')
    return MetricLimit(
        name=match["name"], is_least=match["sign"] == ">=", is_relative=match["parent"] is not None, offset=offset
    )


def metric_figure(limit: MetricLimit, *, value: float | None, parent: float | None) -> Figure:
    """The owner's figure, held against the limit."""
    bound = limit.offset if not limit.is_relative else None if parent is None else parent + limit.offset
    is_met = value is not None and bound is not None and (value >= bound if limit.is_least else value <= bound)
    relation: Literal["at least", "at most"] = "at least" if limit.is_least else "at most"
    if value is None:
        text = f"{limit.name}: not measured, {relation} {_bound(limit, bound)} is required"
    elif bound is None:
        text = f"{limit.name} {value:g}, {relation} {_bound(limit, bound)}, which was not measured"
    else:
        text = f"{limit.name} {value:g}, {relation} {_bound(limit, bound)}"
    return Figure(name=f"metric_{limit.name}", value=value, relation=relation, limit=bound, is_met=is_met, text=text)


def _bound(limit: MetricLimit, bound: float | None) -> str:
    if not limit.is_relative:
        return f"{limit.offset:g}"
    spoken = f"parent {'-' if limit.offset < 0 else '+'} {abs(limit.offset):g}" if limit.offset else "parent"
    return f"{spoken} = {bound:g}" if bound is not None else spoken
