"""A base and an adapter made into one model: a GGUF file, or a directory of safetensors.

A GGUF file is made from the base's own GGUF file, tensor by tensor: dequantised, W + alpha / rank · B A in float32, and
written in the new number format. Header, tokenizer and chat template are copied. No more than one tensor is in memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import gguf
import numpy as np
import torch
from gguf import quants

from sleepd.files import FILE_MODE, fsync_path, make_private
from sleepd.protocol.deployment.converted_adapter import Quantization
from sleepd.worker.failure import GiveUp
from sleepd.worker.model.adapter import load_adapted, load_base
from sleepd.worker.model.device import Device
from sleepd.worker.model.inspect_base import read_config, reading

from .gguf_adapter import check_fits_base, number_type, read_for_gguf
from .gguf_architecture import Array, GgufArchitecture

_FILE_TYPES: Final = {
    "f32": gguf.LlamaFileType.ALL_F32,
    "f16": gguf.LlamaFileType.MOSTLY_F16,
    "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0,
}
_REPLACED: Final = ("general.architecture", "general.name", "general.file_type")
_DTYPES: Final = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def write_merged_gguf(
    path: Path,
    base: Path,
    adapter: Path | None,
    architecture: GgufArchitecture,
    numbers: Quantization,
    most_bytes: int = 0,
) -> int:
    """Write base and adapter (None: the base alone) as one GGUF model, on disk then; the number of its tensors.

    Raises:
        GiveUp: the adapter does not fit the base, a number is too large for the format, or the file for the disk.
        OSError: the disk did not take it.
    """
    factors, alpha = read_for_gguf(adapter, architecture) if adapter else ({}, 1.0)
    check_fits_base(base, factors)
    with reading(f"{base} cannot be read as a model"):
        reader = gguf.GGUFReader(base)
    _check_size(path, sum(_bytes(_shape(one), _kind(one, numbers)) for one in reader.tensors), most_bytes)
    make_private(path)
    writer = gguf.GGUFWriter(path, architecture.name)
    try:
        name = f"{base.stem} with {adapter.resolve().name}" if adapter else base.stem
        _copy_header(reader, writer, name, numbers)
        for one in reader.tensors:
            shape, kind = _shape(one), _kind(one, numbers)
            writer.add_tensor_info(one.name, shape, np.dtype(np.float32), _bytes(shape, kind), raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for rows, kind in _merged(reader, factors, alpha, numbers):
            writer.write_tensor_data(quants.quantize(rows, kind))
    finally:
        writer.close()
    fsync_path(path)
    return _check_written(path, reader)


def _check_written(path: Path, reader: Any) -> int:
    """Compare the tensors of the new file with those of the base; how many there are."""
    found = {one.name: _shape(one) for one in gguf.GGUFReader(path).tensors}
    if found != {one.name: _shape(one) for one in reader.tensors}:
        raise GiveUp(
            "bad_job", f"{path} was written, and reads as another model", "report it, with the version of gguf"
        )
    return len(found)


def _copy_header(reader: Any, writer: Any, name: str, numbers: Quantization) -> None:
    writer.add_name(name)
    writer.add_file_type(_FILE_TYPES[numbers])
    for key, field in reader.fields.items():
        if key.startswith("GGUF.") or key in _REPLACED:
            continue
        kinds, parts = field.types, [field.parts[place] for place in field.data]
        is_text = kinds[-1] == gguf.GGUFValueType.STRING
        values = [bytes(part).decode() if is_text else part[0].item() for part in parts]
        if kinds[0] == gguf.GGUFValueType.ARRAY:
            writer.add_key_value(key, values, kinds[0], kinds[-1])
        else:
            writer.add_key_value(key, values[0], kinds[0])


def _shape(tensor: Any) -> tuple[int, ...]:
    return tuple(int(size) for size in reversed(tensor.shape))


def _kind(tensor: Any, numbers: Quantization) -> gguf.GGMLQuantizationType:
    """What is in float32 in the base stays so: norms and other vectors."""
    is_kept = tensor.tensor_type == gguf.GGMLQuantizationType.F32 or len(tensor.shape) < 2
    return gguf.GGMLQuantizationType.F32 if is_kept else number_type(_shape(tensor)[-1], numbers)


def _bytes(shape: tuple[int, ...], kind: gguf.GGMLQuantizationType) -> int:
    block, size = gguf.GGML_QUANT_SIZES[kind]
    return math.prod(shape) // int(block) * int(size)


def _merged(
    reader: Any, factors: dict[str, Array], alpha: float, numbers: Quantization
) -> Iterator[tuple[Array, gguf.GGMLQuantizationType]]:
    for one in reader.tensors:
        rows: Array = np.array(quants.dequantize(one.data, one.tensor_type), np.float32).reshape(_shape(one))
        after = factors.get(f"{one.name}.lora_b")
        if after is not None:
            rows += alpha / after.shape[1] * (after @ factors[f"{one.name}.lora_a"])
        kind = _kind(one, numbers)
        if not np.abs(rows).max() <= (np.finfo(np.float16).max if kind != gguf.GGMLQuantizationType.F32 else np.inf):
            raise GiveUp("not_finite", f"{one.name} with the adapter does not fit {numbers}", "write it in f32")
        yield rows, kind


def write_merged_directory(directory: Path, base: Path, adapter: Path | None, most_bytes: int = 0) -> int:
    """Write base and adapter (None: the base alone) as safetensors of the base's number type; the number of tensors.

    Raises:
        GiveUp: base or adapter cannot be used, or the files are too large for the disk.
        OSError: the disk did not take it.
    """
    config = read_config(base)
    dtype = _DTYPES.get(str(config.get("dtype") or config.get("torch_dtype")), torch.float32)
    device = Device(torch.device("cpu"), torch.float32, "cpu")
    if adapter is None:
        merged, tokenizer = load_base(base, device)
    else:
        model, tokenizer = load_adapted(base, adapter, device)
        merged = model.merge_and_unload(safe_merge=True)
    merged = merged.to(dtype)
    broken = [name for name, weight in merged.named_parameters() if not torch.isfinite(weight).all()]
    if broken:
        raise GiveUp("not_finite", f"{broken[0]} with the adapter does not fit {dtype}", "write it as merged-gguf")
    _check_size(directory, sum(weight.nbytes for weight in merged.parameters()), most_bytes)
    merged.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    for file in directory.iterdir():
        file.chmod(FILE_MODE)
        fsync_path(file)
    fsync_path(directory)
    return len(merged.state_dict())


def _check_size(path: Path, size: int, most_bytes: int) -> None:
    """Nothing is written that would not fit; 0: as much as the disk takes."""
    if most_bytes and size > most_bytes:
        text = f"{path} would take {size / 1e9:.2f} GB, and there is room for {most_bytes / 1e9:.2f} GB"
        raise GiveUp("error", text, "make room on that disk, or raise serve.merged_gigabytes")
