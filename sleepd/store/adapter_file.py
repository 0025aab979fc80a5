"""An adapter's files as somebody else left them, checked without loading them: is this a sane LoRA adapter?

The header of a safetensors file is eight bytes of length and a JSON object: name -> dtype, shape, data_offsets
(https://github.com/huggingface/safetensors#format). Nothing is unpickled, ever.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from sleepd.errors import DECODE_ERRORS, CheckpointInvalid
from sleepd.files import open_regular, read_document
from sleepd.protocol.checkpoint.checkpoint_files import CONFIG_FILE, PICKLED_WEIGHTS, WEIGHTS_FILE

MAX_HEADER_BYTES: Final = 8 * 2**20
"""Some thousand tensors take a tenth of it. What is larger would be decoded into a hundred times as much memory."""
MAX_FILE_BYTES: Final = 2**31
"""Rank 64 in all modules of a model of 14B takes half of it. To read so much takes ten seconds."""
MOST_DIMENSIONS: Final = 8
_BLOCK_BYTES: Final = 2**20
_BYTES: Final = {"F32": 4, "F16": 2, "BF16": 2}
_CONVERT: Final = "where it was made: PeftModel.from_pretrained(…).save_pretrained(…, safe_serialization=True)"
_START_ANEW: Final = "nothing to do: the base is in use, and the next cycle starts from it"


class Tensor(msgspec.Struct, frozen=True):
    """One entry of the header."""

    dtype: str
    shape: list[int]
    data_offsets: tuple[int, int]


class AdapterConfig(msgspec.Struct, frozen=True):
    """What is needed of ``adapter_config.json``."""

    r: int
    lora_alpha: float
    peft_type: str = "LORA"
    base_model_name_or_path: str = ""


class AdapterFile(msgspec.Struct, frozen=True, kw_only=True):
    """A sane LoRA adapter."""

    config: AdapterConfig
    lora_shape: str
    """As ``strategies.adapter_shape`` writes it; an unusual scale is part of it, so that it equals no other."""


def read_adapter_file(directory: Path) -> AdapterFile:
    """Look at the adapter in ``directory``: header, shapes, configuration, and that every weight is finite.

    Blocks for as long as reading the file takes, a mebibyte at a time.

    Raises:
        CheckpointInvalid: it is not there, is pickled, damaged, or no LoRA adapter.
    """
    path = directory / WEIGHTS_FILE
    if not path.is_file():
        for name in PICKLED_WEIGHTS:
            if (directory / name).exists():
                raise CheckpointInvalid(f"{directory / name}: a pickle can run code and is not opened", hint=_CONVERT)
        raise CheckpointInvalid(f"{path}: expected a safetensors file, found none", hint=_START_ANEW)
    config = _read_config(directory / CONFIG_FILE)
    try:
        with open_regular(path) as file:
            tensors, start = read_header(file, path)
            shape = _lora_shape(tensors, config, path)
            for name, tensor in tensors.items():
                _check_finite(file, start, name, tensor, path)
    except OSError as error:
        raise CheckpointInvalid(f"{path}: {error.strerror}", hint=_START_ANEW) from error
    return AdapterFile(config=config, lora_shape=shape)


def _read_config(path: Path) -> AdapterConfig:
    try:
        config = msgspec.json.decode(read_document(path), type=AdapterConfig)
    except (OSError, *DECODE_ERRORS) as error:
        raise CheckpointInvalid(f"{path}: not understood: {error}", hint=_START_ANEW) from error
    if config.peft_type != "LORA" or config.r < 1:
        came = f"{config.peft_type} with r={config.r}"
        raise CheckpointInvalid(f"{path}: expected a LoRA adapter, found {came}", hint=_START_ANEW)
    return config


def read_header(file: BinaryIO, path: Path) -> tuple[dict[str, Tensor], int]:
    """The tensors by name, and where their data begins."""
    size = os.fstat(file.fileno()).st_size
    if size > MAX_FILE_BYTES:
        most = f"at most {MAX_FILE_BYTES} bytes"
        raise CheckpointInvalid(f"{path}: expected an adapter of {most}, found {size}", hint=_START_ANEW)
    head = file.read(8)
    length = int.from_bytes(head, "little")
    if head[:2] in (b"PK", b"\x80\x02", b"\x80\x04"):
        raise CheckpointInvalid(f"{path}: is a pickle under another name, and not opened", hint=_CONVERT)
    if len(head) < 8 or not 2 <= length <= min(MAX_HEADER_BYTES, size - 8):
        found = f"{size} bytes with a header of {length}"
        raise CheckpointInvalid(f"{path}: expected a safetensors file, found {found}", hint=_START_ANEW)
    try:
        header = msgspec.json.decode(file.read(length), type=dict[str, msgspec.Raw])
        header.pop("__metadata__", None)
        tensors = {name: msgspec.json.decode(raw, type=Tensor) for name, raw in header.items()}
    except DECODE_ERRORS as error:
        raise CheckpointInvalid(f"{path}: its header is not understood: {error}", hint=_START_ANEW) from error
    room = size - 8 - length
    for name, tensor in tensors.items():
        if not _fits(tensor, room):
            came = f"{tensor.dtype} {tensor.shape[:MOST_DIMENSIONS]} at {tensor.data_offsets}"
            raise CheckpointInvalid(f"{path}: {name} does not fit into the file: {came}", hint=_START_ANEW)
    if sum(tensor.data_offsets[1] - tensor.data_offsets[0] for tensor in tensors.values()) > room:
        raise CheckpointInvalid(f"{path}: its tensors overlap", hint=_START_ANEW)
    return tensors, 8 + length


def _fits(tensor: Tensor, room: int) -> bool:
    begin, end = tensor.data_offsets
    if tensor.dtype not in _BYTES or not 0 < len(tensor.shape) <= MOST_DIMENSIONS or min(tensor.shape) < 1:
        return False
    return 0 <= begin <= end <= room and end - begin == _BYTES[tensor.dtype] * math.prod(tensor.shape)


def _check_finite(file: BinaryIO, start: int, name: str, tensor: Tensor, path: Path) -> None:
    begin, end = tensor.data_offsets
    file.seek(start + begin)
    left = end - begin
    while left:
        data = file.read(min(left, _BLOCK_BYTES))
        if not data:
            raise CheckpointInvalid(f"{path}: {name} is cut off", hint=_START_ANEW)
        left -= len(data)
        if not _is_finite(data, tensor.dtype):
            raise CheckpointInvalid(f"{path}: {name} holds NaN or infinity", hint=_START_ANEW)


def _is_finite(data: bytes, dtype: str) -> bool:
    """Whether all numbers are: those are not whose exponent is all ones."""
    width = _BYTES[dtype]
    high = data[width - 1 :: width]
    if dtype == "F16":
        return not any(bytes([sign | rest]) in high for sign in (0x7C, 0xFC) for rest in range(4))
    if b"\x7f" not in high and b"\xff" not in high:
        return True
    # Of its eight bits the last is the first of the byte below.
    below = data[width - 2 :: width]
    return not any(one & 0x7F == 0x7F and two & 0x80 for one, two in zip(high, below, strict=True))


def _lora_shape(tensors: dict[str, Tensor], config: AdapterConfig, path: Path) -> str:
    """Rank and modules, after A and B were found to belong together."""
    downs = {name: tensor for name, tensor in tensors.items() if ".lora_A." in name}
    ups = {name for name in tensors if ".lora_B." in name}
    for name, down in downs.items():
        up = tensors.get(name.replace(".lora_A.", ".lora_B."))
        if up is None or len(down.shape) != 2 or len(up.shape) != 2 or not down.shape[0] == up.shape[1] == config.r:
            came = f"{down.shape} and {up.shape if up else 'nothing'}"
            text = f"{path}: {name}: expected two factors of rank {config.r}, found {came}"
            raise CheckpointInvalid(text, hint=_START_ANEW)
    if not downs or len(downs) != len(ups) or len(downs) + len(ups) != len(tensors):
        text = f"{path}: expected pairs of LoRA factors alone, found {len(tensors)} tensors"
        raise CheckpointInvalid(text, hint=_START_ANEW)
    modules = sorted({name.split(".lora_A.")[0].rsplit(".", 1)[-1] for name in downs})
    scale = "" if config.lora_alpha == 2 * config.r else f"a{config.lora_alpha:g}"
    return f"r{config.r}{scale}:{','.join(modules)}"
