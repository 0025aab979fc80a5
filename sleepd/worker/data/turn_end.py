"""Where a turn ends in what a template writes behind it."""

from __future__ import annotations

from collections.abc import Collection

from .control_tokens import ControlWords


def turn_end(alone: str, followed: str, words: ControlWords, stops: Collection[str]) -> str:
    """What of ``alone``, which stands behind a last reply, ends its turn.

    That is what stands there as well when a turn follows (``followed``), up to the first token at which generation
    stops, or else up to the last control word. Where the two have no control word in common, a last reply has an end of
    its own; where it has none at all, the next turn's header is what ends it, if generation stops there.
    """
    common = common_pieces(alone, followed, words)
    is_structural = any(piece in words.words for piece in common)
    pieces = common if is_structural else words.split(alone)
    for number, piece in enumerate(pieces):
        if piece in stops:
            return "".join(pieces[: number + 1])
    structural = [number for number, piece in enumerate(pieces) if piece in words.words]
    if structural:
        return "".join(pieces[: structural[-1] + 1])
    header = [piece for piece in words.split(followed) if piece.strip()]
    if not alone.strip() and header and header[0] in stops:
        return header[0]
    return alone.rstrip()


def common_pieces(one: str, other: str, words: ControlWords) -> list[str]:
    """What both begin with, cut at control words."""
    first, second = words.split(one), words.split(other)
    number = next((n for n, pair in enumerate(zip(first, second, strict=False)) if pair[0] != pair[1]), None)
    return first[: min(len(first), len(second)) if number is None else number]


def shared_length(one: str, other: str, words: ControlWords) -> int:
    """How many characters both begin with, where none of them is a part of a control word of ``one``."""
    pairs = enumerate(zip(one, other, strict=False))
    start = next((at for at, (first, second) in pairs if first != second), min(len(one), len(other)))
    inside = [word.start() for word in words.found_in(one) if word.start() < start < word.end()]
    return min([start, *inside])
