"""Which experiences are never trained on. Pure.

Membership belongs to a *group*: the hash of an experience's normalised prompt and reply, so that copies fall together.
About a fifth of all groups are held out by their hash alone. A buffer whose first five eligible experiences all
fall on the training side would be measured on nothing; then the one with the smallest rank among them is held out too.
Once a cycle has recorded a group's side, it stays there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

_MIX: Final = 0x9E3779B97F4A7C15
_MASK: Final = 2**64 - 1
ONE_IN: Final = 5
FEW: Final = 5
"""From so many eligible experiences on, at least one is held out."""


def rank(group: int) -> int:
    """A second, independent-looking number from a 64-bit group hash (Fibonacci hashing, Knuth vol. 3, 6.4)."""
    return ((group * _MIX) & _MASK) >> 32


def is_held_out_by_hash(group: int) -> bool:
    """Whether the hash alone holds the group out: one in five."""
    return rank(group) % ONE_IN == 0


def divide(groups: Sequence[int], recorded: Mapping[int, bool]) -> set[int]:
    """The groups of ``groups`` that are held out.

    Args:
        groups: of the eligible experiences, in file order; copies may repeat.
        recorded: what earlier cycles recorded: group -> is held out.
    """
    held_out = {group for group in groups if recorded.get(group, is_held_out_by_hash(group))}
    if held_out or len(groups) < FEW:
        return held_out
    free = [group for group in dict.fromkeys(groups) if group not in recorded]
    # One group alone cannot be divided: all copies of it fall together.
    if len(free) > 1 or (free and len(set(groups)) > 1):
        held_out.add(min(free, key=rank))
    return held_out
