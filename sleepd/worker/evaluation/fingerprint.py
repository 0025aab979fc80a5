"""``fingerprint.json``: how base, parent and candidate answer some prompts, to be found again in a running engine.

Asked are prompts that were trained, those first whose answers changed most, and reference prompts. One of these stands
behind a long text that is the same in every cycle: an engine that keeps what an earlier adapter computed for it answers
that one wrongly and the others rightly.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import torch

from sleepd.errors import DECODE_ERRORS
from sleepd.files import read_document, replace_file
from sleepd.policy.answer_distance import answers_apart
from sleepd.protocol.chat_example import ChatExample, Message
from sleepd.protocol.checkpoint.checkpoint_files import FINGERPRINT_FILE
from sleepd.protocol.deployment.adapter_fingerprint import (
    CHANCES,
    MAX_FILE_BYTES,
    REPLY_STEPS,
    VERSION,
    AdapterFingerprint,
    ModelAnswer,
    PromptKind,
    PromptReference,
    TokenChance,
)
from sleepd.protocol.job import Job
from sleepd.worker.data.chat_format import ChatFormat
from sleepd.worker.data.control_tokens import Refused
from sleepd.worker.data.messages import Context, with_ids
from sleepd.worker.data.template_limits import TemplateExceeded
from sleepd.worker.model.adapter import other_adapter
from sleepd.worker.model.device import Device
from sleepd.worker.model.generate import Asked, batched_replies
from sleepd.worker.model.inspect_base import most_positions
from sleepd.worker.model.loading import Loaded
from sleepd.worker.model.memory.memory_estimate import is_packed
from sleepd.worker.model.memory.out_of_memory import free_memory, is_out_of_memory
from sleepd.worker.process.process_memory import available_bytes

from .reference_answers import PROBE, REGULARISE, reference_prompts
from .system_messages import asked

TRAINED = 12
"""Trained prompts that are recorded."""
TRIED = 18
"""Trained prompts that are answered, so that the ones whose answers differ most can be chosen."""
REFERENCE = 3
"""Reference prompts that are recorded, beside the long one."""
LONGEST = 512
"""Tokens of a trained prompt. Of a longer one the last message of the user is asked alone."""
MOST_TOKENS = 3072
"""Tokens of all trained prompts that are answered: time and memory grow with them."""
LONG = 700
"""Tokens that stand before the question of the long prompt, at least."""
_QUESTION = "Which of these questions is the easiest to answer, and what is its answer?"
AT_ONCE = 8
"""Prompts that are answered side by side."""
PADDED = 1.5
"""Of those, the longest has at most so many times the tokens of the shortest."""


@dataclass(frozen=True)
class _Prompt:
    """A prompt as an endpoint is asked, and its tokens."""

    kind: PromptKind
    context: Context
    ids: list[int]


class NoFingerprint(Exception):
    """There is none; the message says why."""


def write_fingerprint(job: Job, loaded: Loaded, trained: Sequence[ChatExample], on_step: Callable[[int], None]) -> None:
    """Have base, parent and candidate answer, and write the answers beside the adapter.

    The model computes in float32 from here on, if there is enough free memory.

    Args:
        job: of the cycle.
        loaded: the base with the candidate.
        trained: what was trained, in the order in which prompts are taken from it.
        on_step: called with the number of tokens of each step.

    Raises:
        NoFingerprint: it cannot be made; nothing is written.
    """
    started = time.monotonic()
    if not loaded.chat.has_template:
        raise NoFingerprint("the base has no chat template, so that an engine is asked in a form of its own")
    prompts = [*_trained_prompts(job, loaded.chat, trained), *_reference_prompts(job, loaded)]
    prompts.sort(key=lambda one: len(one.ids))
    device = in_float32(loaded.model, loaded.device)
    dtype = str(device.dtype).removeprefix("torch.")
    answer = partial(_all_answers, partial(_answers, loaded, device, on_step, job.evaluation_seconds), prompts)
    try:
        references = _references(job, loaded, prompts, answer, _recorded(job, loaded, dtype, prompts))
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise NoFingerprint("memory ran out while the models answered one prompt") from error
    fingerprint = AdapterFingerprint(
        version=VERSION,
        cycle=job.cycle,
        parent=job.parent_cycle if job.parent else None,
        base_fingerprint=loaded.fingerprint,
        dtype=dtype,
        prompts=tuple(_chosen(references)),
        seconds=round(time.monotonic() - started, 3),
    )
    replace_file(Path(job.staging, FINGERPRINT_FILE), msgspec.json.encode(fingerprint))


def work(job: Job, trained: Sequence[Any]) -> float:
    """About what it costs, in forward tokens."""
    tokens = float(min(MOST_TOKENS, sum(min(one.prompt_tokens, LONGEST) for one in trained[:TRIED])))
    if job.parent:  # whose own fingerprint has the answers of parent and base to the reference prompts
        return 3.0 * tokens + 2 * LONG
    return 2.0 * (tokens + 2 * LONG)


# The prompts


def _trained_prompts(job: Job, chat: ChatFormat, trained: Sequence[ChatExample]) -> Iterator[_Prompt]:
    """Different ones; those without tools first, because engines write tools in ways of their own."""
    seen: set[tuple[Message, ...]] = set()
    left, number = MOST_TOKENS, 0
    for example in sorted(trained, key=_uses_tools):
        found = _fitting(job, chat, example)
        if found is None or found.context.messages in seen or len(found.ids) > left:
            continue
        seen.add(found.context.messages)
        left -= len(found.ids)
        number += 1
        yield found
        if number == TRIED:
            return


def _uses_tools(example: ChatExample) -> bool:
    return bool(example.tools) or any(one.calls or one.role == "tool" for one in example.messages)


def _fitting(job: Job, chat: ChatFormat, example: ChatExample) -> _Prompt | None:
    """The example's prompt, or its last question alone; None: both are too long, or cannot be written."""
    whole = _prompt(job, chat, "trained", example)
    if whole is not None and len(whole.ids) <= LONGEST:
        return whole
    system = next((one.text for one in example.messages if one.role == "system"), "")
    alone = _prompt(job, chat, "trained", asked(example.prompt, system))
    return alone if alone is not None and len(alone.ids) <= LONGEST else None


def _reference_prompts(job: Job, loaded: Loaded) -> list[_Prompt]:
    """Some that training never uses, and the long one where the model has positions for it."""
    texts = reference_prompts(PROBE)[:REFERENCE]
    found = [_prompt(job, loaded.chat, "reference", asked(text)) for text in texts]
    found.append(_prompt(job, loaded.chat, "long", asked(_long_text(loaded.chat))))
    most = (most_positions(loaded.model.config) or 10**9) - REPLY_STEPS
    return [one for one in found if one is not None and len(one.ids) <= most]


def _long_text(chat: ChatFormat) -> str:
    """Reference prompts, one a line, as many as are needed, and a question behind them."""
    lines: list[str] = []
    tokens = 0
    known = reference_prompts(REGULARISE)
    while tokens < LONG:
        lines.append(f"{len(lines) + 1}. {known[len(lines) % len(known)]}")
        tokens += chat.count(lines[-1])
    return "\n".join([*lines, "", _QUESTION])


def _prompt(job: Job, chat: ChatFormat, kind: PromptKind, example: ChatExample) -> _Prompt | None:
    """The prompt as it is sent and as it is trained; None: the chat template does not take it."""
    context, _ = with_ids(Context(example.messages, example.tools), ())
    try:
        shown = chat.shown(context)
        ids = chat.asked_ids(shown)
    except (Refused, TemplateExceeded):
        return None
    return _Prompt(kind, replace(shown, messages=_as_sent(job, chat, shown.messages)), ids)


def _as_sent(job: Job, chat: ChatFormat, messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """With the system prompt in its place: at the beginning, or in the user's first turn where there is no system."""
    if job.system_prompt and not any(one.role == "system" for one in messages):
        messages = (Message(role="system", text=job.system_prompt), *messages)
    first, *rest = messages
    if chat.template.folds_system and first.role == "system" and rest:
        return (msgspec.structs.replace(rest[0], text=f"{first.text}\n\n{rest[0].text}"), *rest[1:])
    return messages


# The answers


def in_float32(model: Any, device: Device) -> Device:
    """The model in float32 where at most half of the free memory goes into that; else as it is.

    Packed layers compute in the number type that they were loaded for, so a model that has some stays as it is.
    """
    if any(map(is_packed, model.parameters())):
        return device
    weights = [*model.parameters(), *model.buffers()]
    more = sum(4 * one.numel() - one.nbytes for one in weights if one.is_floating_point())
    free_memory()
    is_cuda = device.torch_device.type == "cuda"
    room = torch.cuda.mem_get_info(device.torch_device)[0] if is_cuda else available_bytes()
    if 2 * more > room:
        return device
    model.float()
    return replace(device, dtype=torch.float32)


def _recorded(job: Job, loaded: Loaded, dtype: str, prompts: Sequence[_Prompt]) -> dict[int, PromptReference]:
    """What the parent's own fingerprint has of these prompts, by number: the same weights would answer the same."""
    if not job.parent:
        return {}
    try:
        found = msgspec.json.decode(
            read_document(Path(job.parent, FINGERPRINT_FILE), MAX_FILE_BYTES), type=AdapterFingerprint
        )
    except (OSError, *DECODE_ERRORS):  # none, or of another version: all is computed
        return {}
    of_parent = (found.version, found.cycle, found.base_fingerprint, found.dtype)
    if of_parent != (VERSION, job.parent_cycle, loaded.fingerprint, dtype):
        return {}
    known = {(one.messages, one.tools, one.prompt_tokens): one for one in found.prompts}
    keys = [(one.context.messages, one.context.tools, len(one.ids)) for one in prompts]
    return {number: known[key] for number, key in enumerate(keys) if key in known}


def _all_answers(
    answer: Callable[[Sequence[_Prompt]], list[ModelAnswer]],
    prompts: Sequence[_Prompt],
    known: Mapping[int, ModelAnswer],
) -> list[ModelAnswer]:
    """To all prompts: those that are known, by number, and the others computed."""
    others = [number for number in range(len(prompts)) if number not in known]
    found = dict(zip(others, answer([prompts[number] for number in others]), strict=True))
    return [known[number] if number in known else found[number] for number in range(len(prompts))]


def _answers(
    loaded: Loaded, device: Device, on_step: Callable[[int], None], seconds: float, prompts: Sequence[_Prompt]
) -> list[ModelAnswer]:
    """What the model answers as it stands: the likeliest tokens at each step."""
    deadline = time.monotonic() + seconds
    steps: list[list[tuple[TokenChance, ...]]] = [[] for _ in prompts]
    decode = loaded.chat.tokenizer.decode

    def record(before: int, first: int, step: int, logits: torch.Tensor) -> None:
        best = logits.log_softmax(-1).topk(min(CHANCES, logits.shape[-1]), dim=-1)
        for row, (values, ids) in enumerate(zip(best.values.tolist(), best.indices.tolist(), strict=True)):
            found = zip(ids, values, strict=True)
            chances = tuple(TokenChance(id=id_, text=decode([id_]), logprob=round(value, 4)) for id_, value in found)
            steps[before + first + row][step:] = [chances]

    replies: list[list[int] | None] = []
    for batch in _alike(prompts):
        replies += batched_replies(
            loaded.model,
            device,
            [Asked(one.ids, REPLY_STEPS) for one in batch],
            at_once=len(batch),
            stop_ids=loaded.stop_ids,
            on_step=on_step,
            deadline=deadline,
            on_logits=partial(record, len(replies)),
        )
    if None in replies:
        raise NoFingerprint("[evaluation] seconds did not suffice for the answers of base, parent and candidate")
    return [
        ModelAnswer(steps=_told(found[: len(ids) + 1]), text=decode(ids, skip_special_tokens=True))
        for found, ids in zip(steps, (reply or [] for reply in replies), strict=True)
    ]


def _told(steps: Sequence[tuple[TokenChance, ...]]) -> tuple[tuple[TokenChance, ...], ...]:
    """The steps up to the first token that is part of a character: llama.cpp leaves it out of its list."""
    return tuple(itertools.takewhile(lambda step: "\ufffd" not in step[0].text, steps[:REPLY_STEPS]))


def _alike(prompts: Sequence[_Prompt]) -> Iterator[list[_Prompt]]:
    """The prompts in their order, in batches of similar length: a short one is padded to the longest beside it."""
    batch: list[_Prompt] = []
    for prompt in prompts:
        if batch and (len(batch) == AT_ONCE or len(prompt.ids) > PADDED * len(batch[0].ids)):
            yield batch
            batch = []
        batch.append(prompt)
    yield batch


def _references(
    job: Job,
    loaded: Loaded,
    prompts: Sequence[_Prompt],
    answer: Callable[[Mapping[int, ModelAnswer]], list[ModelAnswer]],
    recorded: Mapping[int, PromptReference],
) -> list[PromptReference]:
    """Every prompt with the answers of all models."""
    parent: list[ModelAnswer] | None = None
    candidate = answer({})
    with loaded.model.disable_adapter():
        base = answer({number: one.base for number, one in recorded.items()})
    if job.parent:
        with other_adapter(loaded.model, Path(job.parent)):
            parent = answer({number: one.candidate for number, one in recorded.items()})
    return [
        PromptReference(
            kind=prompt.kind,
            messages=prompt.context.messages,
            tools=prompt.context.tools,
            prompt_tokens=len(prompt.ids),
            base=base[number],
            candidate=candidate[number],
            parent=parent[number] if parent else None,
        )
        for number, prompt in enumerate(prompts)
    ]


def _chosen(references: Sequence[PromptReference]) -> list[PromptReference]:
    """The trained prompts on which the candidate is farthest from the nearest other model, then the reference ones."""
    trained = [one for one in references if one.kind == "trained"]
    return [*sorted(trained, key=_gap, reverse=True)[:TRAINED], *(one for one in references if one.kind != "trained")]


def _gap(reference: PromptReference) -> float:
    """To the nearest other model; 0 where nothing can be compared, as where the first token is part of a character."""
    others = [reference.base] + ([reference.parent] if reference.parent else [])
    gap = min(answers_apart(reference.candidate, other) for other in others)
    return gap if math.isfinite(gap) else 0.0
