"""Replies to several prompts at once, greedy or sampled."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from sleepd.worker.data.chat_format import ChatFormat
from sleepd.worker.failure import NOT_FINITE_HINT, GiveUp

from .device import Device, computing
from .inspect_base import most_positions
from .memory.out_of_memory import free_memory, is_out_of_memory

TEMPERATURE = 0.8
"""Of sampled replies; the whole vocabulary takes part."""


PROMPT_TOKENS = 8192
"""Most tokens of prompts that are read side by side, padding included: the memory grows with them and their length."""


OnLogits = Callable[[int, int, torch.Tensor], None]
"""Called at each step with the number of the first prompt, the number of the step, and the logits [prompts,
vocabulary], before a token is chosen. A step that ran out of memory comes again."""


@dataclass(frozen=True)
class Asked:
    """One prompt to be replied to."""

    prompt: Sequence[int]
    """Token ids; at least one."""
    max_new_tokens: int
    seed: int | None = None
    """None: greedy; else sampled, with random numbers of its own, whoever is asked beside it."""


def greedy_replies(
    model: Any,
    device: Device,
    prompts: Sequence[Sequence[int]],
    *,
    stop_ids: frozenset[int],
    max_new_tokens: int,
    on_step: Callable[[int], None] = lambda _tokens: None,
) -> list[list[int]]:
    """The most likely continuation of each prompt; see ``replies``."""
    asked = [Asked(prompt, max_new_tokens) for prompt in prompts]
    return [ids or [] for ids in replies(model, device, asked, stop_ids=stop_ids, on_step=on_step)]


@torch.no_grad()
def replies(
    model: Any,
    device: Device,
    asked: Sequence[Asked],
    *,
    stop_ids: frozenset[int],
    on_step: Callable[[int], None] = lambda _tokens: None,
    deadline: float | None = None,
    on_logits: OnLogits | None = None,
) -> list[list[int] | None]:
    """A reply to each prompt, up to a stop token, which is left out; None: time ran out before it was complete.

    All are made side by side, so that the weights are read once. A token of ``stop_ids`` ends a reply. ``on_step`` is
    called before a step with the number of its tokens. Past ``deadline`` (monotonic clock) no step begins.
    """
    say = partial(_side_by_side, model, device, stop_ids=stop_ids, on_step=on_step, deadline=deadline)
    # A recurrent model would take padding for text.
    if _cache_name(model) or len(asked) == 1:
        try:
            return say(asked, on_logits=on_logits)
        except _NotNumbers as error:
            # Places of padding see nothing, which some kernels answer with NaN; alone there is no padding.
            if len(asked) == 1:
                text = "the model's predictions for a reply are not numbers"
                raise GiveUp("not_finite", text, NOT_FINITE_HINT) from error
    alone = partial(replies, model, device, stop_ids=stop_ids, on_step=on_step, deadline=deadline)
    return [alone([one], on_logits=_behind(number, on_logits))[0] for number, one in enumerate(asked)]


class _NotNumbers(Exception):
    """The logits of a reply are NaN."""


def _side_by_side(
    model: Any,
    device: Device,
    asked: Sequence[Asked],
    *,
    stop_ids: frozenset[int],
    on_step: Callable[[int], None],
    deadline: float | None,
    on_logits: OnLogits | None,
) -> list[list[int] | None]:
    """As ``replies``; raises ``_NotNumbers`` where a logit is NaN."""
    cache_name = _cache_name(model)
    ids, mask = _padded(_fitting(asked, most_positions(model.config)), device.torch_device)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    noise = [_noise(one.seed, device.torch_device) for one in asked]
    found, is_open = [list[int]() for _ in asked], [True] * len(asked)
    caching: dict[str, Any] = {"use_cache": bool(cache_name)}
    step = 0
    while any(is_open) and (deadline is None or time.monotonic() <= deadline):
        on_step(ids.numel())
        with computing(device):
            out = model(
                input_ids=ids, attention_mask=mask, position_ids=positions, logits_to_keep=_last_place(ids), **caching
            )
        logits = out.logits[:, -1].float()
        chosen = _choose(logits, noise)
        if on_logits:
            on_logits(0, step, logits)
        for row, token in enumerate(chosen.tolist()):
            is_open[row] = is_open[row] and _goes_on(found[row], token, stop_ids, asked[row].max_new_tokens)
        mask = torch.cat([mask, mask.new_ones(len(asked), 1)], dim=1)
        grown = getattr(out, "past_key_values", None) if cache_name else None
        ids, positions = _fed(ids, positions, chosen, is_remembered=grown is not None)
        if grown is not None:
            caching[cache_name] = grown
        step += 1
    return [None if open_ else reply for reply, open_ in zip(found, is_open, strict=True)]


def _behind(first: int, on_logits: OnLogits | None) -> OnLogits | None:
    """The same, told of prompts that stand behind so many others."""
    if on_logits is None:
        return None
    return lambda number, step, logits: on_logits(first + number, step, logits)


def _last_place(ids: torch.Tensor) -> torch.Tensor:
    """Where the logits are wanted.

    With the number 1 the model would take a slice, which has gaps in memory, and torch would multiply it by a copy of
    the head for each row: 3.4 GiB for 64 rows on a model of 135 M weights. A tensor makes it copy the places.
    """
    return torch.tensor([ids.shape[1] - 1], device=ids.device)


def _goes_on(reply: list[int], token: int, stop_ids: frozenset[int], most: int) -> bool:
    """Take the next token of a reply in, unless it ends it; says whether there is more to come."""
    if token in stop_ids:
        return False
    reply.append(token)
    return len(reply) < most


def batched_replies(
    model: Any,
    device: Device,
    asked: Sequence[Asked],
    *,
    at_once: int,
    stop_ids: frozenset[int],
    on_step: Callable[[int], None] = lambda _tokens: None,
    deadline: float | None = None,
    on_logits: OnLogits | None = None,
) -> list[list[int] | None]:
    """See ``replies``: at most ``at_once`` of them and ``PROMPT_TOKENS`` side by side, or one prompt that is longer.

    Fewer where memory runs out, down to one, which is tried again once all is given back.
    """
    say = partial(replies, model, device, stop_ids=stop_ids, on_step=on_step, deadline=deadline)
    found: list[list[int] | None] = []
    has_failed = False
    longest = max((len(one.prompt) for one in asked), default=1)
    at_once = max(1, min(at_once, PROMPT_TOKENS // longest))
    while len(found) < len(asked):
        batch = asked[len(found) : len(found) + at_once]
        try:
            found += say(batch, on_logits=_behind(len(found), on_logits))
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error) or (len(batch) == 1 and has_failed):
                raise
            at_once, has_failed = max(1, len(batch) // 2), True
        else:
            has_failed = False
            continue
        # Outside the handler, whose traceback would keep the failed attempt's tensors alive.
        free_memory()
    return found


def _cache_name(model: Any) -> str:
    """What this model calls its cache of keys and values: newer transformers have another name for it.

    Empty where it has none that grows with the tokens, as recurrent ones: each step then reads the whole text again.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    parameters = inspect.signature(base.forward).parameters
    return next((name for name in ("past_key_values", "cache") if name in parameters), "")


def _fed(
    ids: torch.Tensor, positions: torch.Tensor, chosen: torch.Tensor, *, is_remembered: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """What the next step reads: the chosen tokens alone where the model remembers the rest, else all of the text."""
    new, places = chosen[:, None], positions[:, -1:] + 1
    return (new, places) if is_remembered else (torch.cat([ids, new], dim=1), torch.cat([positions, places], dim=1))


def _fitting(asked: Sequence[Asked], positions: int | None) -> list[Sequence[int]]:
    """The prompts, without their beginnings where prompt and reply together exceed the model's positions."""
    if positions is None:
        return [one.prompt for one in asked]
    room = positions - max(one.max_new_tokens for one in asked)
    return [one.prompt[-room:] for one in asked]


def _noise(seed: int | None, place: torch.device) -> torch.Generator | None:
    """Random numbers where the model is: drawn elsewhere, a whole vocabulary of them would travel at each step."""
    return None if seed is None else torch.Generator(place).manual_seed(seed)


def _choose(logits: torch.Tensor, noise: Sequence[torch.Generator | None]) -> torch.Tensor:
    """[rows] tokens, from logits [rows, vocabulary]: the likeliest, or with noise one that is drawn at ``TEMPERATURE``.

    Drawn by the Gumbel-max trick (argmax of logit / T - log(-log(u)), Gumbel 1954): two models with the same noise
    differ only where their distributions do.

    Raises:
        _NotNumbers: a logit is NaN.
    """
    for row, generator in enumerate(noise):
        if generator is not None:
            uniform = torch.rand(logits.shape[-1], generator=generator, device=logits.device).clamp(min=1e-20)
            logits[row] = logits[row] / TEMPERATURE - (-uniform.log()).log()
    best, chosen = logits.max(-1)
    if bool(best.isnan().any()):
        raise _NotNumbers
    return chosen


def _padded(prompts: Sequence[Sequence[int]], place: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and attention mask, each [prompts, longest], with the padding on the left."""
    longest = max(len(prompt) for prompt in prompts)
    pads = [longest - len(prompt) for prompt in prompts]
    ids = torch.tensor([[0] * pad + list(prompt) for pad, prompt in zip(pads, prompts, strict=True)], device=place)
    mask = torch.tensor([[0] * pad + [1] * (longest - pad) for pad in pads], device=place)
    return ids, mask


def stop_ids(model: Any, chat: ChatFormat) -> frozenset[int]:
    """Every token that ends a reply: the chat's end of turn, and what the model's makers name."""
    return frozenset([*([] if chat.stop_id is None else [chat.stop_id]), *named_stops(model.generation_config)])


def named_stops(generation_config: Any) -> list[int]:
    """The tokens at which generation stops, as the model's makers name them."""
    configured = getattr(generation_config, "eos_token_id", None)
    named = configured if isinstance(configured, list) else [configured]
    return [one for one in named if one is not None]
