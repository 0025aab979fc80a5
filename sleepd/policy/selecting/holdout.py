"""Which experiences are held out, and for how long. Pure.

Membership belongs to a *group*: a conversation, or, where an experience is one prompt and one reply, the hash of their
normalised texts, so that copies fall together. About a fifth of all groups are held out by their rank alone: a hash
that is keyed with a secret of the state directory, so that nobody who writes an experience can predict, or choose, its
split. A buffer whose first five eligible experiences all fall into the training split would be measured on nothing;
then the one with the smallest rank among them is held out too.

A held-out group judges while it is young. Once enough younger groups are held out, it is *released*: the next cycle
trains it. Only a group that a cycle has recorded as held out is released, so each one has judged first. The other way
there is none: what any cycle trained, promoted or not, is never held out again. So no candidate, no champion and no
previous champion is measured on what it or one of its ancestors trained.

A short reply that corrects a trained one is trained at once, whatever its rank (``superseded.corrections``). Of many
short replies at most five are held out (``facts``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from itertools import groupby
from typing import Final

_MIX: Final = 0x9E3779B97F4A7C15
_MASK: Final = 2**64 - 1
ONE_IN: Final = 5
FEW: Final = 5
"""From so many eligible experiences on, at least one is held out."""
YOUNGER: Final = 12
"""A group is released once so many younger ones are held out. From twelve on a third may decide about early stopping,
and the eight that judge are no low sample."""


def rank(group: int) -> int:
    """A second, independent-looking number from a 64-bit group hash (Fibonacci hashing, Knuth vol. 3, 6.4).

    Anybody can work it out: nothing that is measured may depend on it.
    """
    return ((group * _MIX) & _MASK) >> 32


def keyed_rank(group: int, secret: bytes) -> int:
    """32 bits of the keyed BLAKE2b of the group: of no use to anybody without the secret."""
    return int.from_bytes(blake2b(group.to_bytes(8, "big"), key=secret, digest_size=4).digest(), "big")


def is_held_out_by_rank(rank: int) -> bool:
    """Whether the rank alone holds a group out: one in five."""
    return rank % ONE_IN == 0


def is_held_out(group: int, secret: bytes) -> bool:
    """Whether a group that no cycle has recorded is held out, whatever else is there."""
    return is_held_out_by_rank(keyed_rank(group, secret))


def divide(groups: Sequence[int], recorded: Mapping[int, bool], secret: bytes) -> set[int]:
    """The groups of ``groups`` that are held out.

    Args:
        groups: of the eligible experiences, in file order; copies may repeat.
        recorded: what earlier cycles recorded: group -> is held out.
        secret: that of the state directory.
    """
    # Each run of equal ones once: a set of all groups would take eight megabytes for a moment.
    held_out = {
        group
        for group, _ in groupby(groups)
        if (is_held_out(group, secret) if (side := recorded.get(group)) is None else side)
    }
    if held_out or len(groups) < FEW:
        return held_out
    free = [group for group in dict.fromkeys(groups) if group not in recorded]
    # One group alone cannot be divided: all copies of it fall together.
    if len(free) > 1 or (free and len(set(groups)) > 1):
        held_out.add(min(free, key=lambda group: keyed_rank(group, secret)))
    return held_out


def released(held_out: Sequence[int], recorded: Mapping[int, bool]) -> set[int]:
    """Of the held-out groups those that are trained from now on.

    Args:
        held_out: the group of each held-out experience, oldest first; a group is as young as its newest experience.
        recorded: what earlier cycles recorded: group -> is held out.
    """
    recent = youngest(reversed(held_out))
    return {group for group in held_out if group not in recent and recorded.get(group, False)}


def youngest(newest_first: Iterable[int]) -> set[int]:
    """The groups that are held out still, of those of all held-out experiences."""
    found = set[int]()  # and no list of all groups: there may be tens of thousands
    for group in newest_first:
        if len(found) == YOUNGER:
            break
        found.add(group)
    return found
