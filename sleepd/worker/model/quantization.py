"""A base whose linear layers are kept in four bits (nf4 of bitsandbytes), quantised while the weights are loaded.

Embeddings, norms, the head over the vocabulary and the adapter stay as they are. Such a base is another one than the
unquantised, with another fingerprint (``protocol.checkpoint.base_identity``): all of a cycle is measured on it.
"""

from __future__ import annotations

import importlib.util
import sys
from typing import Any

import torch

from sleepd.protocol.checkpoint.base_identity import UNQUANTISED
from sleepd.worker.failure import GiveUp

from .device import Device
from .inspect_base import reading
from .memory.memory_estimate import is_packed
from .target_modules import linear_modules

REQUIREMENT = "bitsandbytes==0.50.2"
"""The version that is tested."""
_WITHOUT = 'set model.quantization = "none", or use another device'


def is_missing() -> bool:
    """Whether there is no bitsandbytes here."""
    return importlib.util.find_spec("bitsandbytes") is None


def require_quantization(quantization: str, device: Device) -> None:
    """Refuse, before a weight is read, what cannot be quantised here.

    Raises:
        GiveUp: ``base_unusable``.
    """
    if quantization == UNQUANTISED:
        return
    wanted = f'model.quantization = "{quantization}"'
    if is_missing():
        text = f"{wanted} needs the package bitsandbytes, which is not installed for {sys.executable}"
        raise GiveUp("base_unusable", text, f"{sys.executable} -m pip install --no-deps {REQUIREMENT}")
    with reading(f"{wanted} does not work on {device.torch_device}", hint=_WITHOUT):
        from bitsandbytes import functional
        from transformers.quantizers import AutoHfQuantizer

        ways = quantising(quantization, device)
        AutoHfQuantizer.from_config(ways["quantization_config"]).validate_environment(
            device_map={"": str(device.torch_device)}
        )
        weight = torch.ones(64, 64, dtype=device.dtype, device=device.torch_device)
        packed, state = functional.quantize_4bit(weight, compress_statistics=True, quant_type=quantization)
        if not torch.allclose(functional.dequantize_4bit(packed, state), weight, atol=0.01):
            raise ValueError("bitsandbytes gives other numbers back than it was given")


def quantising(quantization: str, device: Device) -> dict[str, Any]:
    """What the library is given with a base, so that it is quantised while it is loaded."""
    if quantization == UNQUANTISED:
        return {}
    from transformers import BitsAndBytesConfig

    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=quantization,
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=device.dtype,
    )
    return {"quantization_config": config}


def compute_alike(model: Any) -> None:
    """Have packed layers compute in one way, whether gradients are wanted or not.

    On some processors bitsandbytes packs a layer anew for replies alone, into a form from which nothing goes back.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def to_be_quantised(skeleton: Any, quantization: str) -> list[int]:
    """Numbers of each matrix of a model on the meta device that will be packed once it is loaded."""
    if quantization == UNQUANTISED:
        return []
    return [int(skeleton.get_submodule(name).weight.numel()) for name in linear_modules(skeleton)]


def unpacked(weight: Any) -> torch.Tensor:
    """The numbers of a weight, which may be packed."""
    plain: torch.Tensor = weight
    if is_packed(weight):
        from bitsandbytes import functional

        plain = functional.dequantize_4bit(weight.data, weight.quant_state)
    return plain
