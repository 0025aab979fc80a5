"""What an older trainer leaves behind: ``cycle_NNN/`` with an adapter that fits the tiny model, and its JSON files."""

from __future__ import annotations

import json
from array import array
from pathlib import Path
from typing import Any

SHAPES = {"q_proj": (32, 32), "v_proj": (32, 16)}
"""Input and output width in the tiny model, which has two layers."""


def safetensors(tensors: dict[str, tuple[list[int], array[float]]]) -> bytes:
    """A safetensors file of float32 tensors."""
    header: dict[str, Any] = {}
    data = b""
    for name, (shape, values) in tensors.items():
        raw = values.tobytes()
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def adapter_weights(*, rank: int = 4, value: float = 0.01) -> bytes:
    """An adapter for q_proj and v_proj of the tiny model."""
    tensors = {}
    for layer in range(2):
        for module, (wide, out) in SHAPES.items():
            name = f"base_model.model.model.layers.{layer}.self_attn.{module}"
            tensors[f"{name}.lora_A.weight"] = ([rank, wide], array("f", [value] * (rank * wide)))
            tensors[f"{name}.lora_B.weight"] = ([out, rank], array("f", [value] * (out * rank)))
    return safetensors(tensors)


def write_older_cycle(
    state: Path, cycle: int, *, weights: bytes | None = None, rank: int = 4, trained: int = 12, **training: Any
) -> Path:
    """``cycle_NNN/`` as the older trainer wrote it; its sum over all cycles is larger than any buffer."""
    path = state / f"cycle_{cycle:03d}"
    path.mkdir(parents=True)
    (path / "adapter_model.safetensors").write_bytes(adapter_weights(rank=rank) if weights is None else weights)
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": rank,
        "lora_alpha": 2 * rank,
        "target_modules": ["q_proj", "v_proj"],
        "base_model_name_or_path": "/models/older",
    }
    (path / "adapter_config.json").write_text(json.dumps(config))
    history = [
        {
            "sleep_cycle": number,
            "num_experiences": trained,
            "epochs": 3,
            "final_loss": 3.0 - number / 10,
            "timestamp": f"2026-01-0{1 + (number - 1) % 9}T03:00:00",
        }
        for number in range(1, cycle + 1)
    ][-9:]
    state_of_training = {
        "sleep_cycle_count": cycle,
        "total_experiences_trained": 1000 * cycle,
        "training_history": history,
        "model_path": "/models/older",
        "last_updated": history[-1]["timestamp"],
        **training,
    }
    (path / "training_state.json").write_text(json.dumps(state_of_training))
    return path
