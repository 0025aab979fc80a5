"""Which cycle's adapter an engine was proved to run at a given second. Pure."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Container, Iterable
from itertools import pairwise

import msgspec

from sleepd.protocol.deployment.serve_messages import ServedSpan


class ServedTimes(msgspec.Struct, frozen=True):
    """Stretches of time in their order, none of which meets another, and the cycle of each."""

    stretches: tuple[tuple[int, int, int], ...] = ()
    """The first second, the first second beyond, the cycle."""

    def cycle_at(self, second: int) -> int | None:
        """The cycle that was served; None: none of these, or that is not proved."""
        place = bisect_right(self.stretches, second, key=lambda one: one[0]) - 1
        return self.stretches[place][2] if place >= 0 and second < self.stretches[place][1] else None


NEVER = ServedTimes()


def served_times(spans: Iterable[ServedSpan], cycles: Container[int] | None = None) -> ServedTimes:
    """When those cycles were served (None: all of them): from the first proof to the last one that found the same.

    After the last proof nothing is known. Two spans that name two generations for one moment come from a clock that was
    put back: neither counts there.
    """
    edges = []
    for span in spans:
        first, beyond = math.ceil(span.since.timestamp()), math.floor(span.proved_at.timestamp()) + 1
        if first < beyond:
            edges += [(first, 1, span.cycle or 0), (beyond, -1, span.cycle or 0)]
    running, stretches = Counter[int](), list[tuple[int, int, int]]()
    for (at, change, cycle), (until, _, _) in pairwise(sorted(edges)):
        running[cycle] += change
        names = [name for name, count in running.items() if count]
        if at < until and len(names) == 1 and names[0] and (cycles is None or names[0] in cycles):
            stretches.append((at, until, names[0]))
    return ServedTimes(tuple(stretches))
