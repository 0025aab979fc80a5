"""What llama.cpp calls the modules of a base, and in which order it wants their rows.

llama.cpp rotates neighbouring numbers of a head where transformers rotates the two halves against each other. For the
architectures marked so, the rows of ``q_proj`` and ``k_proj`` stand in another order in a GGUF file, and those of an
adapter's factor B must follow them. The rule is that of ``LlamaModel.permute`` in llama.cpp's ``conversion/llama.py``
(MIT); the names come from the package ``gguf`` (MIT). An architecture is in the table only if the tensors that are made
here are equal to those of llama.cpp's own ``convert_lora_to_gguf.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import gguf
import numpy as np
import numpy.typing as npt

from sleepd.worker.failure import GiveUp
from sleepd.worker.model.find_base import Base
from sleepd.worker.model.inspect_base import read_config, reading

Array = npt.NDArray[np.float32]

CALLED: Final = {
    "apertus": "apertus",
    "arcee": "arcee",
    "cohere": "command-r",
    "cohere2": "cohere2",
    "ernie4_5": "ernie4_5",
    "exaone4": "exaone4",
    "gemma": "gemma",
    "gemma2": "gemma2",
    "gemma3_text": "gemma3",
    "gemma4_text": "gemma4",
    "glm4": "glm4",
    "gpt_oss": "gpt-oss",
    "granite": "granite",
    "granitemoe": "granitemoe",
    "hunyuan_v1_dense": "hunyuan-dense",
    "lfm2": "lfm2",
    "llama": "llama",
    "mistral": "llama",
    "nemotron": "nemotron",
    "olmo": "olmo",
    "olmo2": "olmo2",
    "olmo3": "olmo2",
    "phi": "phi2",
    "phi3": "phi3",
    "qwen2": "qwen2",
    "qwen2_moe": "qwen2moe",
    "qwen3": "qwen3",
    "seed_oss": "seed_oss",
    "smollm3": "smollm3",
    "stablelm": "stablelm",
    "starcoder2": "starcoder2",
}
"""By ``model_type`` in config.json: what GGUF calls the architecture (``general.architecture``)."""
_INTERLEAVED: Final = frozenset({"arcee", "granite", "granitemoe", "llama", "olmo", "smollm3"})
"""Architectures in GGUF whose rows of ``q_proj`` and ``k_proj`` stand in another order than in transformers."""
_WAY_OUT = "serve it with vLLM or transformers, which read the adapter as it is (serve.kind vllm or peft)"


@dataclass(frozen=True)
class GgufArchitecture:
    """What of a base decides the form of its adapters in GGUF."""

    name: str
    blocks: int
    heads: int = 0
    """0: the order of the rows is that of transformers, and nobody asks."""
    kv_heads: int = 0

    def tensor_name(self, module: str) -> str:
        """What GGUF calls the weight of a module such as ``model.layers.0.self_attn.q_proj``.

        Raises:
            GiveUp: ``base_unusable``, llama.cpp has no tensor for it.
        """
        kind = next((key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == self.name), None)
        if kind is None:
            hint = "pip install --upgrade gguf in the worker's environment"
            raise GiveUp(
                "base_unusable", f"the installed package gguf does not know the architecture {self.name}", hint
            )
        found = gguf.get_tensor_name_map(kind, self.blocks).get_name(module)
        if found is None:
            text = f"llama.cpp has no tensor for {module} of the architecture {self.name}"
            raise GiveUp("base_unusable", text, _WAY_OUT)
        return f"{found}.weight"

    def ordered(self, module: str, rows: Array) -> Array:
        """The rows of a weight of ``module`` (or of an adapter's factor B) in llama.cpp's order."""
        heads = {"q_proj": self.heads, "k_proj": self.kv_heads}.get(module.rpartition(".")[2], 0)
        if not heads:
            return rows
        halves = rows.reshape(heads, 2, len(rows) // heads // 2, *rows.shape[1:])
        return halves.swapaxes(1, 2).reshape(rows.shape)


def find_architecture(base: Base) -> GgufArchitecture:
    """That of a base: from the GGUF file itself, or from config.json.

    Raises:
        GiveUp: ``base_unusable``, it cannot be read, or is none whose conversion is known to be right.
    """
    with reading(f"the architecture of {base.path} cannot be read"):
        return _of_gguf(base.path) if base.is_gguf else _of_config(base.path)


def _of_gguf(file: Path) -> GgufArchitecture:
    reader = gguf.GGUFReader(file)
    name = str(read_field(reader, "general.architecture"))
    _refuse_unknown(name, set(CALLED.values()))
    blocks = int(read_field(reader, f"{name}.block_count"))
    if name not in _INTERLEAVED:
        return GgufArchitecture(name, blocks)
    heads = int(read_field(reader, f"{name}.attention.head_count"))
    return GgufArchitecture(name, blocks, heads, int(read_field(reader, f"{name}.attention.head_count_kv", heads)))


def _of_config(directory: Path) -> GgufArchitecture:
    config = read_config(directory)
    kind = str(config.get("model_type"))
    _refuse_unknown(kind, set(CALLED))
    name, blocks = CALLED[kind], int(config["num_hidden_layers"])
    if name not in _INTERLEAVED:
        return GgufArchitecture(name, blocks)
    heads = int(config["num_attention_heads"])
    return GgufArchitecture(name, blocks, heads, int(config.get("num_key_value_heads") or heads))


def _refuse_unknown(name: str, known: set[str]) -> None:
    if name not in known:
        text = (
            f"an adapter of the architecture {name} cannot be converted to GGUF; known are {', '.join(sorted(known))}"
        )
        raise GiveUp("base_unusable", text, _WAY_OUT)


def read_field(reader: Any, key: str, default: Any = None) -> Any:
    """One value of a GGUF file's header: a text or a number; ``default`` where it is not there.

    Raises:
        KeyError: it is not there, and there is no default.
        TypeError: it is a list.
    """
    field = reader.fields.get(key)
    if field is None and default is not None:
        return default
    field = reader.fields[key]
    if field.types[0] == gguf.GGUFValueType.ARRAY:
        raise TypeError(f"{key} is a list")
    value = field.parts[field.data[0]]
    return bytes(value).decode() if field.types[0] == gguf.GGUFValueType.STRING else value[0].item()
