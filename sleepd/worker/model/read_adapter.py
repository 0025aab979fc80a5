"""An adapter's two files, read with suspicion: whoever wrote them, what comes out is finite and of the right kind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from sleepd.protocol.checkpoint.checkpoint_files import CONFIG_FILE, PICKLED_WEIGHTS, WEIGHTS_FILE
from sleepd.worker.failure import GiveUp

WAY_OUT = "roll back to an earlier cycle with sleepctl rollback"


def read_adapter(directory: Path) -> dict[str, torch.Tensor]:
    """The tensors of an adapter on disk, in float32, by peft's names. Never from a pickle.

    Raises:
        GiveUp: ``parent_unusable``.
    """
    file = directory / WEIGHTS_FILE
    pickled = next((name for name in PICKLED_WEIGHTS if (directory / name).exists()), "")
    if pickled and not file.is_file():
        raise GiveUp(
            "parent_unusable",
            f"{directory} has its weights only as {pickled}, a pickle, which can run code",
            "load it once with peft where it was made and save_pretrained(…, safe_serialization=True)",
        )
    try:
        weights = load_file(file)
    except (OSError, SafetensorError) as error:
        raise GiveUp("parent_unusable", f"{file} cannot be read: {error}", WAY_OUT) from error
    broken = [name for name, tensor in weights.items() if not torch.isfinite(tensor).all()]
    if broken or not weights:
        came = f"{len(broken)} tensors with NaN or infinity, such as {broken[0]}" if broken else "no tensors"
        raise GiveUp("parent_unusable", f"{file}: expected finite weights, found {came}", WAY_OUT)
    return {name: tensor.float() for name, tensor in weights.items()}


def read_adapter_config(directory: Path) -> dict[str, Any]:
    """The configuration of a LoRA adapter on disk.

    Raises:
        GiveUp: ``parent_unusable``.
    """
    file = directory / CONFIG_FILE
    try:
        config = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise GiveUp("parent_unusable", f"{file} cannot be read: {error}", WAY_OUT) from error
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        raise GiveUp("parent_unusable", f"{file}: expected a LoRA adapter's configuration", WAY_OUT)
    return config
