"""Tests of the look at an adapter's files, case by case, at and beside each limit."""

from __future__ import annotations

import json
import math
import struct
from array import array
from pathlib import Path
from typing import Any

import pytest

from sleepd.errors import CheckpointInvalid
from sleepd.store import adapter_file
from sleepd.store.adapter_file import MOST_DIMENSIONS, read_adapter_file
from tests.older_trainer import safetensors

CONFIG = {"peft_type": "LORA", "r": 2, "lora_alpha": 4}
PAIR = ("m.0.q_proj.lora_A.weight", "m.0.q_proj.lora_B.weight")


def tensor(*shape: int, dtype: str = "F32", at: int = 0, bytes_: int | None = None) -> dict[str, Any]:
    width = 4 if dtype == "F32" else 2
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + (bytes_ or width * math.prod(shape))]}


def pair(down: tuple[int, ...] = (2, 4), up: tuple[int, ...] = (4, 2)) -> dict[str, Any]:
    """A sound one, unless other shapes are given."""
    return {PAIR[0]: tensor(*down), PAIR[1]: tensor(*up, at=4 * math.prod(down))}


def written(directory: Path, header: Any, data: bytes = bytes(64), config: Any = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    (directory / "adapter_model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
    (directory / "adapter_config.json").write_text(json.dumps({**CONFIG, **(config or {})}))
    return directory


@pytest.mark.parametrize(
    ("config", "shape"),
    [
        ({}, "r2:q_proj"),
        ({"lora_alpha": 3}, "r2a3:q_proj"),
        ({"lora_alpha": 2.5}, "r2a2.5:q_proj"),
        ({"peft_type": "IA3"}, "found IA3 with r=2"),
        ({"r": 0}, "found LORA with r=0"),
        ({"r": 1}, "expected two factors of rank 1"),
        ({"r": "2"}, "not understood"),
    ],
)
def test_config_by_cases(tmp_path: Path, config: dict[str, Any], shape: str) -> None:
    """The shape names rank and modules, and an alpha that is not twice the rank; another kind is refused."""
    directory = written(tmp_path, pair(), config=config)
    if shape.startswith("r2"):
        assert read_adapter_file(directory).lora_shape == shape
    else:
        with pytest.raises(CheckpointInvalid, match=shape):
            read_adapter_file(directory)


def test_rank_of_one_is_an_adapter(tmp_path: Path) -> None:
    """The smallest rank there is."""
    directory = written(tmp_path, pair((1, 4), (4, 1)), config={"r": 1, "lora_alpha": 2})
    assert read_adapter_file(directory).lora_shape == "r1:q_proj"


HALVES = {PAIR[0]: tensor(2, 4, dtype="F16"), PAIR[1]: tensor(4, 2, dtype="F16", at=16)}
OTHER = {"m.0.o_proj.lora_A.weight": tensor(2, 4), "m.0.o_proj.lora_B.weight": tensor(4, 2)}
REFUSED: dict[str, tuple[Any, str]] = {
    "no header": (b"", "expected a safetensors file"),
    "a number": (b"1 ", "its header is not understood"),
    "an empty object": ({}, "pairs of LoRA factors alone, found 0 tensors"),
    "A alone": ({PAIR[0]: tensor(2, 4)}, "found .2, 4. and nothing"),
    "B alone": ({PAIR[1]: tensor(4, 2)}, "pairs of LoRA factors alone, found 1 tensors"),
    "a third": (HALVES | {"m.0.bias": tensor(1, at=32)}, "alone, found 3 tensors"),
    "B of another module": ({PAIR[0]: tensor(2, 4), "m.0.o_proj.lora_B.weight": tensor(4, 2, at=32)}, "and nothing"),
    "one dimension": ({PAIR[0]: tensor(8), PAIR[1]: tensor(4, 2, at=32)}, "two factors of rank 2"),
    "B of one dimension": ({PAIR[0]: tensor(2, 4), PAIR[1]: tensor(8, at=32)}, "two factors of rank 2"),
    "three dimensions": ({PAIR[0]: tensor(2, 2, 2), PAIR[1]: tensor(4, 2, at=32)}, "two factors of rank 2"),
    "A of rank 4": (pair((4, 2), (4, 2)), "two factors of rank 2"),
    "B of rank 4": (pair((2, 4), (2, 4)), "two factors of rank 2"),
    "no dimension": (pair() | {PAIR[0]: tensor(bytes_=4)}, "does not fit"),
    "an empty dimension": (pair() | {PAIR[0]: {**tensor(2, 4), "shape": [2, 0], "data_offsets": [0, 0]}}, "does not"),
    "another type": (pair() | {PAIR[0]: {**tensor(2, 4), "dtype": "I32"}}, "does not fit"),
    "before the data": (pair() | {PAIR[0]: tensor(2, 4, at=-1)}, "does not fit"),
    "backwards": (pair() | {PAIR[0]: {**tensor(2, 4), "data_offsets": [32, 0]}}, "does not fit"),
    "a byte too long": (pair() | {PAIR[0]: tensor(2, 4, bytes_=33)}, "does not fit"),
    "behind the data": (pair() | {PAIR[1]: tensor(4, 2, at=33)}, "does not fit"),
    "too many dimensions": ({PAIR[0]: tensor(*[1] * (MOST_DIMENSIONS + 1))}, "does not fit"),
    "as many as may be": ({PAIR[0]: tensor(*[1] * MOST_DIMENSIONS)}, "two factors"),
    "the same bytes twice": (pair() | OTHER, "its tensors overlap"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_wrong_header_is_refused(tmp_path: Path, name: str) -> None:
    """Each is refused for what is wrong with it, and the refusal names file and next step."""
    header, words = REFUSED[name]
    with pytest.raises(CheckpointInvalid, match=words) as refused:
        read_adapter_file(written(tmp_path, header))
    assert "adapter_model.safetensors" in refused.value.message
    assert refused.value.hint.startswith("nothing to do")


def test_pairs_may_fill_the_file(tmp_path: Path) -> None:
    """Two pairs that end with the last byte, and what a writer noted of itself, are a sound adapter of two modules."""
    other = {name: tensor(*one["shape"], at=64 + 32 * number) for number, (name, one) in enumerate(OTHER.items())}
    header = pair() | other | {"__metadata__": {"format": "pt"}}
    assert read_adapter_file(written(tmp_path, header, bytes(128))).lora_shape == "r2:o_proj,q_proj"
    with pytest.raises(CheckpointInvalid, match="does not fit"):
        read_adapter_file(written(tmp_path, header, bytes(127)))


@pytest.mark.parametrize(("most", "is_read"), [(0, True), (-1, False)])
@pytest.mark.parametrize("limit", ["MAX_FILE_BYTES", "MAX_HEADER_BYTES"])
def test_file_may_reach_its_limits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, most: int, is_read: bool
) -> None:
    """A file or a header that is as large as may be is read; one of a byte more is refused for it."""
    directory = written(tmp_path, pair())
    size = (directory / "adapter_model.safetensors").stat().st_size
    monkeypatch.setattr(adapter_file, limit, most + (size if limit == "MAX_FILE_BYTES" else size - 8 - 64))
    if is_read:
        assert read_adapter_file(directory).config.r == 2
    else:
        with pytest.raises(CheckpointInvalid, match=r"adapter of at most|safetensors file"):
            read_adapter_file(directory)


@pytest.mark.parametrize("head", [b"PK", b"\x80\x02", b"\x80\x04"])
def test_pickle_under_another_name_is_told(tmp_path: Path, head: bytes) -> None:
    """By its first two bytes; the hint says how it is converted where it was made."""
    written(tmp_path, pair())
    (tmp_path / "adapter_model.safetensors").write_bytes(head + bytes(100))
    with pytest.raises(CheckpointInvalid, match="under another name") as refused:
        read_adapter_file(tmp_path)
    assert "safe_serialization=True" in refused.value.hint


F16_INFINITE, F16_GREATEST = b"\x00\x7c", b"\xff\x7b"


@pytest.mark.parametrize(
    ("dtype", "number", "is_finite"),
    [
        ("F16", F16_GREATEST, True),
        ("F16", b"\xff\xfb", True),
        ("F16", F16_INFINITE, False),
        ("F16", b"\x00\xfc", False),
        ("F16", b"\x00\x7d", False),
        ("F16", b"\x00\x7e", False),
        ("F16", b"\xff\x7f", False),
        ("F16", b"\xff\xff", False),
        ("BF16", b"\x7f\x7f", True),
        ("BF16", b"\x80\x7f", False),
        ("F32", b"\xff\xff\x7f\x7f", True),
        ("F32", b"\xff\xff\x7f\xff", True),
        ("F32", b"\x00\x00\x80\x7f", False),
        ("F32", b"\x00\x00\x80\xff", False),
        ("F32", b"\x00\x7f\x80\x00", True),
    ],
)
@pytest.mark.parametrize("place", [0, 7])
def test_number_by_cases(tmp_path: Path, dtype: str, number: bytes, is_finite: bool, place: int) -> None:
    """The greatest number of each type is read, infinity and NaN are not, wherever they stand in the first factor."""
    width = len(number)
    header = {PAIR[0]: tensor(2, 4, dtype=dtype), PAIR[1]: tensor(4, 2, dtype=dtype, at=8 * width)}
    data = bytes(place * width) + number + bytes((15 - place) * width)
    directory = written(tmp_path, header, data)
    if is_finite:
        assert read_adapter_file(directory).lora_shape == "r2:q_proj"
    else:
        with pytest.raises(CheckpointInvalid, match=r"q_proj\.lora_A\.weight holds NaN or infinity"):
            read_adapter_file(directory)


def test_every_block_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A weight in the last block of the last tensor is found, too."""
    monkeypatch.setattr(adapter_file, "_BLOCK_BYTES", 8)
    numbers = array("f", [0.0] * 7 + [math.nan])
    good = {PAIR[0]: ([2, 4], array("f", [0.0] * 8)), PAIR[1]: ([4, 2], array("f", [0.0] * 8))}
    written(tmp_path, {})
    (tmp_path / "adapter_model.safetensors").write_bytes(safetensors(good))
    assert read_adapter_file(tmp_path).lora_shape == "r2:q_proj"
    (tmp_path / "adapter_model.safetensors").write_bytes(safetensors(good | {PAIR[1]: ([4, 2], numbers)}))
    with pytest.raises(CheckpointInvalid, match=r"q_proj\.lora_B\.weight holds NaN or infinity"):
        read_adapter_file(tmp_path)


def test_header_may_be_in_any_order(tmp_path: Path) -> None:
    """Each factor is read where it stands, whichever of the two is named first."""
    header = {PAIR[1]: tensor(4, 2, at=32), PAIR[0]: tensor(2, 4)}
    with pytest.raises(CheckpointInvalid, match=r"q_proj\.lora_A\.weight holds NaN"):
        read_adapter_file(written(tmp_path, header, struct.pack("<16f", *[math.nan] * 8, *[0.0] * 8)))


def test_missing_files_are_named(tmp_path: Path) -> None:
    """Neither file there, a pickle alone, and weights without their configuration."""
    with pytest.raises(CheckpointInvalid, match="safetensors file, found none"):
        read_adapter_file(tmp_path)
    (tmp_path / "adapter_model.bin").touch()
    with pytest.raises(CheckpointInvalid, match="a pickle can run code"):
        read_adapter_file(tmp_path)
    written(tmp_path, pair())
    (tmp_path / "adapter_config.json").unlink()
    with pytest.raises(CheckpointInvalid, match=r"adapter_config\.json: not understood"):
        read_adapter_file(tmp_path)
