"""GGUF to safetensors, once a file: transformers needs 15 s to read a GGUF and 1 s to read the copy."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from .base import find_base, fingerprint, fsync_path
from .failure import GiveUp

_TEMPORARY = ".converting-"


Say = Callable[[str, str], object]
"""Takes the name of an event and a text."""


def open_base(
    name: str, cache_directory: str, models_directory: Path, say: Say, *, expected: str = ""
) -> tuple[Path, str]:
    """The directory of safetensors of the base called ``name``, converted if need be, and its fingerprint.

    Raises:
        GiveUp: ``base_unusable``, or ``base_changed`` where its fingerprint is not the ``expected`` one.
    """
    models_directory.mkdir(parents=True, exist_ok=True)
    base = find_base(name, cache_directory)
    found = fingerprint(base, models_directory)
    if expected and expected != found:
        raise GiveUp(
            "base_changed",
            f"the parent was trained on the base {expected[:12]}, {name} is {found[:12]}",
            "put the old base back, or start a new lineage: sleepctl rebase",
        )
    if not base.is_gguf:
        return base.path, found
    return _converted_copy(base.path, found, models_directory, say), found


def _converted_copy(gguf: Path, sha256: str, models_directory: Path, say: Say) -> Path:
    """The directory under ``models_directory`` which holds the safetensors copy; made if it is not there.

    The copy is bfloat16 whatever the quantisation was: what every device trains in, and half the size of float32. It is
    built beside and renamed, so that a copy that exists is whole.

    Raises:
        GiveUp: ``base_unusable``, the file cannot be read as a model.
    """
    target = models_directory / f"{gguf.stem}-{sha256[:12]}"
    if (target / "config.json").is_file():
        return target
    for stale in models_directory.glob(f"{_TEMPORARY}*"):
        shutil.rmtree(stale)
    temporary = models_directory / f"{_TEMPORARY}{os.getpid()}"
    say("base_converting", f"converting {gguf.name} to safetensors, once")
    _convert(gguf, temporary)
    source = {"file": gguf.name, "sha256": sha256, "dtype": "bfloat16"}
    (temporary / "source.json").write_text(json.dumps(source, indent=1), encoding="utf-8")
    readable = (temporary / "config.json").stat().st_mode
    for file in temporary.iterdir():
        file.chmod(readable)  # the writer of safetensors leaves them to their owner alone, whatever the umask
        fsync_path(file)
    fsync_path(temporary)
    temporary.rename(target)
    fsync_path(models_directory)
    say("base_converted", f"{gguf.name} is now {target}")
    return target


def _convert(gguf: Path, directory: Path) -> None:
    try:
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name, local_files_only=True)
        model = AutoModelForCausalLM.from_pretrained(
            gguf.parent, gguf_file=gguf.name, dtype=torch.float32, local_files_only=True
        )
        _make_plain(model)
    except (OSError, ValueError, KeyError, IndexError, RuntimeError, NotImplementedError, ImportError) as error:
        raise GiveUp(
            "base_unusable",
            f"{gguf} cannot be read as a model: {error}",
            "check the file's sha256 against its source, or name a safetensors directory instead",
        ) from error
    model.to(torch.bfloat16).save_pretrained(directory)
    tokenizer.save_pretrained(directory)


def _make_plain(model: Any) -> None:
    """Let a model that was read from GGUF be saved as an ordinary one.

    transformers marks it as quantised, refuses to save it for that, and leaves out the class's name, although the
    weights it made are plain.
    """
    packed = [name for name, weight in model.named_parameters() if not weight.is_floating_point()]
    if packed:
        raise ValueError(f"{len(packed)} weights are still quantised, such as {packed[0]}")
    model.hf_quantizer = None
    for name in ("quantization_config", "_pre_quantization_dtype"):
        if hasattr(model.config, name):
            delattr(model.config, name)
    model.is_quantized = False
    model.config.architectures = [type(model).__name__]
