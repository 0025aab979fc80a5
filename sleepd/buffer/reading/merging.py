"""One view of the views of several files. Pure."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from itertools import compress

from sleepd.buffer.columns import MOST_EXPERIENCES, BufferColumns
from sleepd.buffer.digest import MOST_SKIPPED, Skipped

from .view import View


def merged_view(views: Sequence[View], names: Sequence[str], times: Sequence[tuple[int, ...]]) -> View:
    """One view of several: the first of each key counts, and of more than ``MOST_EXPERIENCES`` the last.

    Args:
        views: of the files.
        names: of the files.
        times: when each was changed last; empty: it is not there.
    """
    merged = View(form=_form(views), files=len(views))
    for view, name in zip(views, names, strict=True):
        for column in BufferColumns.__struct_fields__:
            getattr(merged, column).extend(getattr(view, column))
        here = view.skipped[: MOST_SKIPPED - len(merged.skipped)]
        merged.skipped += [Skipped(position=f"{name}: {one.position}", reason=one.reason) for one in here]
        merged.skipped_total += view.skipped_total
        merged.left_out += view.left_out
    if len(set(merged.keys)) < len(merged.keys):
        _drop_repeated(merged)
        oldest_first = [views[place] for place in sorted(range(len(views)), key=times.__getitem__)]
        _take_newest_saliences(merged, oldest_first)
    merged.left_out += merged.keep_newest(MOST_EXPERIENCES)
    return merged


def _drop_repeated(view: View) -> None:
    """Keep the first of each key; one with another text is counted as skipped."""
    groups: dict[int, int] = {}
    others = sum(groups.setdefault(key, group) != group for key, group in zip(view.keys, view.groups, strict=True))
    seen = set[int]()
    first = [key not in seen and not seen.add(key) for key in view.keys]  # type: ignore[func-returns-value]
    for column in BufferColumns.__struct_fields__:
        values = getattr(view, column)
        setattr(view, column, array(values.typecode, compress(values, first)))
    if others:
        reason = f"{others} experiences have an id that another text in another file has"
        view.skipped = [Skipped(position="several files", reason=reason), *view.skipped][:MOST_SKIPPED]
        view.skipped_total += others


def _take_newest_saliences(merged: View, oldest_first: Iterable[View]) -> None:
    """Of the saliences that several files give one text the newest counts."""
    places = {key: place for place, key in enumerate(merged.keys)}
    for view in oldest_first:
        for key, group, salience, is_given in zip(view.keys, view.groups, view.saliences, view.given, strict=True):
            place = places[key]
            if is_given and merged.groups[place] == group:
                merged.saliences[place], merged.given[place] = salience, True


def _form(views: Sequence[View]) -> str:
    forms = {view.form for view in views} - {"absent", "empty"}
    return next(iter(forms)) if len(forms) == 1 else "several" if forms else "empty"
