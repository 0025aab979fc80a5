"""Several chat examples in one row of tokens, each seeing only itself and the opening they share.

Padding wastes the processor, and a system prompt computed again for every chat example wastes more. A row holds the
shared opening once and then one segment a chat example; the attention mask lets a segment see the opening and itself,
and the positions restart behind the opening. The result is the same as one row a chat example, gradients through the
opening included.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from .examples import Encoded


@dataclass(frozen=True)
class PackedRow:
    """One forward pass. T tokens, S of them predicted."""

    members: tuple[Encoded, ...]
    ids: torch.Tensor
    """[1, T] token ids."""
    positions: torch.Tensor
    """[1, T] position ids."""
    segments: torch.Tensor | None
    """[T] 0 in the shared opening, then 1, 2, … by member; None for a row of one, which needs no mask."""
    predicting: torch.Tensor
    """[S] places in the row whose logits predict a supervised token."""
    targets: torch.Tensor
    """[S] the supervised tokens."""

    @property
    def tokens(self) -> int:
        """T."""
        return int(self.ids.shape[1])


def shared_opening(sequences: Sequence[Encoded]) -> int:
    """How many tokens all of them begin with, leaving each at least one prompt token of its own."""
    if len(sequences) < 2:
        return 0
    first, last = min(one.ids for one in sequences), max(one.ids for one in sequences)
    limit = min(one.prompt_tokens for one in sequences) - 1
    for place in range(limit):
        if first[place] != last[place]:
            return place
    return max(limit, 0)


def make_rows(sequences: Sequence[Encoded], budget: int, opening: int, *, packed: bool = True) -> list[PackedRow]:
    """The sequences in as few rows as first-fit-decreasing finds, each of at most ``budget`` tokens.

    A sequence longer than the budget has a row to itself. Unpacked, every sequence has.
    """
    if not packed:
        return [make_row([one], 0) for one in sequences]
    bins: list[list[Encoded]] = []
    lengths: list[int] = []
    for one in sorted(sequences, key=lambda one: (-len(one.ids), one.id)):
        own = len(one.ids) - opening
        place = next((i for i, length in enumerate(lengths) if length + own <= budget), None)
        if place is None:
            bins.append([one])
            lengths.append(opening + own)
        else:
            bins[place].append(one)
            lengths[place] += own
    return [make_row(members, opening) for members in bins]


def make_row(members: Sequence[Encoded], opening: int) -> PackedRow:
    """One row of these members, which share their first ``opening`` tokens."""
    if len(members) == 1:
        opening = 0
    ids = list(members[0].ids[:opening])
    positions = list(range(opening))
    segments = [0] * opening
    predicting: list[int] = []
    targets: list[int] = []
    for number, one in enumerate(members):
        start = len(ids) - opening  # where the member's token 0 would stand
        predicting.extend(start + place - 1 for place in range(one.prompt_tokens, len(one.ids)))
        targets.extend(one.ids[one.prompt_tokens :])
        ids.extend(one.ids[opening:])
        positions.extend(range(opening, len(one.ids)))
        segments.extend([number + 1] * (len(one.ids) - opening))
    return PackedRow(
        members=tuple(members),
        ids=torch.tensor([ids]),
        positions=torch.tensor([positions]),
        segments=torch.tensor(segments) if len(members) > 1 else None,
        predicting=torch.tensor(predicting, dtype=torch.long),
        targets=torch.tensor(targets, dtype=torch.long),
    )


def attention_mask(segments: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """[1, 1, T, T] of 0 where a token may look and the lowest number of ``dtype`` where it may not."""
    same = segments[:, None] == segments[None, :]
    allowed = (same | (segments == 0)[None, :]).tril()
    blocked = torch.zeros(allowed.shape, dtype=dtype, device=segments.device)
    return blocked.masked_fill_(~allowed, torch.finfo(dtype).min)[None, None]
