"""Two cycles side by side: figures, replies to the same prompts, what each was trained on that the other was not."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

from sleepd.protocol.status import CycleDetail

from .state_marks import mark_of
from .word_changes import TextPiece, changes


class FigurePair(NamedTuple):
    """One figure of both."""

    name: str
    one: float | None
    other: float | None
    difference: float | None


class ReplyPair(NamedTuple):
    """Both candidates' replies to one prompt."""

    prompt: str
    one: list[TextPiece]
    other: list[TextPiece]


def values(one: CycleDetail, other: CycleDetail, now: datetime) -> dict[str, Any]:
    """What the template shows."""
    trained = [set(each.trained_ids) | set(each.replayed_ids) for each in (one, other)]
    return {
        "now": now,
        "one": one.summary,
        "other": other.summary,
        "marks": [mark_of(each.summary) for each in (one, other)],
        "rows": [FigurePair(*figure, _difference(*figure[1:])) for figure in _figures(one, other)],
        "pairs": _pairs(one, other),
        "only": (sorted(trained[0] - trained[1]), sorted(trained[1] - trained[0])),
        "both": len(trained[0] & trained[1]),
    }


def _difference(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else other - one


_LOSSES = {
    "holdout_before": "reply loss on held-out, before",
    "holdout_after": "reply loss on held-out, after",
    "train_before": "reply loss on trained, before",
    "train_after": "reply loss on trained, after",
}
_COUNTS = ("trained", "replayed", "held_out")


def _figures(one: CycleDetail, other: CycleDetail) -> list[tuple[str, float | None, float | None]]:
    found = [(text, getattr(one.summary, name), getattr(other.summary, name)) for name, text in _LOSSES.items()]
    found += [(name, float(getattr(one.summary, name)), float(getattr(other.summary, name))) for name in _COUNTS]
    judged = [each.verdict.figures if each.verdict else [] for each in (one, other)]
    sides = [{figure.name: figure.value for figure in figures} for figures in judged]
    for side, each in zip(sides, (one, other), strict=True):
        side.setdefault("drift", each.summary.drift)
    return found + [(name, sides[0].get(name), sides[1].get(name)) for name in dict.fromkeys([*sides[0], *sides[1]])]


def _pairs(one: CycleDetail, other: CycleDetail) -> list[ReplyPair]:
    """To the prompts that both were asked."""
    replies = [
        {each.prompt: each.candidate for each in detail.report.evidence.probe_replies} if detail.report else {}
        for detail in (one, other)
    ]
    one_said, other_said = replies
    shared = [prompt for prompt in one_said if prompt in other_said]
    return [ReplyPair(prompt, *changes(one_said[prompt], other_said[prompt])) for prompt in shared]
