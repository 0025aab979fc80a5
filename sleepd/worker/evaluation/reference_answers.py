"""The base's answers to reference prompts: training is regularised towards them, which limits the drift (KL)."""

from __future__ import annotations

import hashlib
import json
import os
import random
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from sleepd.files import replace_file
from sleepd.protocol.chat_example import ChatExample
from sleepd.protocol.strategy import Strategy
from sleepd.worker.data.chat_format import ChatFormat
from sleepd.worker.data.examples import Encoded, encode_generated
from sleepd.worker.model.device import Device
from sleepd.worker.model.generate import Asked, batched_replies

from .system_messages import system_of

ANSWER_TOKENS = 32
"""Longest answer of the base that is kept: what a regulariser needs of it, and no more than seconds to make."""
ANSWER_BATCH = 64
KEPT_FILES = 16
"""Of answers, and of replies, one for each system message or set of them: those that were used last."""
SHIPPED = "base_answers.json"
"""Made by ``tests/bench/make_base_answers.py``."""
REGULARISE, MONITOR, PROBE = "regularise", "monitor", "probe"
"""The three sets, and the prefix of a reference prompt's id (an experience has its own id)."""


@dataclass(frozen=True)
class Prompts:
    """The reference prompts of one cycle."""

    regularise: list[str]
    monitor: list[str]
    probe: list[str]


def reference_prompts(kind: str) -> list[str]:
    """The shipped prompts of that kind."""
    text = resources.files(__package__).joinpath("reference_prompts.toml").read_text(encoding="utf-8")
    return list(tomllib.loads(text)[kind])


def chosen_prompts(strategy: Strategy, seed: int, steps: int) -> Prompts:
    """What a cycle of so many steps regularises on, others in every cycle, and is monitored with; and the probes."""
    known = reference_prompts(REGULARISE)
    count = min(strategy.kl_prompts, len(known), steps * strategy.kl_batch_size) if strategy.kl_weight > 0 else 0
    chosen = random.Random(seed).sample(known, count)  # noqa: S311 - no secret
    monitor = reference_prompts(MONITOR) if strategy.drift_budget is not None else []
    return Prompts(chosen, monitor, reference_prompts(PROBE))


def base_answers(
    model: Any,
    device: Device,
    chat: ChatFormat,
    asked: Sequence[ChatExample],
    stop_ids: frozenset[int],
    cache: Callable[[str], Path] | None,
    on_step: Callable[[int], None],
    deadline: float | None = None,
) -> list[str | None]:
    """The base's greedy answers, made once for each base and system message and then read from a file.

    Those of the embedded base under the empty system prompt are shipped: on another machine it may have rounded
    otherwise, but all that is measured on an answer is measured on it as it is written.

    ``cache`` gives the file for a system message, which is empty for the configured one. ``model`` must be the base:
    without an adapter, or with it disabled. ``on_step`` is called with tokens computed. None: time ran out before the
    answer was complete. Past ``deadline`` (monotonic clock) no step begins. An answer that is missing is not cached, so
    the next call asks for it again.
    """
    by_system: dict[str, list[ChatExample]] = {}
    for one in asked:
        by_system.setdefault(system_of(one, ""), []).append(one)
    known = {system: _shipped(cache(system).name) | _read(cache(system)) if cache else {} for system in by_system}
    missing = [one for system, members in by_system.items() for one in members if one.prompt not in known[system]]
    prompts = [Asked(chat.talk_ids([one.prompt], system_of(one, "")), ANSWER_TOKENS) for one in missing]
    said = batched_replies(
        model, device, prompts, at_once=ANSWER_BATCH, stop_ids=stop_ids, on_step=on_step, deadline=deadline
    )
    made = [(one, ids) for one, ids in zip(missing, said, strict=True) if ids is not None]
    for one, ids in made:
        known[system_of(one, "")][one.prompt] = str(chat.tokenizer.decode(ids))
    if made and cache:
        for system in sorted({system_of(one, "") for one, _ in made}):
            replace_file(cache(system), json.dumps(known[system], indent=1, ensure_ascii=False).encode())
        forget_old(cache("").parent, "answers-*.json")
    return [known[system_of(one, "")].get(one.prompt) for one in asked]


def forget_old(models_directory: Path, pattern: str) -> None:
    """Some agents have another system message each day: what was said under each is not kept for ever."""
    files = sorted(models_directory.glob(pattern), key=lambda file: -file.stat().st_mtime_ns)
    for file in files[KEPT_FILES:]:
        file.unlink(missing_ok=True)


def answers_file(models_directory: Path, base_fingerprint: str, system_prompt: str, chat: ChatFormat) -> Path:
    """Where the answers of one base under one system prompt and chat template are kept."""
    whole = f"{base_fingerprint}\0{system_prompt}\0{ANSWER_TOKENS}\0{chat.digest}"
    key = hashlib.sha256(whole.encode()).hexdigest()
    return models_directory / f"answers-{key[:16]}.json"


def encode_reference(
    chat: ChatFormat,
    asked: Sequence[ChatExample],
    answers: Sequence[str | None],
    max_tokens: int,
    *,
    kind: str = REGULARISE,
) -> list[Encoded]:
    """The chat examples as token ids; an empty or missing answer is left out. Their ids are ``KIND:NUMBER``."""
    pairs = enumerate(zip(asked, answers, strict=True))
    encoded = (encode_generated(chat, f"{kind}:{i}", one, answer or "", max_tokens) for i, (one, answer) in pairs)
    return [one for one in encoded if one is not None]


def _shipped(key: str) -> dict[str, str]:
    """The answers that come with this package, where they are those of that key."""
    content = json.loads(resources.files(__package__).joinpath(SHIPPED).read_bytes())
    return dict(content["answers"]) if content["key"] == key else {}


def _read(path: Path) -> dict[str, str]:
    try:
        content = json.loads(path.read_bytes())
        os.utime(path)  # when it was used last
    except (OSError, ValueError):
        return {}  # not made yet, or damaged: made again
    return content if isinstance(content, dict) and all(isinstance(one, str) for one in content.values()) else {}
