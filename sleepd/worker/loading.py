"""What the loading phase leaves: base, adapter and chat format on the device."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sleepd.evidence import ChatContract
from sleepd.job import Job

from .channel import Channel
from .chat import ChatFormat
from .chat_contract import check
from .convert import open_base
from .generate import named_stops, stop_ids
from .model import Device, choose_device, continue_adapter, load_base, start_adapter


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
    directory, known_as = open_base(
        job.base, job.cache_directory, Path(job.models_directory), channel.notice, expected=job.expected_base
    )
    model, tokenizer = load_base(directory, device)
    if job.parent:
        model = continue_adapter(model, Path(job.parent), job.strategy, job.seed)
    else:
        model = start_adapter(model, job.strategy, job.seed)
    stops = named_stops(model.generation_config)
    chat = ChatFormat(tokenizer, job.system_prompt, thoughts=job.thoughts, stops=stops)
    contract = check(chat)
    for warning in contract.warnings:
        channel.notice("chat_template_warned", f"chat template: {warning}", warning=True)
    return Loaded(model.eval(), chat, device, directory, known_as, contract)
