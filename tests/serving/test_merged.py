"""Tests of whole models for Ollama and LM Studio: a program named ollama loads what was written for a fake engine."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sleepd.errors import ConversionFailed
from tests.serving.fake_engines import FakeEngine
from tests.serving.serving_stage import ServingStage

OLLAMA = """#!/bin/sh
echo "$OLLAMA_HOST $HOME $@" >>{log}
. {fault}
cat "$(dirname "$4")/$(sed -n 's/^FROM //p' "$4")" >{runs}
"""
QUANTIZE = """#!/bin/sh
sed "s/^/$3 /" "$1" >"$2"
"""


class LoadedEngine(FakeEngine):
    """Runs the model that was loaded last."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.file = file

    def runs(self, model: str) -> int | None:
        assert model == self.model
        return int(self.file.read_text().split()[-1]) or None


class FakeMerge:
    """Writes the number of the cycle where the worker writes a model."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.bytes = 1000

    def __call__(self, adapter: Path | None, target: Path, *, form: str, most_bytes: int, **more: Any) -> None:
        if self.bytes > most_bytes:
            raise ConversionFailed("too large", hint="make room")
        cycle = adapter.name.removeprefix("cycle_") if adapter else "0"
        self.asked.append((cycle, form))
        file = target if form != "safetensors" else target / "model.safetensors"
        file.write_text(f"{'x' * self.bytes} {cycle}")


@pytest.fixture
def merge(monkeypatch: pytest.MonkeyPatch) -> FakeMerge:
    found = FakeMerge()
    monkeypatch.setattr("sleepd.serving.serve_process.write_merged", found)
    return found


@pytest.fixture
def stage(
    tmp_path: Path, two_champions: Path, merge: FakeMerge, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ServingStage]:
    """Two champions, and an engine that runs the base."""
    shutil.copytree(two_champions, tmp_path, dirs_exist_ok=True, symlinks=True)
    (tmp_path / "fault").touch()
    (tmp_path / "runs").write_text("0")
    for name, text in (("ollama", OLLAMA), ("llama-quantize", QUANTIZE)):
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(text.format(**{each: tmp_path / each for each in ("log", "fault", "runs")}))
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    with LoadedEngine(tmp_path / "runs") as engine:
        yield ServingStage(tmp_path, engine, "merged", ready_seconds=5.0)


def models(stage: ServingStage) -> list[str]:
    """What stands on the disk, without the hashes."""
    return sorted(each.name.split("-")[0] for each in (stage.state / "serving/merged").iterdir())


def test_model_is_created_and_proved(stage: ServingStage, merge: FakeMerge) -> None:
    """Each generation, and the base too, is one merged model that ollama creates under the agent's model name."""
    assert stage.turns().served == 2
    for wanted in (1, None):
        stage.roll_back()
        state = stage.turns()
        assert (state.served, state.is_proved, state.problem) == (wanted, True, "")
    assert merge.asked == [("002", "q8_0"), ("001", "q8_0"), ("0", "q8_0")]
    first = (stage.directory / "log").read_text().splitlines()[0]
    assert first.startswith(f"{stage.engine.url} {stage.state}/serving create agent -f {stage.state}/serving/merged/")


def test_models_are_bounded_in_number(stage: ServingStage, merge: FakeMerge) -> None:
    """The served model and the one before stay on the disk; what stays is not merged again."""
    stage.turns()
    stage.roll_back()
    stage.turns()
    assert models(stage) == ["cycle_001", "cycle_002"]
    stage.roll_back(0)
    stage.turns()
    assert models(stage) == ["base", "cycle_001"]
    stage.roll_back(1)
    assert stage.turns().served == 1
    assert len(merge.asked) == 3


def test_model_too_large_leaves_what_was_served(stage: ServingStage, merge: FakeMerge) -> None:
    """Where the models would take more disk than allowed, the engine runs what it ran, and no half file stays."""
    stage.roll_back(1)
    stage.turns()
    merge.bytes = 10**9
    stage.configure(merged_gigabytes=0.5)
    stage.roll_back(2)
    state = stage.turns()
    assert (state.wanted, state.served, state.is_proved) == (2, 1, True)
    assert "for the engine: too large" in state.problem
    assert models(stage) == ["cycle_001"]


def test_quantized_model_is_made_from_f16(stage: ServingStage, merge: FakeMerge) -> None:
    """A type of llama-quantize is made by that program; without it, the problem names it."""
    stage.configure(merged_as="Q4_K_M")
    assert stage.turns().served == 2
    assert merge.asked == [("002", "f16")]
    assert (stage.directory / "runs").read_text().startswith("Q4_K_M ")
    (model,) = (stage.state / "serving/merged").iterdir()
    assert sorted(each.name for each in model.iterdir()) == ["Modelfile", "model.gguf"]

    (stage.directory / "bin/llama-quantize").unlink()
    stage.roll_back()
    assert "llama-quantize makes, and" in stage.turns().problem


def test_safetensors_stand_in_a_folder(stage: ServingStage, merge: FakeMerge) -> None:
    """A model as safetensors is a folder that the Modelfile names; the operator's command gets the directory."""
    runs = stage.directory / "runs"
    stage.configure(merged_as="safetensors", command=f"sh -c 'cat $SLEEPD_ADAPTER/model/model.safetensors >{runs}'")
    assert stage.turns().served == 2
    (model,) = (stage.state / "serving/merged").iterdir()
    assert (model / "Modelfile").read_text() == "FROM ./model\n"
    assert not (stage.directory / "log").exists()


def test_failing_ollama_is_quoted(stage: ServingStage) -> None:
    """What ollama answers stands in the problem, and that the base runs on is proved."""
    (stage.directory / "fault").write_text("echo 'Error: unsupported architecture' >&2; exit 1\n")
    state = stage.turns()
    assert "ollama create ended with 1: Error: unsupported architecture" in state.problem
    assert (state.served, state.is_proved) == (None, True)


def test_nothing_to_load_with_is_told(stage: ServingStage) -> None:
    """Without ollama and without a command, the hint names both."""
    (stage.directory / "bin/ollama").unlink()
    state = stage.turns()
    assert "no program ollama" in state.problem
    assert "install Ollama, or set serve.command" in state.hint
