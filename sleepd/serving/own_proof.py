"""For an agent in Python: what its model answers with, proved by its answers, without a server. It needs torch."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from sleepd.policy.identification import identify
from sleepd.protocol.chat_example import as_openai
from sleepd.protocol.deployment.adapter_fingerprint import (
    CHANCES,
    REPLY_STEPS,
    AdapterFingerprint,
    PromptAnswer,
    PromptReference,
    TokenChance,
)
from sleepd.protocol.deployment.serve_messages import Generation

from .following import Following
from .proof import EngineProof, fingerprints_of

_CYCLE: Final = re.compile(r"cycle_([0-9]{1,9})")


def prove(following: Following, tokenizer: Any) -> EngineProof:
    """Ask the agent's own model the recorded prompts, and say which adapter answers.

    ``identity`` names this cycle, another one, the base, or neither. ``is_wanted``: it is what ``following.adapter``
    says. The long prompt is left out: it finds a server's stale cache, and there is none here. This takes some seconds
    on a processor; call it after ``update`` has changed the adapter.

    Raises:
        CheckpointInvalid: a fingerprint of the adapter is damaged.
    """
    wanted = None if following.adapter is None else _generation(following.adapter)
    known = [_without_long(each) for each in fingerprints_of(wanted, _others(following.state))]
    identity = identify(known, ([_answer(following.model, tokenizer, one) for one in each.prompts] for each in known))
    return EngineProof(identity=identity, is_wanted=identity.is_named and identity.cycle == (wanted and wanted.cycle))


def _generation(directory: Path) -> Generation:
    named = _CYCLE.fullmatch(directory.name)
    return Generation(cycle=int(named[1]) if named else 0, directory=str(directory), sha256="")


def _others(state: Path) -> list[Generation]:
    """The champions that stand there, the newest first."""
    found = [_generation(path) for path in state.resolve().glob("cycle_*") if _CYCLE.fullmatch(path.name)]
    return sorted(found, key=lambda one: one.cycle, reverse=True)


def _without_long(fingerprint: AdapterFingerprint) -> AdapterFingerprint:
    prompts = tuple(one for one in fingerprint.prompts if one.kind != "long")
    return msgspec.structs.replace(fingerprint, prompts=prompts)


def _answer(model: Any, tokenizer: Any, prompt: PromptReference) -> PromptAnswer:
    """The likeliest tokens at each step, each behind the likeliest of those before it."""
    tools = msgspec.json.decode(prompt.tools) if prompt.tools else None
    messages = [as_openai(one) for one in prompt.messages]
    text = tokenizer.apply_chat_template(messages, tools=tools, add_generation_prompt=True, tokenize=False)
    asked = tokenizer(text, add_special_tokens=False)["input_ids"]
    steps = tuple(_steps(model, tokenizer, asked))
    said = tokenizer.decode([step[0].id for step in steps], skip_special_tokens=True)
    return PromptAnswer(text=said, steps=steps, prompt_tokens=len(asked))


def _steps(model: Any, tokenizer: Any, asked: list[int]) -> Iterator[tuple[TokenChance, ...]]:
    import torch

    device, ids = next(model.parameters()).device, list(asked)
    for _ in range(REPLY_STEPS):
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([ids], device=device)).logits[0, -1].float()
        best = logits.log_softmax(-1).topk(min(CHANCES, logits.shape[-1]))
        found = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        yield tuple(TokenChance(id=id_, text=tokenizer.decode([id_]), logprob=value) for id_, value in found)
        ids.append(int(best.indices[0]))
