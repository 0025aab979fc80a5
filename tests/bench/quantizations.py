"""Bases in other quantizations, as llama.cpp makes them, for the bench of the fingerprint."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import gguf
import numpy
import xllamacpp

QUANTIZATIONS = ("q4_1", "q8_0", "f16", "q4_k_m")
"""The first one is that of the embedded base itself."""
_TYPES = gguf.GGMLQuantizationType


def requantized(source: Path, target: Path, kind: str) -> Path:
    """The GGUF at ``source`` with its matrices in another quantization, as llama.cpp's own program chooses them."""
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, str(reader.fields["general.architecture"].contents()))
    for name, field in reader.fields.items():
        if not name.startswith("GGUF.") and name != "general.architecture":
            inner = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(name, field.contents(), field.types[0], sub_type=inner)
    layers = int(reader.fields["llama.block_count"].contents())
    for tensor in reader.tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(numpy.float32)
        type_ = _type_for(tensor.name, values, kind, layers)
        writer.add_tensor(tensor.name, _quantized(values, type_), raw_dtype=type_)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def _type_for(name: str, values: numpy.ndarray, kind: str, layers: int) -> Any:
    if values.ndim == 1:
        return _TYPES.F32
    if kind != "q4_k_m":
        return {"f16": _TYPES.F16, "q8_0": _TYPES.Q8_0, "q4_1": _TYPES.Q4_1}[kind]
    has_blocks = values.shape[-1] % 256 == 0  # K-quants have no others; llama.cpp then takes the next larger type
    if name in ("token_embd.weight", "output.weight"):
        return _TYPES.Q6_K if has_blocks else _TYPES.Q8_0
    number = int(name.split(".")[1])
    has_more = number < layers // 8 or number >= 7 * layers // 8 or (number - layers // 8) % 3 == 2
    if ("attn_v" in name or "ffn_down" in name) and has_more:
        return _TYPES.Q6_K if has_blocks else _TYPES.Q8_0
    return _TYPES.Q4_K if has_blocks else _TYPES.Q5_0


def _quantized(values: numpy.ndarray, type_: Any) -> numpy.ndarray:
    if type_ not in (_TYPES.Q4_K, _TYPES.Q6_K):
        return gguf.quants.quantize(values, type_)
    library = ctypes.CDLL(xllamacpp.xllamacpp.__file__)
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    block, size = gguf.GGML_QUANT_SIZES[type_]
    rows, columns = values.shape
    found = numpy.zeros((rows, columns // block * size), dtype=numpy.uint8)
    whole, numbers = numpy.ascontiguousarray(values), [ctypes.c_int64(each) for each in (0, rows, columns)]
    as_pointer = ctypes.c_void_p
    written = library.ggml_quantize_chunk(
        ctypes.c_int(int(type_)), as_pointer(whole.ctypes.data), as_pointer(found.ctypes.data), *numbers, None
    )
    if written != found.nbytes:
        raise RuntimeError(f"expected {found.nbytes} bytes of {type_.name}, got {written}")
    return found
