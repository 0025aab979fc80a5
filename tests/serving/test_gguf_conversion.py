"""The GGUF file of a generation: made once, found again, never half of one."""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sleepd.errors import ConversionFailed
from sleepd.serving.gguf_conversion import prepared_gguf

pytestmark = pytest.mark.worker


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter for the tiny model that lies beside it."""
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    directory = tmp_path_factory.mktemp("state")
    (directory / "base").mkdir()
    config = {"model_type": "llama", "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2}
    (directory / "base/config.json").write_text(json.dumps(config))
    save_file({"one": torch.zeros(1)}, directory / "base/model.safetensors")
    adapter = directory / "cycle_007"
    adapter.mkdir()
    names = {"A": (4, 32), "B": (32, 4)}
    prefix = "base_model.model.model.layers.0.self_attn.q_proj.lora_"
    save_file(
        {f"{prefix}{side}.weight": torch.rand(shape) for side, shape in names.items()},
        adapter / "adapter_model.safetensors",
    )
    (adapter / "adapter_config.json").write_text('{"peft_type": "LORA", "lora_alpha": 8, "r": 4}')
    (directory / "current").symlink_to("cycle_007")
    return adapter


def prepare(checkpoint: Path, output: Path, **changes: Any) -> Path:
    """The file in that directory."""
    given = {"python": sys.executable, "base": checkpoint.parent / "base", "quantization": "f16"}
    return prepared_gguf(checkpoint, output, **{**given, **changes})


def refuses_to_start(tmp_path: Path) -> str:
    """An interpreter that fails whoever starts it."""
    return script(tmp_path / "refusing", "exit 7")


def script(path: Path, text: str) -> str:
    """A program of the shell."""
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_made_once_and_found_again(checkpoint: Path, tmp_path: Path) -> None:
    """The second call starts no program; the name holds the cycle, the form and two hashes; the group may read it."""
    made = prepare(checkpoint, tmp_path / "out")
    assert prepare(checkpoint.parent / "current", tmp_path / "out", python=refuses_to_start(tmp_path)) == made
    assert made.name.startswith("cycle_007-f16-")
    assert [len(part) for part in made.stem.split("-")[2:]] == [12, 12]
    assert made.stat().st_mode & 0o777 == 0o640
    assert os.listdir(tmp_path / "out") == [made.name]


@pytest.mark.model
@pytest.mark.measured
def test_each_form_has_its_own_name(checkpoint: Path, tmp_path: Path) -> None:
    """Another number format is another file beside the first."""
    made = {prepare(checkpoint, tmp_path, quantization=each).name for each in ("f16", "f32")}
    assert len(made) == 2


@pytest.mark.model
@pytest.mark.measured
def test_damaged_file_is_made_anew(checkpoint: Path, tmp_path: Path) -> None:
    """A file whose bytes changed on the disk is not given to an engine."""
    made = prepare(checkpoint, tmp_path)
    whole = made.read_bytes()
    made.write_bytes(whole[:-1] + b"x")
    assert prepare(checkpoint, tmp_path) == made
    assert made.read_bytes() == whole


def test_killed_conversion_leaves_nothing(checkpoint: Path, tmp_path: Path) -> None:
    """A converter that is killed in the middle is reported, and the next call makes the file."""
    half = 'for last; do :; done; printf GGUF > "$last"; kill -9 $$'
    with pytest.raises(ConversionFailed, match="did not convert"):
        prepare(checkpoint, tmp_path / "out", python=script(tmp_path / "half", half))
    assert os.listdir(tmp_path / "out") == []
    (tmp_path / "out/.converting").mkdir()  # as a power cut leaves it
    (tmp_path / "out/.converting/cycle_007.gguf").write_bytes(b"GGUF")
    made = prepare(checkpoint, tmp_path / "out")
    assert os.listdir(tmp_path / "out") == [made.name]


@pytest.fixture
def full_disk() -> Iterator[None]:
    """No file of this process, or of one that it starts, grows beyond 100 bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.model
@pytest.mark.measured
def test_full_disk_is_reported(checkpoint: Path, tmp_path: Path, full_disk: None) -> None:
    """A disk that does not take the file leaves nothing, and the error names the file and the next step."""
    with pytest.raises(ConversionFailed, match="cannot be written") as failed:
        prepare(checkpoint, tmp_path / "out")
    assert failed.value.hint.startswith("make room")
    assert os.listdir(tmp_path / "out") == []


def test_refusal_is_handed_on(checkpoint: Path, tmp_path: Path) -> None:
    """What the program found wrong, and its hint, are those of the error."""
    base = tmp_path / "base"
    base.mkdir()
    (base / "config.json").write_text('{"model_type": "mamba"}')
    (base / "model.safetensors").touch()
    with pytest.raises(ConversionFailed, match="mamba cannot be converted") as failed:
        prepare(checkpoint, tmp_path / "out", base=base)
    assert "vLLM" in failed.value.hint
