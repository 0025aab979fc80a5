"""What a base is, found out before any of its weights is in memory: its configuration, its tensors, its tokenizer.

The library builds the model on the meta device, where a tensor is a name, a shape and a number type, and compares it
with the files' tables of contents. What does not fit is refused here, in a sentence, and costs seconds.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from sleepd.worker.failure import GiveUp

from .find_base import seen_files, tensor_table
from .memory.memory_estimate import PACKED_BYTES
from .memory.out_of_memory import is_out_of_memory

LEAST_POSITIONS = 256
"""A prompt and a reply of the probe generation must fit."""
_CHECK_FILES = "compare the files with their source (sha256), and fetch again what differs"
_QUANTISED = "name the unquantised model (bfloat16 or float16) that it was made from as model.base"
_LENGTHS = ("max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length", "n_ctx")
"""What configurations call the length of their table of positions."""
_LAYERS = re.compile(r"(^|_)(n|num)(_hidden|_decoder)?_layers?$")
_HARMLESS = re.compile(r"(^|\.)(inv_freq|masked_bias|attn\.bias|attention\.bias|position_ids|mtp\..*)$")
"""Tensors in a file without which the model is whole: tables that are computed anew, and heads that guess ahead."""
_SHOWN = 3


@contextlib.contextmanager
def reading(what: str, *, kind: str = "base_unusable", hint: str = _CHECK_FILES) -> Iterator[None]:
    """In this context a library reads the operator's files: whatever it raises but for memory is about those files.

    Raises:
        GiveUp: of that kind, with the library's own words.
    """
    try:
        yield
    except GiveUp:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        said = f"{type(error).__name__}: {error}"[:600]
        raise GiveUp(kind, f"{what}: {said}", hint) from error  # type: ignore[arg-type]


def read_config(directory: Path) -> dict[str, Any]:
    """The base's configuration as it stands in the file.

    Raises:
        GiveUp: ``base_unusable``, it cannot be read, its weights are quantised, or its figures cannot be true.
    """
    file = directory / "config.json"
    with reading(f"{file} cannot be read"):
        config = json.loads(file.read_bytes())
    if not isinstance(config, dict):
        raise GiveUp("base_unusable", f"{file}: expected a JSON object, found {type(config).__name__}", _CHECK_FILES)
    quantised = config.get("quantization_config")
    if quantised:
        method = quantised.get("quant_method", "") if isinstance(quantised, dict) else ""
        raise GiveUp(
            "base_unusable", f"the base in {directory} is quantised ({method or 'unnamed method'})", _QUANTISED
        )
    return config


def build_skeleton(directory: Path) -> Any:
    """The model on the meta device, after all that can be checked without reading weights was found in order.

    Raises:
        GiveUp: ``base_unusable``.
    """
    config = read_config(directory)
    shapes = tensor_table(directory)
    _refuse_impossible(directory, config, len(shapes))
    with reading(f"the base in {directory} cannot be built"), seen_files(directory) as seen:
        model, loading = AutoModelForCausalLM.from_pretrained(
            seen,
            device_map="meta",
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
        )
    require_whole(directory, loading)
    positions = most_positions(model.config)
    if positions is not None and positions < LEAST_POSITIONS:
        text = f"the base in {directory} has {positions} positions; a cycle needs at least {LEAST_POSITIONS}"
        raise GiveUp("base_unusable", text, "name a model.base with a longer context")
    return model


def _refuse_impossible(directory: Path, config: dict[str, Any], tensors: int) -> None:
    """Before the library builds a module for each: there cannot be more layers than tensors in the files."""
    nested = [one for one in config.values() if isinstance(one, dict)]
    for part in (config, *nested):
        for name, value in part.items():
            if _LAYERS.search(name) and isinstance(value, int) and not 0 <= value <= tensors:
                text = f"{directory}/config.json: {name} is {value}, and the files hold {tensors} tensors"
                raise GiveUp("base_unusable", text, _CHECK_FILES)


def require_whole(directory: Path, loading: dict[str, Any]) -> None:
    """Compare the library's report on loading: every tensor of the model must come from the files, and fit.

    Raises:
        GiveUp: ``base_unusable``, naming the tensors.
    """
    mismatched = [f"{one[0]} {_shape(one[1])} for {_shape(one[2])}" for one in loading["mismatched_keys"]]
    unexpected = [name for name in loading["unexpected_keys"] if not _HARMLESS.search(name)]
    faults = [
        f"{len(names)} tensors {what}: {', '.join(sorted(names)[:_SHOWN])}{', …' if len(names) > _SHOWN else ''}"
        for what, names in (
            ("are missing, which would be drawn at random", list(loading["missing_keys"])),
            ("have another shape than the configuration says", mismatched),
            ("have no place in the model that config.json describes", unexpected),
        )
        if names
    ]
    if faults:
        hint = "fetch the model again whole; config.json and weights must be of one model"
        raise GiveUp("base_unusable", f"the base in {directory} is not whole: {'; '.join(faults)}", hint)


def _shape(size: Sequence[int]) -> str:
    return "×".join(map(str, size))


def most_positions(config: Any) -> int | None:
    """How many tokens the model's own table of positions, or its makers, allow; None: no limit is named."""
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    named = [getattr(text, name, None) for name in _LENGTHS]
    found = [one for one in named if isinstance(one, int) and not isinstance(one, bool) and one > 0]
    return min(found) if found else None


def weight_bytes(model: Any, dtype: torch.dtype, packed: int = 0) -> int:
    """Of all parameters and buffers, once loaded in ``dtype``, ``packed`` of the numbers in four bits.

    Each shared one counts once.
    """
    size = torch.empty((), dtype=dtype).element_size()
    parameters = sum(int(one.numel()) for one in model.parameters()) - packed
    parameters = parameters * size + round(packed * PACKED_BYTES)
    return parameters + sum(int(one.numel()) * int(one.element_size()) for one in model.buffers())


def refuse_too_large(model: Any, dtype: torch.dtype, memory_bytes: int | None, where: str, packed: int = 0) -> None:
    """Before anything is allocated: weights that are larger than the whole memory never fit.

    Raises:
        GiveUp: ``base_unusable``.
    """
    needed = weight_bytes(model, dtype, packed)
    if memory_bytes is not None and needed > memory_bytes:
        text = f"the base's weights take {needed / 2**30:.1f} GiB, and {where} has {memory_bytes / 2**30:.1f} GiB"
        raise GiveUp("base_unusable", text, "name a smaller model.base")


def refuse_unknown_tokens(model: Any, tokenizer: Any) -> None:
    """Every token that the tokenizer can write must have its row in the model's table.

    Raises:
        GiveUp: ``base_unusable``.
    """
    rows = int(model.get_input_embeddings().weight.shape[0])
    beyond = sorted((number, token) for token, number in tokenizer.get_vocab().items() if number >= rows)
    if beyond:
        shown = ", ".join(f"{token!r} ({number})" for number, token in beyond[:_SHOWN])
        text = f"the tokenizer knows {len(beyond)} tokens beyond the model's {rows} rows, such as {shown}"
        raise GiveUp("base_unusable", text, "take tokenizer and model from one source, or enlarge the model's table")
