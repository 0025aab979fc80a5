"""The real llama.cpp server, with what was converted for it: it computes what the worker computes."""

from __future__ import annotations

import json
import math
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("xllamacpp")

import gguf  # noqa: E402

from sleepd.protocol.deployment.converted_adapter import ConvertedAdapter  # noqa: E402
from sleepd.serving.gguf_conversion import prepared_gguf  # noqa: E402
from sleepd.worker.failure import GiveUp  # noqa: E402
from sleepd.worker.model.adapter import load_base  # noqa: E402
from sleepd.worker.model.device import Device  # noqa: E402
from sleepd.worker.model.find_base import find_base  # noqa: E402
from sleepd.worker.model.gguf.gguf_architecture import find_architecture  # noqa: E402
from sleepd.worker.model.gguf.merged_model import write_merged_gguf  # noqa: E402
from sleepd.worker.programs.tiny_model import make_tiny_model  # noqa: E402
from sleepd.worker_program import ask_worker  # noqa: E402
from tests.tiny_engine import base_gguf, llama_server  # noqa: E402

from .tiny_adapter import adapted  # noqa: E402

CPU = Device(torch.device("cpu"), torch.float32, "cpu")
TEXTS = ["Who are you?", "The capital of France is", "def add(a, b):", "Tell me a story about the sea."]
Chances = list[dict[int, float]]
"""Of each text: the log-probability of each token that may follow."""


def of_worker(model: Any, prompts: list[list[int]]) -> Chances:
    """What torch computes."""
    found = []
    with torch.inference_mode():
        for ids in prompts:
            logits = model(input_ids=torch.tensor([ids])).logits[0, -1].float()
            found.append(dict(enumerate(torch.log_softmax(logits, -1).tolist())))
    return found


def of_server(base: Path, prompts: list[list[int]], *adapters: Path) -> Chances:
    """What a server started for it answers."""
    found = []
    with llama_server(base, adapters, n_ctx=512) as url:
        for ids in prompts:
            asked: dict[str, Any] = {
                "prompt": ids,
                "n_predict": 1,
                "n_probs": 20,
                "temperature": 0.0,
                "cache_prompt": False,
            }
            # Half a character would be answered without chances; they are told as they were before the bias.
            asked["logit_bias"] = [[prompts[0][0], 1000.0]]
            request = urllib.request.Request(f"{url}/completion", json.dumps(asked).encode())
            with urllib.request.urlopen(request, timeout=60) as answer:
                first = json.load(answer)["completion_probabilities"][0]
            found.append({one["id"]: one["logprob"] for one in first["top_logprobs"]})
    return found


def apart(served: Chances, computed: Chances) -> float:
    """Root mean square of the differences, weighted with the probabilities."""
    squares = weights = 0.0
    for one, other in zip(served, computed, strict=True):
        for token, chance in one.items():
            weights += math.exp(chance)
            squares += math.exp(chance) * (chance - other[token]) ** 2
    return math.sqrt(squares / weights)


def merged(base: str, adapter: Path, models: Path, numbers: str) -> Path:
    """The merged GGUF file, made by the program."""
    target = models / f"merged-{numbers}.gguf"
    arguments = ["sleepd.worker.programs.merge_adapter", "--adapter", str(adapter), "--base", base]
    arguments += ["--models", str(models), "--form", "gguf", "--numbers", numbers, "--to", str(target)]
    assert ask_worker(sys.executable, arguments, ConvertedAdapter).problem == ""
    return target


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The tiny model as a directory, and as a GGUF file."""
    directory = tmp_path_factory.mktemp("tiny")
    make_tiny_model(directory / "base")
    return directory / "base", base_gguf(directory / "base", directory / "tiny.gguf")


@pytest.mark.worker
def test_base_alone_is_written_in_the_same_form(tiny: tuple[Path, Path], tmp_path: Path) -> None:
    """Merged with nothing, the base keeps every number; a model that would take too much disk is not begun."""
    _, base = tiny
    architecture = find_architecture(find_base(str(base), ""))
    count = write_merged_gguf(tmp_path / "alone.gguf", base, None, architecture, "f32")
    before, after = (gguf.GGUFReader(path).tensors for path in (base, tmp_path / "alone.gguf"))
    assert count == len(before) > 0
    assert all((one.data == other.data).all() for one, other in zip(before, after, strict=True))
    with pytest.raises(GiveUp, match=r"there is room for 0\.00 GB"):
        write_merged_gguf(tmp_path / "large.gguf", base, None, architecture, "f32", most_bytes=1000)
    assert not (tmp_path / "large.gguf").exists()


@pytest.mark.worker
@pytest.mark.model
def test_tiny_model_is_served_alike(tiny: tuple[Path, Path], tmp_path: Path) -> None:
    """Base, adapter in both number formats, and merged model: the server's chances are the worker's."""
    directory, base = tiny
    model, tokenizer = load_base(directory, CPU)
    prompts = [tokenizer(text).input_ids for text in TEXTS]
    plain = of_worker(model, prompts)
    with_adapter = of_worker(adapted(model, tmp_path / "cycle_001", directory, 2.0), prompts)
    assert apart(of_server(base, prompts), plain) < 0.01
    for numbers in ("f16", "q8_0"):
        made = prepared_gguf(
            tmp_path / "cycle_001", tmp_path / "out", python=sys.executable, base=base, quantization=numbers
        )
        served = of_server(base, prompts, made)
        assert apart(served, with_adapter) < 0.03
        assert apart(served, plain) > 0.1
    served = of_server(merged(str(base), tmp_path / "cycle_001", tmp_path, "f32"), prompts)
    assert apart(served, with_adapter) < 0.01
