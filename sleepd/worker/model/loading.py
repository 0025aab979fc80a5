"""What the loading phase leaves: base, adapter and chat format on the device."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import torch

from sleepd.protocol.checkpoint.base_identity import UNQUANTISED
from sleepd.protocol.evidence import ChatContract
from sleepd.protocol.job import Job
from sleepd.worker.channel import Channel
from sleepd.worker.data.chat_format import ChatFormat

from .adapter import continue_adapter, load_base, load_tokenizer, start_adapter
from .device import Device, choose_device, memory_of
from .find_base import find_base
from .generate import named_stops, stop_ids
from .gguf.convert_gguf import open_base
from .inspect_base import build_skeleton, reading, refuse_too_large, refuse_unknown_tokens
from .quantization import require_quantization, to_be_quantised
from .template_check import check
from .trial_pass import try_out

CONVERTED_BYTES_A_SECOND = 2**20
"""Of a GGUF, at least: a tenth of what two slow cores do."""
COPIED_BYTES_A_SECOND = 50 * 2**20
"""Of weights that are in memory already, so that nothing is read, at least."""


@dataclass
class Loaded:
    """A base with the parent's adapter, or a new one that changes nothing yet."""

    model: Any
    chat: ChatFormat
    device: Device
    base_directory: Path
    fingerprint: str
    contract: ChatContract

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
    base = find_base(job.base, job.cache_directory)
    size = sum(file.stat().st_size for file in base.weights)
    converting = size / CONVERTED_BYTES_A_SECOND if base.is_gguf else 0.0
    channel.doing("hashed the base's weights, or converted them once", seconds=converting)
    directory, known_as = open_base(
        job.base,
        job.cache_directory,
        Path(job.models_directory),
        channel.notice,
        expected=job.expected_base,
        quantization=job.quantization,
    )
    channel.doing("checked the base's configuration and tokenizer")
    check_base(directory, device, job.quantization)
    doing = "loaded the base's configuration, tokenizer and weights"
    channel.doing(doing, seconds=size / COPIED_BYTES_A_SECOND)
    model, tokenizer = load_base(directory, device, job.quantization)
    channel.doing("attached the adapter")
    if job.parent:
        model = continue_adapter(model, Path(job.parent), job.strategy, job.seed, channel.notice)
    else:
        model = start_adapter(model, job.strategy, job.seed, channel.notice)
    model.eval()
    channel.doing("tried the model on two short sequences")
    try_out(model, device, channel.notice)
    channel.doing("read the base's chat template")
    chat = open_chat(tokenizer, job, named_stops(model.generation_config))
    contract = check(chat)
    for warning in contract.warnings:
        channel.notice("chat_template_warned", f"chat template: {warning}", warning=True)
    return Loaded(model, chat, device, directory, known_as, contract)


def open_chat(tokenizer: Any, job: Job, stops: Collection[int]) -> ChatFormat:
    """The chat format of that tokenizer, for a model whose generation stops at these tokens.

    Raises:
        GiveUp: ``base_unusable``, its template fails.
    """
    hint = "name another model.base, or put a chat template of the same model in its place"
    with reading(f"the chat template of {tokenizer.name_or_path} cannot be used", hint=hint):
        day = date.fromisoformat(job.date) if job.date else None
        return ChatFormat(tokenizer, job.system_prompt, thoughts=job.thoughts, stops=stops, day=day)


def check_base(directory: Path, device: Device, quantization: str = UNQUANTISED) -> Any:
    """Refuse, before a weight is read, what no cycle could be made of; returns the skeleton (on the meta device).

    Raises:
        GiveUp: ``base_unusable``.
    """
    require_quantization(quantization, device)
    skeleton = build_skeleton(directory)
    packed = sum(to_be_quantised(skeleton, quantization))
    refuse_too_large(skeleton, device.dtype, memory_of(device), str(device.torch_device), packed)
    refuse_unknown_tokens(skeleton, load_tokenizer(directory))
    return skeleton
