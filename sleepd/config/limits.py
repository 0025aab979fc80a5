"""How an operator's limit on a figure of their own is written: ``accuracy >= 0.8``, ``seconds <= parent + 0.5``.

``parent`` is the same figure of the previous champion.
"""

from __future__ import annotations

import math
import re

import msgspec

from sleepd.protocol.evidence import METRIC_NAME

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
