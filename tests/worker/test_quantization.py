"""A base in four bits: a cycle on it, what its figures say, and that it is another base than the unquantised."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import msgspec
import pytest
import torch

from sleepd.protocol.capability import BaseCheck
from sleepd.protocol.checkpoint.base_identity import quantization_of, weights_part
from sleepd.protocol.job import Report
from sleepd.worker.failure import GiveUp
from sleepd.worker.model import quantization
from sleepd.worker.model.adapted_layers import adapted_norm
from sleepd.worker.model.adapter import load_base, start_adapter
from sleepd.worker.model.device import Device
from sleepd.worker.model.gguf import convert_gguf
from sleepd.worker.model.inspect_base import weight_bytes
from sleepd.worker.model.loading import check_base
from sleepd.worker.model.memory.memory_estimate import need_of, needed_bytes, shape_of
from sleepd.worker.programs import check_base as check_base_program
from sleepd.worker.run import run
from tests.documents import ROOT

from .conftest import RecordingChannel, RunHere, examples, make_job, quick, said_by
from .test_resume import comparable, interrupt

pytestmark = pytest.mark.worker
needs_bitsandbytes = pytest.mark.skipif(quantization.is_missing(), reason=f"needs {quantization.REQUIREMENT}")
CPU = Device(torch.device("cpu"), torch.float32, "cpu")
NF4 = {"quantization": "nf4", "strategy": quick()}


@pytest.fixture(scope="module")
def cycle(tiny_model: Path, models: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Report]:
    """A whole cycle on the tiny model in nf4: its directory, and its report."""
    staging = tmp_path_factory.mktemp("packed") / "staging"
    return staging, run(make_job(tiny_model, models, staging, **NF4), examples(), RecordingChannel())


@needs_bitsandbytes
def test_nf4_cycle_is_whole(cycle: tuple[Path, Report]) -> None:
    """On a base in nf4 the loss falls, what is read back gives the same logits, and each document names nf4."""
    staging, report = cycle
    assert report.train_after < report.train_before - 0.05
    assert [check.name for check in report.checks if not check.passed] == []
    assert quantization_of(report.base_fingerprint) == "nf4"
    assert report.dtype.endswith(", base in nf4")
    assert report.base_fingerprint in (staging / "fingerprint.json").read_text()


@needs_bitsandbytes
def test_nf4_cycle_resumes_alike(cycle: tuple[Path, Report], tiny_model: Path, models: Path, tmp_path: Path) -> None:
    """Stopped in its training and gone on with, adapter and report are those of the unbroken cycle."""
    staging, report = cycle
    job = make_job(tiny_model, models, tmp_path / "broken", **NF4)
    interrupt(job, "training", 2)
    resumed = run(job, examples(), RecordingChannel())
    assert (tmp_path / "broken/adapter_model.safetensors").read_bytes() == (
        staging / "adapter_model.safetensors"
    ).read_bytes()
    assert comparable(resumed) == comparable(report)


@needs_bitsandbytes
@pytest.mark.parametrize("before", ["nf4", "none"])
def test_other_quantization_is_other_base(cycle: tuple[Path, Report], run_here: RunHere, before: str) -> None:
    """A parent that was measured on a base in nf4 is not continued on the unquantised one, nor the other way round."""
    plain = cycle[1].base_fingerprint.replace(":nf4", "")
    expected = cycle[1].base_fingerprint if before == "nf4" else plain
    after = "none" if before == "nf4" else "nf4"
    with pytest.raises(GiveUp, match=f"its quantization was {before} then, and is {after} now") as caught:
        run_here(expected_base=expected, quantization=after)
    assert caught.value.kind == "base_changed"


@needs_bitsandbytes
def test_estimate_knows_packed_weights(tiny_model: Path) -> None:
    """The estimate from the files alone and that of the loaded model agree, and both are below the unquantised one."""
    skeleton = check_base(tiny_model, CPU, "nf4")
    packed = quantization.to_be_quantised(skeleton, "nf4")
    small, large = weight_bytes(skeleton, CPU.dtype, sum(packed)), weight_bytes(skeleton, CPU.dtype)
    assert large - small == pytest.approx(sum(packed) * (4 - 0.516), rel=1e-3)
    adapted = start_adapter(skeleton, quick(), 0)
    estimated = shape_of(adapted, adapted.config, packed)
    loaded = need_of(start_adapter(load_base(tiny_model, CPU, "nf4")[0], quick(), 0), CPU)
    assert loaded.shape == estimated
    assert needed_bytes(loaded, 64) < needed_bytes(need_of(adapted, CPU), 64)


@needs_bitsandbytes
def test_norm_is_of_unpacked_weights(tiny_model: Path) -> None:
    """What an adapter's change is compared with is the norm of the numbers, within what four bits round."""
    norms = [adapted_norm(start_adapter(load_base(tiny_model, CPU, name)[0], quick(), 0)) for name in ("none", "nf4")]
    assert norms[1] == pytest.approx(norms[0], rel=0.05)
    assert norms[1] != norms[0]


def test_converted_gguf_serves_both(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A GGUF is converted once, whatever it is quantised to; the two bases have different fingerprints."""
    monkeypatch.setattr(convert_gguf, "_convert", lambda _gguf, directory: shutil.copytree(tiny_model, directory))
    (tmp_path / "base.gguf").write_bytes(b"GGUF")
    told: list[str] = []
    (one, plain), (two, packed) = (
        convert_gguf.open_base(
            str(tmp_path / "base.gguf"), "", tmp_path / "models", lambda event, _: told.append(event), quantization=name
        )
        for name in ("none", "nf4")
    )
    assert one == two
    assert told == ["base_converting", "base_converted"]
    assert (weights_part(packed), quantization_of(plain), quantization_of(packed)) == (f"{plain}:nf4", "none", "nf4")


@pytest.mark.parametrize("form", ["directory", "gguf"])
def test_missing_bitsandbytes_is_told(
    form: str, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without bitsandbytes ``check_base`` refuses before a weight is read, with the command that installs it."""
    monkeypatch.setattr(quantization, "is_missing", lambda: True)
    (tmp_path / "base.gguf").write_bytes(b"GGUF")
    found = checked(tmp_path / "base.gguf" if form == "gguf" else tiny_model, "nf4")
    assert "bitsandbytes" in found.problem
    assert found.hint == f"{sys.executable} -m pip install --no-deps {quantization.REQUIREMENT}"
    assert f"{quantization.REQUIREMENT} \\\n" in (ROOT / "config/requirements/nf4.txt").read_text()


@needs_bitsandbytes
def test_doctor_is_told_less_memory(tiny_model: Path) -> None:
    """What ``check_base`` tells ``sleepctl doctor`` of a base in nf4 is less than of the same base unquantised."""
    packed, plain = (checked(tiny_model, name) for name in ("nf4", "none"))
    assert (packed.problem, packed.adapts) == ("", plain.adapts)
    assert packed.needed_bytes < plain.needed_bytes


def checked(base: Path, name: str) -> BaseCheck:
    """What ``check_base`` prints."""
    said = said_by(check_base_program.main, "--base", base, "--device", "cpu", "--quantization", name)
    return msgspec.json.decode(said, type=BaseCheck)


@needs_bitsandbytes
def test_unsupported_device_is_told(tiny_model: Path) -> None:
    """Where bitsandbytes does not compute, the base is refused with the library's own words and the way out."""
    nowhere = Device(torch.device("meta"), torch.float32, "meta")
    with pytest.raises(GiveUp, match=r"does not work on meta") as caught:
        check_base(tiny_model, nowhere, "nf4")
    assert 'model.quantization = "none"' in caught.value.hint
