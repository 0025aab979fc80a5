"""``sleepctl export``: one cycle's adapter for another program, with what was measured beside it."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from sleepd.protocol.checkpoint.checkpoint_files import Evaluation
from sleepd.sleepctl.__main__ import main
from tests.kept import kept
from tests.sleepctl import sleepctl_scenes as scenes
from tests.sleepctl.sleepctl_ran import Ran

Export = Callable[..., Ran]


def checkpoint(directory: Path, files: dict[str, bytes], base: str = "") -> Path:
    """A promoted cycle with these files of the adapter."""
    directory.mkdir(parents=True)
    evaluation = Evaluation(verdict=scenes.FULL.verdict, report=scenes.FULL.report)
    (directory / "evaluation.json").write_bytes(msgspec.json.encode(evaluation))
    hashes = {name: {"sha256": hashlib.sha256(content).hexdigest()} for name, content in files.items()}
    (directory / "manifest.json").write_text(json.dumps({"base_fingerprint": base, "files": hashes}))
    for name, content in files.items():
        (directory / name).write_bytes(content)
    return directory


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state directory with one cycle, whose adapter nobody could load."""
    files = {"adapter_model.safetensors": b"weights", "adapter_config.json": b"{}"}
    return checkpoint(tmp_path / "state/cycle_007", files).parent


@pytest.fixture
def export(state: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Export:
    monkeypatch.setenv("SLEEPD_WORKER_PYTHON", sys.executable)

    def run(*arguments: str | Path) -> Ran:
        code = main(["export", *map(str, arguments), "--state", str(state)])
        said = capsys.readouterr()
        return Ran(code, said.out, said.err)

    return run


def test_peft_files_are_copied(export: Export, state: Path, tmp_path: Path) -> None:
    """The adapter's files are those of the cycle, and the README has every figure and says that they were measured."""
    done = export(7, "--to", tmp_path / "out")
    assert done.code == 0
    assert (tmp_path / "out/adapter_model.safetensors").read_bytes() == b"weights"
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "README.md", "export.json", "adapter_config.json", "adapter_model.safetensors",
    }  # fmt: skip
    said = (tmp_path / "out/README.md").read_text()
    assert said == kept("export", said)
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "out").iterdir()} == {0o640}


def test_json_is_what_stands_beside(export: Export, tmp_path: Path) -> None:
    """With --json it prints what export.json holds: hashes, base, and that the files were measured."""
    printed = export(7, "--to", tmp_path / "out", "--json").json
    assert printed == json.loads((tmp_path / "out/export.json").read_text())
    assert printed["is_measured"] is True
    assert printed["files"][1]["sha256"] == hashlib.sha256(b"weights").hexdigest()


def test_nothing_is_overwritten(export: Export, tmp_path: Path) -> None:
    """A directory that is there stays as it is, empty or not."""
    (tmp_path / "out").mkdir()
    refused = export(7, "--to", tmp_path / "out")
    assert (refused.code, "nothing is overwritten" in refused.err) == (2, True)
    assert list((tmp_path / "out").iterdir()) == []


def test_missing_cycle_is_not_found(export: Export, tmp_path: Path) -> None:
    """A cycle that is not there, or whose weights were pruned, is exit code 4."""
    assert export(8, "--to", tmp_path / "out").code == 4
    (tmp_path / "state/cycle_007/adapter_model.safetensors").unlink()
    refused = export(7, "--to", tmp_path / "out")
    assert (refused.code, "no weights any more" in refused.err) == (4, True)


def test_damaged_adapter_is_refused(export: Export, state: Path, tmp_path: Path) -> None:
    """Bytes that the cycle did not write leave no directory behind."""
    (state / "cycle_007/adapter_model.safetensors").write_bytes(b"other")
    refused = export(7, "--to", tmp_path / "out")
    assert (refused.code, "is not what the cycle wrote" in refused.err) == (1, True)
    assert not (tmp_path / "out").exists()


def test_packed_base_is_named(export: Export, state: Path, tmp_path: Path) -> None:
    """What was measured on a base in nf4 says so, and is not merged, for no merged model holds that base."""
    files = {"adapter_model.safetensors": b"weights", "adapter_config.json": b"{}"}
    checkpoint(state / "cycle_009", files, base="aa:nf4+bb")
    assert export(9, "--to", tmp_path / "out", "--json").json["quantization"] == "nf4"
    assert "on the base in nf4" in (tmp_path / "out/README.md").read_text()
    refused = export(9, "--to", tmp_path / "whole", "--as", "merged")
    assert (refused.code, "on the base in nf4" in refused.err) == (1, True)


@pytest.mark.worker
@pytest.mark.model
@pytest.mark.measured
def test_failed_conversion_leaves_nothing(export: Export, tmp_path: Path) -> None:
    """The worker's refusal is shown, and neither a directory nor its beginning is left."""
    refused = export(7, "--to", tmp_path / "out", "--as", "gguf")
    assert (refused.code, "adapter_config.json" in refused.err) == (1, True)
    assert {path.name for path in tmp_path.iterdir()} == {"state"}


@pytest.mark.worker
@pytest.mark.model
def test_merged_forms_are_named_unmeasured(
    export: Export, state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A merged directory loads as a whole model, a merged GGUF has a Modelfile, and no text calls them measured."""
    pytest.importorskip("torch")
    from tests.serving.tiny_adapter import save_tiny_adapter
    from tests.tiny_engine import base_gguf

    base = tmp_path / "base"
    files = save_tiny_adapter(base, tmp_path / "adapter")
    checkpoint(state / "cycle_008", {name: (tmp_path / "adapter" / name).read_bytes() for name in files})
    gguf = base_gguf(base, tmp_path / "tiny.gguf")
    monkeypatch.setenv("SLEEPD_MODEL_BASE", str(base))
    whole = export(8, "--to", tmp_path / "whole", "--as", "merged")
    assert whole.code == 0
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {
        one.name for one in (tmp_path / "whole").iterdir()
    }
    refused = export(8, "--to", tmp_path / "file", "--as", "merged-gguf")
    assert (refused.code, "--base-gguf" in refused.err) == (1, True)
    made = export(8, "--to", tmp_path / "file", "--as", "merged-gguf", "--base-gguf", gguf, "--json").json
    assert (made["is_measured"], made["numbers"], made["base"]) == (False, "f16", str(gguf))
    assert (tmp_path / "file/Modelfile").read_text() == "FROM ./cycle_008.gguf\n"
    for each in ("whole", "file"):
        assert "not measured" in (tmp_path / each / "README.md").read_text()
