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

from sleepd.files import fsync_path
from sleepd.protocol.checkpoint.base_identity import (
    UNQUANTISED,
    in_quantization,
    is_same_base,
    quantization_of,
    weights_part,
)
from sleepd.worker.failure import GiveUp
from sleepd.worker.model.find_base import adapter_beside, find_base, fingerprint, met_as, seen_files
from sleepd.worker.model.inspect_base import reading, require_whole

_TEMPORARY = ".converting-"


Notify = Callable[[str, str], object]
"""Takes the name of an event and a text."""


def open_base(
    name: str,
    cache_directory: str,
    models_directory: Path,
    notify: Notify,
    *,
    expected: str = "",
    quantization: str = UNQUANTISED,
) -> tuple[Path, str]:
    """The directory of safetensors of the base called ``name``, converted if need be, and its fingerprint.

    The files are the same whatever they are quantised to while they are loaded; the fingerprint is another.

    Raises:
        GiveUp: ``base_unusable``, or ``base_changed`` where its fingerprint is not the ``expected`` one.
    """
    models_directory.mkdir(parents=True, exist_ok=True)
    base = find_base(name, cache_directory)
    files = fingerprint(base, models_directory)
    found = in_quantization(files, quantization)
    if expected and not is_same_base(met_as(expected, found, models_directory), found):
        raise GiveUp(
            "base_changed",
            f"{name} is another base than the adapter was trained on: {_difference(expected, found)}",
            "put the old files or model.quantization back, or start a new lineage: sleepctl rebase; to judge another "
            "machine's adapter, use the same base on both machines",
        )
    if not base.is_gguf:
        if beside := adapter_beside(base.path):
            text = f"{base.path} holds {beside}: the base is used without that adapter; move it away if nobody needs it"
            notify("adapter_beside_base", text)
        return base.path, found
    return _converted_copy(base.path, files, models_directory, notify), found


def _difference(expected: str, found: str) -> str:
    was, is_ = quantization_of(expected), quantization_of(found)
    if was != is_:
        return f"its quantization was {was} then, and is {is_} now"
    if weights_part(expected) != weights_part(found):
        return f"weights {weights_part(expected)[:12]} then, {weights_part(found)[:12]} now"
    return "the weights are the same; configuration, tokenizer or chat template were changed"


def _converted_copy(gguf: Path, sha256: str, models_directory: Path, notify: Notify) -> Path:
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
    notify("base_converting", f"converting {gguf.name} to safetensors, once")
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
    notify("base_converted", f"{gguf.name} is now {target}")
    return target


def _convert(gguf: Path, directory: Path) -> None:
    hint = "check the file's sha256 against its source, or name a safetensors directory instead"
    with reading(f"{gguf} cannot be read as a model", hint=hint), seen_files(gguf) as seen:
        tokenizer = AutoTokenizer.from_pretrained(seen, gguf_file=gguf.name, local_files_only=True)
        model, loading = AutoModelForCausalLM.from_pretrained(
            seen, gguf_file=gguf.name, dtype=torch.float32, local_files_only=True, output_loading_info=True
        )
        require_whole(gguf, loading)
        _make_plain(model)
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
