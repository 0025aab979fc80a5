"""An adapter as a GGUF file, made once for each generation and found again: ``cycle_007-f16-SOURCE-CONTENT.gguf``.

SOURCE is the beginning of the sha256 over the adapter's files and the base's name, CONTENT that of the GGUF file
itself. So no engine ever sees other bytes under a name that it knows, and a file that was damaged on the disk since is
not taken for a whole one. The worker's interpreter writes into a hidden directory beside the file, reads it back and
compares it; then the file is renamed. What a break-off leaves in that directory is removed by the next conversion.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final

from sleepd.errors import ConversionFailed
from sleepd.files import fsync_path, hashed, make_directory
from sleepd.protocol.checkpoint.checkpoint_files import CONFIG_FILE, WEIGHTS_FILE
from sleepd.protocol.deployment.converted_adapter import ConvertedAdapter, Quantization
from sleepd.worker_program import NoAnswer, ask_worker

_CONVERTING: Final = ".converting"
_SHOWN: Final = 12
"""Digits of each hash in the name."""


def prepared_gguf(
    adapter_directory: Path,
    output_directory: Path,
    *,
    python: str,
    base: Path | str,
    quantization: Quantization,
    cache_directory: str = "",
) -> Path:
    """The GGUF file of an adapter in ``output_directory``: the one that is there, else a new one.

    Args:
        adapter_directory: a checkpoint's, or a link to it.
        output_directory: made where it is not there.
        python: the worker's interpreter.
        base: of the adapter, as ``model.base`` names it.
        quantization: how the file holds its numbers.
        cache_directory: the hub cache, where it is not the default one.

    Raises:
        ConversionFailed: base or adapter cannot be used, or the disk is full.
    """
    adapter = adapter_directory.resolve()
    try:
        stem = f"{adapter.name}-{quantization}-{_source(adapter, str(base))[:_SHOWN]}"
        make_directory(output_directory)
        convert = partial(_convert, adapter, python, str(base), quantization, cache_directory)
        with _locked(output_directory):
            if found := _whole_file(output_directory, stem):
                return found
            return _made(output_directory, stem, convert)
    except OSError as error:
        text = f"no GGUF file of {adapter} in {output_directory}: {error.strerror or error}: {error.filename or ''}"
        raise ConversionFailed(text.rstrip(": "), hint="make room on that disk, or name another directory") from error


def _made(directory: Path, stem: str, convert: Callable[[Path], None]) -> Path:
    temporary = directory / _CONVERTING
    shutil.rmtree(temporary, ignore_errors=True)
    make_directory(temporary)
    try:
        made = temporary / f"{stem}.gguf"
        convert(made)
        target = directory / f"{stem}-{hashed(made)[0][:_SHOWN]}.gguf"
        made.replace(target)
        fsync_path(directory)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def _source(adapter: Path, base: str) -> str:
    digests = [hashed(adapter / name)[0] for name in (CONFIG_FILE, WEIGHTS_FILE)]
    return hashlib.sha256("\0".join([*digests, base]).encode()).hexdigest()


def _whole_file(directory: Path, stem: str) -> Path | None:
    """The file whose content is what its name says; any other of that name is removed."""
    for file in sorted(directory.glob(f"{stem}-*.gguf")):
        if file.stem == f"{stem}-{hashed(file)[0][:_SHOWN]}":
            return file
        file.unlink()
    return None


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """In this context nobody else converts into that directory."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _convert(adapter: Path, python: str, base: str, quantization: Quantization, cache: str, made: Path) -> None:
    arguments = ["sleepd.worker.programs.adapter_to_gguf", "--adapter", str(adapter), "--base", base]
    arguments += ["--cache", cache, "--numbers", quantization, "--to", str(made)]
    try:
        answer = ask_worker(python, arguments, ConvertedAdapter)
    except NoAnswer as error:
        text = f"{python} did not convert {adapter} to GGUF: {error}"
        raise ConversionFailed(text, hint="sleepctl doctor checks the worker's interpreter") from error
    if answer.problem:
        raise ConversionFailed(f"{adapter} was not converted to GGUF: {answer.problem}", hint=answer.hint)
