"""What the loading phase leaves: base, adapter and chat format on the device."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sleepd.job import Job

from .channel import Channel
from .convert import open_base
from .data import ChatFormat
from .generate import stop_ids
from .model import Device, choose_device, continue_adapter, load_base, load_tokenizer, memory_of, start_adapter
from .skeleton import build_skeleton, reading, refuse_too_large, refuse_unknown_tokens
from .trial import try_out


@dataclass
class Loaded:
    """A base with the parent's adapter, or a new one that changes nothing yet."""

    model: Any
    chat: ChatFormat
    device: Device
    base_directory: Path
    fingerprint: str

    @property
    def stop_ids(self) -> frozenset[int]:
        """Every token that ends a reply."""
        return stop_ids(self.model, self.chat)


def load(job: Job, channel: Channel) -> Loaded:
    """The model that the job names.

    Raises:
        GiveUp: base, parent or device cannot be used.
    """
    if job.threads:
        torch.set_num_threads(job.threads)
    device = choose_device(job.device)
    directory, known_as = open_base(
        job.base, job.cache_directory, Path(job.models_directory), channel.notice, expected=job.expected_base
    )
    check_base(directory, device)
    model, tokenizer = load_base(directory, device)
    if job.parent:
        model = continue_adapter(model, Path(job.parent), job.strategy, job.seed, channel.notice)
    else:
        model = start_adapter(model, job.strategy, job.seed, channel.notice)
    model.eval()
    try_out(model, device, channel.notice)
    return Loaded(model, open_chat(tokenizer, job.system_prompt), device, directory, known_as)


def open_chat(tokenizer: Any, system_prompt: str) -> ChatFormat:
    """The chat format of that tokenizer.

    Raises:
        GiveUp: ``base_unusable``, its template fails.
    """
    hint = "name another model.base, or put a chat template of the same model in its place"
    with reading(f"the chat template of {tokenizer.name_or_path} cannot be used", hint=hint):
        return ChatFormat(tokenizer, system_prompt)


def check_base(directory: Path, device: Device) -> Any:
    """Refuse, before a weight is read, what no cycle could be made of; returns the skeleton (on the meta device).

    Raises:
        GiveUp: ``base_unusable``.
    """
    skeleton = build_skeleton(directory)
    refuse_too_large(skeleton, device.dtype, memory_of(device), str(device.torch_device))
    refuse_unknown_tokens(skeleton, load_tokenizer(directory))
    return skeleton
