"""An adapter of peft as a GGUF file that llama.cpp loads: written, and read back.

Both compute W + alpha / rank · B A. In the file, A is ``NAME.lora_a`` [rank, in] and B is ``NAME.lora_b`` [out, rank],
NAME being that of the base's tensor; alpha stands in the header, and the rank is the width of B.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import gguf
import numpy as np
from gguf import quants

from sleepd.files import fsync_path, make_private
from sleepd.protocol.deployment.converted_adapter import Quantization
from sleepd.version import VERSION
from sleepd.worker.failure import GiveUp
from sleepd.worker.model.read_adapter import WAY_OUT, read_adapter, read_adapter_config

from .gguf_architecture import Array, GgufArchitecture, read_field

_PREFIX = "base_model.model."
_TYPES: Final = {"f32": gguf.GGMLQuantizationType.F32, "f16": gguf.GGMLQuantizationType.F16}
_NOT_CARRIED: Final = (
    "use_rslora", "use_dora", "rank_pattern", "alpha_pattern", "modules_to_save", "layer_replication",
    "trainable_token_indices", "alora_invocation_tokens", "use_qalora", "use_bdlora",
)  # fmt: skip
"""Settings of peft that change what an adapter computes, and have no place in GGUF."""
_OTHER_ENGINE: Final = "serve it with vLLM or transformers (serve.kind vllm or peft)"
_TOLERANCE: Final = {"f32": 0.0, "f16": 2**-11, "q8_0": 1 / 127}
"""Largest rounding of a tensor's numbers, as a share of the tensor's largest one."""


def read_for_gguf(adapter: Path, architecture: GgufArchitecture) -> tuple[dict[str, Array], float]:
    """The adapter's tensors by their names in GGUF, and its alpha.

    Raises:
        GiveUp: ``parent_unusable``, or ``base_unusable`` where llama.cpp has no tensor for one of its modules.
    """
    config = read_adapter_config(adapter)
    strange = [name for name in _NOT_CARRIED if config.get(name)]
    if strange or config.get("bias", "none") != "none":
        used = ", ".join(strange) or "bias"
        raise GiveUp("parent_unusable", f"{adapter} uses {used}, which a GGUF adapter cannot hold", _OTHER_ENGINE)
    found: dict[str, Array] = {}
    for name, tensor in read_adapter(adapter).items():
        module, _, factor = name.removeprefix(_PREFIX).partition(".lora_")
        if factor not in ("A.weight", "B.weight") or tensor.dim() != 2:
            raise GiveUp("parent_unusable", f"{adapter} holds {name}, which a GGUF adapter cannot hold", _OTHER_ENGINE)
        rows: Array = tensor.numpy()
        target = architecture.tensor_name(module)
        if factor == "A.weight":
            found[f"{target}.lora_a"] = rows
        else:
            found[f"{target}.lora_b"] = architecture.ordered(module, rows)
    return found, _alpha(adapter, config)


def _alpha(adapter: Path, config: dict[str, Any]) -> float:
    alpha = config.get("lora_alpha")
    if not isinstance(alpha, int | float) or isinstance(alpha, bool) or not 0 < alpha < np.inf:
        raise GiveUp("parent_unusable", f"{adapter}: expected a lora_alpha above 0, found {alpha!r}", WAY_OUT)
    return float(alpha)


def write_gguf_adapter(
    path: Path,
    name: str,
    architecture: GgufArchitecture,
    tensors: dict[str, Array],
    alpha: float,
    numbers: Quantization,
) -> None:
    """Write the file, on disk when this returns.

    Raises:
        OSError: the disk did not take it.
    """
    make_private(path)
    writer = gguf.GGUFWriter(path, architecture.name)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, alpha)
    writer.add_name(name)
    writer.add_description(f"converted by sage-sleepd {VERSION}")
    for key, rows in sorted(tensors.items()):
        kind = number_type(rows.shape[1], numbers)
        writer.add_tensor(key, quants.quantize(rows, kind), raw_dtype=kind)
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()
    fsync_path(path)


def number_type(width: int, numbers: Quantization) -> gguf.GGMLQuantizationType:
    """Q8_0 holds 32 numbers in a block; what is not so wide, as B of rank 16 is not, stays in 16 bits."""
    if numbers != "q8_0":
        return _TYPES[numbers]
    kind = gguf.GGMLQuantizationType.Q8_0
    return kind if width % gguf.GGML_QUANT_SIZES[kind][0] == 0 else _TYPES["f16"]


def check_gguf_adapter(
    path: Path, architecture: GgufArchitecture, tensors: dict[str, Array], alpha: float, numbers: Quantization
) -> None:
    """Read the file as others read it, and compare it with what was to be written.

    Raises:
        GiveUp: ``not_finite``, a number is too large for the format; ``bad_job``, the file holds something else.
    """
    reader = gguf.GGUFReader(path)
    header = (read_field(reader, "general.architecture"), read_field(reader, gguf.Keys.Adapter.LORA_ALPHA))
    shapes = {one.name: tuple(int(size) for size in reversed(one.shape)) for one in reader.tensors}
    if header != (architecture.name, float(np.float32(alpha))) or shapes != {n: t.shape for n, t in tensors.items()}:
        text = f"{path} was written with {len(tensors)} tensors, and reads as {len(shapes)} of {header[0]}"
        raise GiveUp("bad_job", text, "report it: the package gguf writes something else than it was tested to write")
    for one in reader.tensors:
        wanted = tensors[one.name]
        off = np.abs(quants.dequantize(one.data, one.tensor_type) - wanted).max()
        if not off <= max(_TOLERANCE[numbers], 2**-24) * np.abs(wanted).max():
            text = f"{one.name} differs by {off:g} after it was written in {numbers}"
            raise GiveUp("not_finite", text, "write it in f32, or roll back: sleepctl rollback")


def check_fits_base(base: Path, tensors: dict[str, Array]) -> None:
    """Compare an adapter's tensors with those of a base in GGUF.

    Raises:
        GiveUp: ``parent_unusable``, the base has not the tensors that the adapter changes.
    """
    shapes = {one.name: tuple(int(size) for size in one.shape) for one in gguf.GGUFReader(base).tensors}
    for name, rows in tensors.items():
        target, _, factor = name.rpartition(".lora_")
        mine = rows.shape[1] if factor == "a" else rows.shape[0]
        theirs = shapes.get(target, ())
        if len(theirs) != 2 or theirs[0 if factor == "a" else 1] != mine:
            came = "×".join(map(str, theirs)) or "not there"
            raise GiveUp(
                "parent_unusable", f"{name} has {mine} of a side; {target} of {base} is {came}", "name its base"
            )
