"""Greedy replies to several prompts at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from .data import ChatFormat
from .model import Device, computing


@torch.no_grad()
def greedy_replies(
    model: Any,
    device: Device,
    prompts: Sequence[Sequence[int]],
    *,
    stop_ids: frozenset[int],
    max_new_tokens: int,
    on_step: Callable[[int], None] = lambda _tokens: None,
    deadline: float | None = None,
) -> list[list[int]]:
    """The most likely continuation of each prompt, up to a stop token, which is left out.

    ``model`` is in evaluation mode; a token of ``stop_ids`` ends a reply. ``on_step`` is called before every step with
    the number of tokens that it computes. Past ``deadline`` (monotonic clock) the replies end as far as they are.
    """
    ids, mask = _padded(prompts, device.torch_device)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    replies: list[list[int]] = [[] for _ in prompts]
    is_open = [True] * len(prompts)
    cache = None
    for _ in range(max_new_tokens):
        on_step(ids.numel())
        with computing(device):
            inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
            out = model(**inputs, past_key_values=cache, use_cache=True, logits_to_keep=1)
        cache = out.past_key_values
        chosen = out.logits[:, -1].argmax(-1)
        for number, token in enumerate(chosen.tolist()):
            is_open[number] = is_open[number] and token not in stop_ids
            if is_open[number]:
                replies[number].append(token)
        if not any(is_open) or (deadline is not None and time.monotonic() > deadline):
            break
        ids = chosen[:, None]
        mask = torch.cat([mask, mask.new_ones(len(prompts), 1)], dim=1)
        positions = positions[:, -1:] + 1
    return replies


def _padded(prompts: Sequence[Sequence[int]], place: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and attention mask, each [prompts, longest], with the padding on the left."""
    longest = max(len(prompt) for prompt in prompts)
    pads = [longest - len(prompt) for prompt in prompts]
    ids = torch.tensor([[0] * pad + list(prompt) for pad, prompt in zip(pads, prompts, strict=True)], device=place)
    mask = torch.tensor([[0] * pad + [1] * (longest - pad) for pad in pads], device=place)
    return ids, mask


def stop_ids(model: Any, chat: ChatFormat) -> frozenset[int]:
    """Every token that ends a reply: the chat's end of turn, and what the model's makers name."""
    configured = model.generation_config.eos_token_id
    named = configured if isinstance(configured, list) else [configured]
    return frozenset([*chat.end_of_turn, *(one for one in named if one is not None)])
