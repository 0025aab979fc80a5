"""A named set of hyperparameters, as a job carries it."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

FOREIGN: Final = "from:"
"""A cycle that judged an adapter of another machine has no strategy, but this and the name of that machine."""


class Strategy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a cycle trains."""

    name: str
    rank: int
    alpha: int
    dropout: float
    target_modules: list[str] | Literal["all-linear"]
    epochs: int
    """Passes over the experiences, unless ``min_steps`` asks for more, or ``most_repeats`` for more of a short one."""
    learning_rate: float
    batch_size: int
    """Experiences in one optimizer step; twice as many of short ones, where ``most_repeats`` is above 2."""
    weight_decay: float
    warmup_share: float
    """Of all steps, the share in which the rate climbs from zero; it then falls along a cosine to a tenth."""
    max_grad_norm: float
    kl_weight: float
    """Weight of the KL divergence from the base on the base's own answers; 0 turns the term off."""
    kl_prompts: int
    """How many of the shipped reference prompts regularise the training."""
    replay_share: float
    """Replayed experiences, as a share of the new ones that are trained."""
    min_replayed: int = 0
    """Fewest replayed experiences, as far as there are any: a cycle with few new ones must not crowd out the old."""
    continued_rate_share: float = 1.0
    """Of the learning rate, what a cycle uses that continues a champion."""
    micro_batch_tokens: int
    """Tokens in one forward pass; an optimizer step is cut into as many as it takes."""
    min_steps: int = 0
    """Fewest optimizer steps: epochs are added until there are as many, so that a few experiences are learned too."""
    most_repeats: int = 1
    """A short reply is trained at most so many times as often as a long one."""
    thinned_share: float = 0.0
    """Of the times that a short reply is trained, the share in which some words of its prompt are left out."""
    kl_batch_size: int = 0
    """Most reference answers of the base beside the experiences in one optimizer step."""
    kl_batch_least: int = 0
    """Fewest of them, beside short replies; 0: always ``kl_batch_size``."""
    lineage: Literal["continue", "retrain"] = "continue"
    """Whether a cycle goes on from the champion, or starts from the base and learns all of the lineage again."""
    drift_budget: float | None = None
    """Most KL from the base on reference prompts, nats a token: an adapter beyond it is scaled down; None: no limit."""
    weighs_by_salience: bool = True
    """Whether a token counts in the loss by the salience of its experience, or all alike."""
    max_tokens: int
    """Longest sequence; a longer one loses the start of its prompt first, then the end of its reply, with notice."""
