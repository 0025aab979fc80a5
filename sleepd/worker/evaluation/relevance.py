"""Whether what is taught answers its prompts: reply losses of the base, under the own prompt and under another one.

A reply that follows a tool's result follows from that more than from the question. So where another reply follows calls
and results in the same order, they are moved with its question.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from sleepd.buffer.experience import prompt_hash
from sleepd.policy.judging.relevance_gate import is_enough
from sleepd.protocol.chat_example import Message
from sleepd.protocol.evidence import Relevance, ReplyLosses
from sleepd.protocol.job import TrainingExample
from sleepd.worker.data.chat_format import ChatFormat
from sleepd.worker.data.examples import Encoded, encode_chat

from .loss_evaluator import LossEvaluator, require_finite

MOST = 24
"""Replies that are read."""
_OTHER = "other:"
"""Stands before the id of an experience whose reply follows another prompt."""


class Pair(NamedTuple):
    """One reply after its own prompt and after another."""

    own: Encoded
    other: Encoded
    prompt: int
    """Hash of its own."""


def chosen_examples(examples: Sequence[TrainingExample]) -> list[TrainingExample]:
    """At most ``MOST``: one of every prompt, then a second one, and so on; new ones first, then by rank."""
    ranked = sorted(examples, key=lambda one: (one.role != "train", one.order, one.id))
    turn: Counter[int] = Counter()
    in_turn = []
    for place, example in enumerate(ranked):
        key = prompt_hash(example.prompt)
        in_turn.append((turn[key], place, example))
        turn[key] += 1
    return [example for _, _, example in sorted(in_turn, key=lambda one: one[:2])[:MOST]]


def encode_both(chat: ChatFormat, examples: Sequence[TrainingExample], max_tokens: int) -> list[Pair]:
    """Each reply after what it answers and after what another one answers: of those with another prompt and calls in
    the same order the next in a ring, else the next of all. What would be cut is left out.
    """
    keys, found = [prompt_hash(one.prompt) for one in examples], []
    for number, (key, example) in enumerate(zip(keys, examples, strict=True)):
        ring = [*range(number + 1, len(examples)), *range(number)]
        others = [examples[place] for place in ring if keys[place] != key]
        if not others:
            return []  # all ask the same
        another = next((one for one in others if _roles(_asked(one)) == _roles(_asked(example))), others[0])
        own = encode_chat(chat, example.id, example, max_tokens)
        other = encode_chat(chat, _OTHER + example.id, _behind(example, another), max_tokens)
        if own and other and not (own.is_truncated or other.is_truncated):
            found.append(Pair(own, other, key))
    return found


def _asked(example: TrainingExample) -> tuple[Message, ...]:
    """The last message of the user, and the calls and results behind it."""
    last = max((number for number, one in enumerate(example.context) if one.role == "user"), default=0)
    return example.context[last:]


def _roles(messages: Sequence[Message]) -> list[str]:
    return [one.role for one in messages]


def _behind(example: TrainingExample, another: TrainingExample) -> TrainingExample:
    """The same reply behind what another one answers."""
    moved, own = with_prompt(example, another.prompt), _asked(example)
    if len(own) <= 1 or _roles(own) != _roles(_asked(another)):
        return moved
    return msgspec.structs.replace(moved, context=(*example.context[: -len(own)], *_asked(another)))


def with_prompt(example: TrainingExample, prompt: str) -> TrainingExample:
    """The same example where the last message of the user is another one."""
    last = max((number for number, one in enumerate(example.context) if one.role == "user"), default=None)
    context = example.context
    if last is not None:
        context = (*context[:last], Message(role="user", text=prompt), *context[last + 1 :])
    return msgspec.structs.replace(example, prompt=prompt, context=context)


def measure(evaluator: LossEvaluator, sequences: Sequence[Pair]) -> Relevance:
    """What the model, which must be the base, makes of them; of too few nothing is measured.

    Raises:
        GiveUp: a loss is not finite, or ``out_of_memory``.
        Shortened: there is room only for shorter sequences.
    """
    prompts = len({pair.prompt for pair in sequences})
    if not is_enough(replies=len(sequences), prompts=prompts):
        return Relevance(prompts=prompts, replies=len(sequences), losses=[])
    losses = evaluator.losses([one for pair in sequences for one in (pair.own, pair.other)])
    require_finite([one.total for one in losses.values()])
    return Relevance(
        prompts=prompts,
        replies=len(sequences),
        losses=[
            ReplyLosses(id=own.id, tokens=own.supervised, own=losses[own.id].mean, other=losses[other.id].mean)
            for own, other, _ in sequences
        ],
    )
