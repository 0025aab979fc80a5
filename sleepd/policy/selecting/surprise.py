"""The base's surprise at a reply as its salience. Pure.

A reply that the base expects needs no training, and one that surprises it does. The surprise is the base's loss on the
reply in nats a token, as a cycle measured it. ``nats / (1 + nats)`` is its salience: 0.6 at 1.5 nats, 0.9 at 9.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from typing import Literal

from sleepd.buffer.columns import BufferColumns, FloatArray


def salience_of(nats: float) -> float:
    """From 0 to 1; a loss that rounding made negative is 0."""
    return max(0.0, nats) / (1.0 + max(0.0, nats))


def weighed(
    columns: BufferColumns, surprises: Mapping[int, float], which: Literal["surprise", "both"], default: float
) -> FloatArray:
    """The saliences that count. One that a person rated down stays so.

    Args:
        columns: the buffer.
        surprises: nats a token by key, of what was measured.
        which: as ``buffer.salience``.
        default: of what was not measured yet.
    """
    found = array("d", columns.saliences)
    for place, (key, salience) in enumerate(zip(columns.keys, columns.saliences, strict=True)):
        if salience < 0 or (which == "both" and columns.given[place]):
            continue
        nats = surprises.get(key)
        found[place] = default if nats is None else salience_of(nats)
    return found
