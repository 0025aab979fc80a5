"""Whether a candidate's speech has collapsed: its figures against its parent's and the base's. Pure.

The base is the measure: a small one loops and repeats itself by nature, and the adapter is not to blame for that. Where
the parent, which is in use, is worse than the base, the candidate may be as bad as the parent.
"""

from __future__ import annotations

from collections.abc import Sequence

from sleepd.protocol.evidence import Collapse
from sleepd.protocol.verdict import Figure

from .confidence import most_by_chance

MAX_SIMILAR_PAIRS = 0.5
"""Of all pairs of replies: above it the older scheduler spoke of collapse."""
MIN_DISTINCT_SHARE = 0.7
"""Of the base's distinct-2."""
MAX_LENGTH_FACTOR = 4.0
"""Times the base's mean length."""
MIN_LENGTH_SHARE = 0.05
"""Of the base's mean length: short replies are a style, none are a collapse."""
FEW_WORDS, MANY_WORDS = 2.0, 60.0
"""A mean length between them is neither a collapse nor an explosion, whatever the base's."""
MODES = ("greedy", "sampled", "talk")
COUNTED = ("loops", "question_floods")


def speech_figures(measured: list[Collapse], confidence: float) -> list[Figure]:
    """The figures of every way of asking, against their limits; a way that was not measured meets none.

    Args:
        measured: the replies of base, parent and candidate, in figures.
        confidence: how sure it must be that more loops are more than chance.
    """
    by_mode: dict[str, Collapse] = {each.mode: each for each in measured}
    figures: list[Figure] = []
    for mode in MODES:
        found = by_mode.get(mode)
        if found is None or found.candidate.replies == 0:
            text = f"{mode} replies: not measured (do [evaluation] seconds suffice?)"
            figures.append(
                Figure(name=f"{mode}_replies", value=None, relation="above", limit=0, is_met=False, text=text)
            )
            continue
        figures += [
            *(_count([found], f"{mode}_{what}", what, f"{mode} replies", confidence) for what in COUNTED),
            *_similar_pairs(found),
            *_distinct(found),
            _length(found),
        ]
    # A few in each way are chance; as many in every way are not.
    asked = [each for each in measured if each.candidate.replies]
    return figures + [
        _count(asked, f"all_{what}", what, "replies in all", confidence) for what in COUNTED if len(asked) > 1
    ]


def _count(found: Sequence[Collapse], name: str, what: str, which: str, confidence: float) -> Figure:
    """Loops or floods: no more than the worse of base and parent might have had by chance."""
    base, parent, candidate = (
        sum(getattr(getattr(each, who), what) for each in found) for who in ("base", "parent", "candidate")
    )
    replies = sum(each.candidate.replies for each in found)
    limit = most_by_chance(min(max(base, parent), replies), replies, confidence)
    found_in = f"{what.replace('_', ' ')} in {candidate} of {replies} {which}"
    text = f"{found_in}, at most {limit} (parent {parent}, base {base})"
    is_met = candidate <= limit
    return Figure(name=name, value=candidate, relation="at most", limit=limit, is_met=is_met, text=text)


def _similar_pairs(found: Collapse) -> list[Figure]:
    shares = [speech.similar_pairs_share for speech in (found.base, found.parent)]
    value = found.candidate.similar_pairs_share
    if value is None:  # one reply has no pair
        return []
    limit = max([MAX_SIMILAR_PAIRS, *(share for share in shares if share is not None)])
    text = f"{value:.0%} of pairs of {found.mode} replies are similar, at most {limit:.0%}"
    return [
        Figure(
            name=f"{found.mode}_similar_pairs",
            value=value,
            relation="at most",
            limit=limit,
            is_met=value <= limit,
            text=text,
        )
    ]


def _distinct(found: Collapse) -> list[Figure]:
    base, parent, value = (each.distinct_2 for each in (found.base, found.parent, found.candidate))
    if base is None:
        return []
    limit = MIN_DISTINCT_SHARE * base if parent is None else min(MIN_DISTINCT_SHARE * base, parent)
    shown = "has too few words to measure" if value is None else f"{value:.2f}"
    text = f"distinct-2 of {found.mode} replies {shown}, at least {limit:.2f} (base {base:.2f})"
    is_met = value is not None and value >= limit
    return [
        Figure(name=f"{found.mode}_distinct_2", value=value, relation="at least", limit=limit, is_met=is_met, text=text)
    ]


def _length(found: Collapse) -> Figure:
    base, parent, value = (each.mean_words for each in (found.base, found.parent, found.candidate))
    low = min(parent, max(FEW_WORDS, MIN_LENGTH_SHARE * base))
    high = max(parent, MANY_WORDS, MAX_LENGTH_FACTOR * base)
    text = f"{found.mode} replies have {value:.1f} words, {low:.1f} to {high:.0f} (base {base:.1f})"
    return Figure(
        name=f"{found.mode}_words",
        value=value,
        relation="within",
        limit=low,
        upper_limit=high,
        is_met=low <= value <= high,
        text=text,
    )
