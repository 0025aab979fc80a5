"""One view of the views of several files. Pure."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import compress
from typing import Final

from sleepd.buffer.columns import MOST_EXPERIENCES, BufferColumns, IntArray
from sleepd.buffer.digest import MOST_SKIPPED, Skipped

from .view import View

_PLACES: Final = 2**22
"""Of a table of bits: half a megabyte."""


def merged_view(views: Sequence[View], names: Sequence[str], times: Sequence[tuple[int, ...]]) -> View:
    """One view of several: the first of each key counts, and of more than ``MOST_EXPERIENCES`` the last.

    Args:
        views: of the files.
        names: of the files.
        times: when each was changed last; empty: it is not there.
    """
    merged = View(form=_form(views), files=len(views))
    for column in BufferColumns.__struct_fields__:
        # At once: an array that grows a thousand times leaves holes in the heap.
        getattr(merged, column).frombytes(b"".join(getattr(view, column) for view in views))
    for view, name in zip(views, names, strict=True):
        here = view.skipped[: MOST_SKIPPED - len(merged.skipped)]
        merged.skipped += [Skipped(position=f"{name}: {one.position}", reason=one.reason) for one in here]
        merged.skipped_total += view.skipped_total
        merged.left_out += view.left_out
    if repeated := repeated_keys(merged.keys):
        _drop_repeated(merged, repeated)
        oldest_first = [views[place] for place in sorted(range(len(views)), key=times.__getitem__)]
        _take_newest(merged, repeated, oldest_first)
    merged.left_out += merged.keep_newest(MOST_EXPERIENCES)
    return merged


def repeated_keys(keys: IntArray) -> set[int]:
    """Those that stand there more than once. A set of all keys would take eight megabytes for a moment.

    A table by some bits of the key tells most of those apart that stand there once.
    """
    met, suspects = bytearray(_PLACES // 8), set[int]()
    for key in keys:
        place = (key ^ key >> 42) % _PLACES
        bit = 1 << place % 8
        if met[place // 8] & bit:
            suspects.add(place)
        met[place // 8] |= bit
    counts = Counter(key for key in keys if (key ^ key >> 42) % _PLACES in suspects) if suspects else {}
    return {key for key, count in counts.items() if count > 1}


def _drop_repeated(view: View, repeated: set[int]) -> None:
    """Keep the first of each key; one with another text is counted as skipped."""
    groups, others, is_kept = dict[int, int](), 0, bytearray()
    for key, group in zip(view.keys, view.groups, strict=True):
        is_kept.append(key not in repeated or key not in groups)
        if key in repeated:
            others += groups.setdefault(key, group) != group
    for column in BufferColumns.__struct_fields__:
        values = getattr(view, column)
        setattr(view, column, array(values.typecode, compress(values, is_kept)))
    if others:
        reason = f"{others} experiences have an id that another text in another file has"
        view.skipped = [Skipped(position="several files", reason=reason), *view.skipped][:MOST_SKIPPED]
        view.skipped_total += others


def _take_newest(merged: View, repeated: set[int], oldest_first: Iterable[View]) -> None:
    """Of the saliences that several files give one text the newest counts, and a mark in any of them."""
    places = {key: place for place, key in enumerate(merged.keys) if key in repeated}
    for view in oldest_first:
        for here, key in enumerate(view.keys):
            place = places.get(key)
            if place is None or merged.groups[place] != view.groups[here]:
                continue
            if view.given[here]:
                merged.saliences[place], merged.given[place] = view.saliences[here], True
            if view.marked[here]:
                merged.marked[place] = True


def _form(views: Sequence[View]) -> str:
    forms = {view.form for view in views} - {"absent", "empty"}
    return next(iter(forms)) if len(forms) == 1 else "several" if forms else "empty"
