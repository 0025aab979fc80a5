"""Whether an operator's own figure meets the operator's limit. Pure.

A figure that was not measured meets no limit.
"""

from __future__ import annotations

from typing import Literal

from sleepd.config.limits import MetricLimit
from sleepd.protocol.verdict import Figure


def metric_figure(limit: MetricLimit, *, value: float | None, parent: float | None) -> Figure:
    """The operator's figure, compared with the limit."""
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
