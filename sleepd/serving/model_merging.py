"""A base and an adapter written as one model, by the worker's interpreter."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from sleepd.errors import ConversionFailed
from sleepd.protocol.deployment.converted_adapter import ConvertedAdapter
from sleepd.worker_program import NoAnswer, ask_worker

_SECONDS: Final = 3 * 3600.0
"""A large model in a processor's memory, written in another number format."""


def write_merged(
    adapter: Path | None,
    target: Path,
    *,
    form: str,
    expected: str,
    most_bytes: int,
    python: str,
    base: str,
    cache_directory: str,
    models: Path,
) -> None:
    """Write the base with an adapter into a new file or directory.

    Args:
        adapter: a checkpoint's directory; None: the base alone.
        target: the new file, or for safetensors the new directory.
        form: ``f16`` or ``q8_0``, of a GGUF file; or ``safetensors``.
        expected: the base's fingerprint, as the adapter's manifest has it; empty: nobody recorded it.
        most_bytes: it may take.
        python: the worker's interpreter.
        base: as ``model.base`` names it.
        cache_directory: the hub cache; empty: the default one.
        models: where converted copies of models stand.

    Raises:
        ConversionFailed: base or adapter cannot be used, it is too large, or the disk is full.
    """
    arguments = ["sleepd.worker.programs.merge_adapter", "--base", base, "--cache", cache_directory]
    arguments += ["--expected", expected, "--models", str(models), "--most-bytes", str(most_bytes), "--to", str(target)]
    arguments += ["--form", "safetensors"] if form == "safetensors" else ["--form", "gguf", "--numbers", form]
    arguments += ["--adapter", str(adapter)] if adapter else []
    try:
        answer = ask_worker(python, arguments, ConvertedAdapter, seconds=_SECONDS)
    except NoAnswer as error:
        text = f"{python} wrote no merged model: {error}"
        raise ConversionFailed(text, hint="sleepctl doctor checks the worker's interpreter") from error
    if answer.problem:
        raise ConversionFailed(answer.problem, hint=answer.hint)
