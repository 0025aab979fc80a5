"""What is trained when, and at what rate. Pure."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from itertools import accumulate

from sleepd.protocol.strategy import Strategy
from sleepd.worker.data.examples import Encoded

FINAL_RATE_SHARE = 0.1
"""Of the learning rate, what is left of it at the last step."""
SHORT_REPLIES = ((16, 10), (28, 4))
"""A reply of at most so many tokens is trained so many times as often as a long one. A short reply states a fact, which
is to be known by heart; a long one learned by heart makes the replies to other prompts worse."""


def repeats(strategy: Strategy, reply_tokens: int) -> int:
    """How many times as often as a long reply one of so many tokens is trained."""
    found = next((times for longest, times in SHORT_REPLIES if reply_tokens <= longest), 1)
    return min(found, strategy.most_repeats)


def shares(strategy: Strategy, experiences: Sequence[Encoded]) -> list[float]:
    """Of each experience the share of the epochs that it is in, in parallel; a short reply is in all of them."""
    times = [repeats(strategy, one.supervised) for one in experiences]
    most = max(times, default=1)
    return [one.sampling_share * each / most for one, each in zip(experiences, times, strict=True)]


def step_size(strategy: Strategy, experiences: Sequence[Encoded]) -> int:
    """Experiences in one optimizer step: twice as many where most of what is trained are short replies."""
    parts = shares(strategy, experiences)
    tokens = sum(one.supervised * share for one, share in zip(experiences, parts, strict=True))
    is_short = repeats(strategy, round(tokens / max(sum(parts), 1e-9))) > 2
    return strategy.batch_size * (2 if is_short else 1)


def planned_epochs(strategy: Strategy, experiences: Sequence[Encoded]) -> int:
    """The strategy's epochs, more of them where there are short replies, and as many as its fewest steps take."""
    epochs = strategy.epochs * max((repeats(strategy, one.supervised) for one in experiences), default=1)
    return max(
        epochs, math.ceil(strategy.min_steps / steps_an_epoch(step_size(strategy, experiences), len(experiences)))
    )


def steps_an_epoch(size: int, experiences: int) -> int:
    """Optimizer steps of so many experiences; the last one may hold fewer."""
    return max(1, math.ceil(experiences / size))


def epoch_order(strategy: Strategy, experiences: Sequence[Encoded], seed: int, epoch: int) -> list[str]:
    """The ids that an epoch trains, in its order; the same for a seed and an epoch, whatever came before.

    Those with one share below 1 take turns: each is in that share of the epochs, and in each epoch is that share of
    them (systematic sampling: Cochran, Sampling Techniques, ch. 8).
    """
    of_share: dict[float, list[str]] = {}
    for one, share in zip(experiences, shares(strategy, experiences), strict=True):
        of_share.setdefault(min(1.0, share), []).append(one.id)
    ids = sorted(of_share.pop(1.0, []))
    for share in sorted(of_share):
        turns = sorted(of_share[share])
        random.Random(f"{seed}:{share}").shuffle(turns)  # noqa: S311 - an order, not a secret
        first, last = (math.floor(part * share * len(turns)) for part in (epoch, epoch + 1))
        ids += [turns[turn % len(turns)] for turn in range(first, last)]
    ids = sorted(ids or (one.id for one in experiences))
    random.Random(f"{seed}:{epoch}").shuffle(ids)  # noqa: S311 - an order, not a secret
    return ids


def epoch_ends(strategy: Strategy, experiences: Sequence[Encoded], seed: int) -> list[int]:
    """After how many optimizer steps each epoch ends."""
    size = step_size(strategy, experiences)
    epochs = range(planned_epochs(strategy, experiences))
    return list(
        accumulate(steps_an_epoch(size, len(epoch_order(strategy, experiences, seed, epoch))) for epoch in epochs)
    )


def rate_share(step: int, steps: int, warmup_share: float) -> float:
    """Share of the learning rate at ``step`` of 0 to ``steps - 1``: a linear rise, then a cosine down to a tenth."""
    warmup = math.ceil(steps * warmup_share)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    way = (step - warmup) / max(1, steps - warmup)
    return FINAL_RATE_SHARE + (1 - FINAL_RATE_SHARE) * 0.5 * (1 + math.cos(math.pi * way))
