"""A random adapter for the tiny random Llama."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import torch

from sleepd.config.strategies import find_strategy
from sleepd.worker.model.adapter import load_base, save_adapter, start_adapter
from sleepd.worker.model.device import Device
from sleepd.worker.programs.tiny_model import make_tiny_model

CPU = Device(torch.device("cpu"), torch.float32, "cpu")


def adapted(model: Any, directory: Path, base: Path, size: float) -> Any:
    """The model with a random adapter of that size, which is also written into ``directory``."""
    model = start_adapter(model, msgspec.structs.replace(find_strategy("consolidate"), rank=16, alpha=32), 0)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.copy_(torch.randn_like(weight) * size)
    directory.mkdir()
    save_adapter(model, directory, base)
    return model.eval()


def save_tiny_adapter(base: Path, directory: Path) -> list[str]:
    """Make the tiny model in ``base`` and a random adapter for it; the names of the adapter's files."""
    make_tiny_model(base)
    adapted(load_base(base, CPU)[0], directory, base, 2.0)
    return [path.name for path in directory.iterdir()]
