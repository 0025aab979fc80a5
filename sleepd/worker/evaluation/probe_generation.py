"""What base, parent and candidate are asked, all of them the same, in the same way, with the same random numbers.

In three ways, for a damaged adapter may show itself in any of them: greedy, sampled, and as a talk in which each model
has its own replies before it. What a model said to the shipped prompts is kept beside its weights and not asked again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from sleepd.errors import DECODE_ERRORS
from sleepd.files import replace_file
from sleepd.protocol.chat_example import ChatExample
from sleepd.protocol.checkpoint.checkpoint_files import WEIGHTS_FILE
from sleepd.protocol.evidence import RecallQuestion
from sleepd.protocol.job import TrainingExample
from sleepd.worker.data.chat_format import ChatFormat
from sleepd.worker.data.control_tokens import Refused
from sleepd.worker.data.examples import asked_ids
from sleepd.worker.model.device import Device
from sleepd.worker.model.generate import TEMPERATURE, Asked, batched_replies

from .reference_answers import PROBE, forget_old, reference_prompts
from .system_messages import system_of, under

REPLIES = 8
"""Held-out prompts that are replied to."""
REPLY_TOKENS = 96
PROBES = 12
"""Of the shipped probe prompts, so many are replied to; drift is measured on all of them."""
PROBE_TOKENS = 48
RECALL_TOKENS = 48
TALKS = 4
"""Begin with the sampled replies to so many of the probe prompts, and go on from there."""
TALK_TOKENS = 32
FOLLOW_UPS = ("Go on, tell me more about that.", "What do you make of it yourself?")
AT_ONCE = 32
"""Most replies that are made side by side."""
DECODING_WORK = 24.0
"""Forward tokens that one step of generation costs beside its own: it reads all weights for few tokens."""


class Answers(msgspec.Struct, frozen=True, kw_only=True):
    """What one model said. A way in which time ran out is None as a whole: what is missing may be what went wrong."""

    held_out: list[str | None] = []
    """Greedy, to held-out prompts; None: time ran out before it was complete."""
    recall: list[str | None] = []
    """Greedy, to the operator's questions; None as above."""
    greedy: list[str] | None = None
    """To the probe prompts."""
    sampled: list[str] | None = None
    """To the probe prompts, at ``TEMPERATURE``."""
    talk: list[str] | None = None
    """All replies of all talks, one talk after the other."""


class HeldOut(msgspec.Struct, frozen=True, kw_only=True):
    """A held-out experience to which each model replies."""

    id: str
    prompt: str
    """To be read."""
    ids: list[int]
    """All that the model is asked with: what stood before the reply."""


class Questions(msgspec.Struct, frozen=True, kw_only=True):
    """What every model is asked."""

    held_out: list[HeldOut]
    recall: list[str]
    probes: list[ChatExample]
    """Each under the configured system prompt, or under a system message that occurs."""

    @property
    def work(self) -> float:
        """Of answering them all, in forward tokens."""
        work = 0.0
        for number, tokens in (
            (len(self.held_out), REPLY_TOKENS),
            (len(self.recall), RECALL_TOKENS),
            (2 * len(self.probes), PROBE_TOKENS),
            (min(TALKS, len(self.probes)), TALK_TOKENS * len(FOLLOW_UPS)),
        ):
            batches = -(-number // AT_ONCE)
            work += tokens * (DECODING_WORK * batches + number)
        return work


def questions(held_out: Sequence[HeldOut], recall: Sequence[RecallQuestion], systems: Mapping[str, int]) -> Questions:
    """The held-out experiences; the operator's questions; the shipped probe prompts under these system messages."""
    return Questions(
        held_out=list(held_out),
        recall=[one.question for one in recall],
        probes=under(systems, shipped_prompts()),
    )


def to_reply_to(chat: ChatFormat, examples: Sequence[TrainingExample], max_tokens: int) -> list[HeldOut]:
    """Up to eight different held-out prompts, each with what stood before it, as far as there is room for it."""
    found = []
    for example in pick_for_replies(examples):
        with contextlib.suppress(Refused):
            ids = asked_ids(chat, example, max_tokens)
            found.append(HeldOut(id=example.id, prompt=example.prompt, ids=ids))
    return found


def shipped_prompts() -> list[str]:
    """The probe prompts to which replies are made. Drift is measured on all of them, which costs less."""
    return reference_prompts(PROBE)[:PROBES]


def pick_for_replies(examples: Sequence[TrainingExample]) -> list[TrainingExample]:
    """Up to eight examples of different prompts: asked the same twice, a model would loop twice."""
    first_with = {example.prompt: example for example in reversed(examples)}
    return [example for example in examples if first_with[example.prompt] is example][:REPLIES]


@dataclass
class ProbeGenerator:
    """Asks a model, as it stands, adapter or not."""

    model: Any
    device: Device
    chat: ChatFormat
    stop_ids: frozenset[int]
    max_prompt_tokens: int
    seconds: float
    """Most time for one model."""
    on_step: Callable[[int], None]
    """Called before each step with the number of tokens that it computes."""

    def ask(self, asked: Questions, *, known: Answers | None = None) -> Answers:
        """All answers of the model. ``known``: what it said to the shipped prompts before, which is not asked again."""
        deadline = time.monotonic() + self.seconds
        held_out = self._replies([Asked(one.ids, REPLY_TOKENS) for one in asked.held_out], deadline)
        recall = self._replies([self._asked([one], RECALL_TOKENS) for one in asked.recall], deadline)
        shipped = known or self._shipped(asked.probes, deadline)
        return msgspec.structs.replace(shipped, held_out=held_out, recall=recall)

    def _shipped(self, probes: Sequence[ChatExample], deadline: float) -> Answers:
        systems = [system_of(probe, "") for probe in probes]
        asked = list(zip([[probe.prompt] for probe in probes], systems, strict=True))
        greedy = [self._asked(turns, PROBE_TOKENS, system=system) for turns, system in asked]
        sampled = [self._asked(turns, PROBE_TOKENS, seed, system) for seed, (turns, system) in enumerate(asked)]
        both = self._replies([*greedy, *sampled], deadline)
        said = _all_or_none(both[len(probes) :])
        return Answers(
            greedy=_all_or_none(both[: len(probes)]),
            sampled=said,
            talk=None if said is None else self._talk(probes, said, deadline),
        )

    def _talk(self, probes: Sequence[ChatExample], said: Sequence[str], deadline: float) -> list[str] | None:
        """Sampled, so that a small base, which repeats itself when it is greedy, is no bad example to itself."""
        chosen = list(zip(probes, said, strict=True))[:: max(1, len(probes) // TALKS)][:TALKS]
        talks = [[probe.prompt, reply] for probe, reply in chosen]
        systems = [system_of(probe, "") for probe, _ in chosen]
        for turn, follow_up in enumerate(FOLLOW_UPS):
            for talk in talks:
                talk.append(follow_up)
            seeds = [1000 * (turn + 1) + number for number in range(len(talks))]
            openings = zip(talks, seeds, systems, strict=True)
            asked = [self._asked(talk, TALK_TOKENS, seed, system) for talk, seed, system in openings]
            for talk, reply in zip(talks, self._replies(asked, deadline), strict=True):
                if reply is None:
                    return None
                talk.append(reply)
        return [reply for talk in talks for reply in talk[1::2]]

    def _asked(self, turns: Sequence[str], max_new_tokens: int, seed: int | None = None, system: str = "") -> Asked:
        return Asked(self.chat.talk_ids(turns, system)[-self.max_prompt_tokens :], max_new_tokens, seed)

    def _replies(self, asked: Sequence[Asked], deadline: float) -> list[str | None]:
        found = batched_replies(
            self.model,
            self.device,
            asked,
            at_once=AT_ONCE,
            stop_ids=self.stop_ids,
            on_step=self.on_step,
            deadline=deadline,
        )
        decode = self.chat.tokenizer.decode
        return [None if ids is None else str(decode(ids, skip_special_tokens=True)).strip() for ids in found]


def _all_or_none(found: Sequence[str | None]) -> list[str] | None:
    complete = [one for one in found if one is not None]
    return complete if len(complete) == len(found) else None


def _is_complete(answers: Answers) -> bool:
    return None not in (answers.greedy, answers.sampled, answers.talk)


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """Answers to the shipped prompts, in a file."""

    key: str
    """Changes with all that they depend on."""
    answers: Answers


def answers_key(
    base_fingerprint: str,
    system_prompt: str,
    probes: Sequence[ChatExample],
    chat: ChatFormat,
    device: Device,
    adapter: Path | None,
) -> str:
    """Of a model, its prompts and its way of computing, what its answers to the shipped prompts depend on.

    Args:
        base_fingerprint: of the base.
        system_prompt: what it runs with.
        probes: the shipped prompts, under their system messages.
        chat: how it is asked.
        device: where it runs, and in what.
        adapter: directory of its adapter, of which the weights count; None: the base alone.
    """
    prompts = [[system, one.prompt] if (system := system_of(one, "")) else one.prompt for one in probes]
    asked = [prompts, PROBE_TOKENS, TALKS, TALK_TOKENS, FOLLOW_UPS, TEMPERATURE]
    weights = hashlib.sha256((adapter / WEIGHTS_FILE).read_bytes()).hexdigest() if adapter else ""
    whole = [base_fingerprint, system_prompt, chat.digest, device.kind, weights, *asked]
    return hashlib.sha256(json.dumps(whole).encode()).hexdigest()


def kept_answers(path: Path, key: str) -> Answers | None:
    """What was kept there under that key; None: nothing, or it is damaged, and then they are made again."""
    try:
        kept = msgspec.json.decode(path.read_bytes(), type=Kept)
    except (OSError, *DECODE_ERRORS):
        return None
    return kept.answers if kept.key == key and _is_complete(kept.answers) else None


def keep_answers(path: Path, key: str, answers: Answers) -> None:
    """Keep those to the shipped prompts, if they are complete."""
    if _is_complete(answers):
        shipped = msgspec.structs.replace(answers, held_out=[], recall=[])
        replace_file(path, msgspec.json.encode(Kept(key=key, answers=shipped)))
        forget_old(path.parent, "replies-*.json")
