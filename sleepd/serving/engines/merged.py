"""Ollama, LM Studio and others that load no adapters: base and adapter as one model, a new one for each generation.

Each model is a directory, ``serving/merged/cycle_007-SHA-q8_0/``, with the model's file and a Modelfile, or with a
folder of safetensors. It appears when all of it is written. The base is written in the same way and the same numbers.
Two of them stay: the one that is served, and the one before, which can so be put back at once. ``ollama create`` loads
it where that program is; else ``serve.command`` does.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import Final

from sleepd.errors import EngineFailed, NotFound
from sleepd.files import FILE_MODE, fsync_path, make_directory, write_durably
from sleepd.protocol.deployment.serve_messages import Generation
from sleepd.store.checkpoints import read_manifest

from .engine import Bench, adapter_name, await_ready
from .run_program import run_command, run_program

MODELFILE: Final = "Modelfile"
QUANTIZE: Final = "llama-quantize"
_GIGABYTE: Final = 10**9
_SECONDS: Final = 3600.0
"""That quantizing or loading a large model may take."""
_WRITTEN: Final = ("f16", "q8_0", "safetensors")
"""Forms that are written here; any other is made by llama-quantize from f16."""


class Merged:
    """An engine that is given whole models; see ``engine.Engine``."""

    can_start = False
    can_put_back = True

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._form = bench.settings.merged_as
        self._wanted: Generation | None = None

    @property
    def _models(self) -> Path:
        return self._bench.directory / "merged"

    def prepare(self, generation: Generation | None) -> Path | None:
        """As ``Engine.prepare``."""
        self._wanted = generation
        source = generation or self._bench.pattern
        if source is None:
            raise NotFound("there is no adapter yet that names its base", hint="the first cycle makes one")
        base = read_manifest(Path(source.directory)).base_fingerprint
        name = adapter_name(generation) if generation else f"base-{hashlib.sha256(base.encode()).hexdigest()[:12]}"
        target = self._models / f"{name}-{self._form}"
        if not target.is_dir():
            self._write(target, None if generation is None else Path(generation.directory), base)
        return target

    def _write(self, target: Path, adapter: Path | None, base: str) -> None:
        unfinished = self._models / ".unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        make_directory(self._models)
        self._remove_all_but_the_served()
        make_directory(unfinished)
        try:
            self._write_model(unfinished, adapter, base)
            fsync_path(unfinished)
            unfinished.rename(target)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
        fsync_path(self._models)

    def _write_model(self, directory: Path, adapter: Path | None, base: str) -> None:
        room = self._room()
        if self._form == "safetensors":
            model = directory / "model"
            make_directory(model)
            self._bench.merge(adapter, model, form="safetensors", expected=base, most_bytes=room)
        else:
            model = directory / "model.gguf"
            self._write_gguf(model, adapter, base, room)
        write_durably(directory / MODELFILE, f"FROM ./{model.name}\n".encode())

    def _write_gguf(self, model: Path, adapter: Path | None, base: str, room: int) -> None:
        if self._form in _WRITTEN:
            self._bench.merge(adapter, model, form=self._form, expected=base, most_bytes=room)
            return
        program = shutil.which(QUANTIZE)
        if program is None:
            text = f"serve.merged_as is {self._form!r}, which {QUANTIZE} makes, and that program is not installed"
            raise NotFound(text, hint='install llama.cpp\'s tools, or set serve.merged_as to "q8_0" or "f16"')
        whole = model.with_name("f16.gguf")
        # Its quantized copy stands beside it for a while.
        self._bench.merge(adapter, whole, form="f16", expected=base, most_bytes=room // 2)
        run_program([program, str(whole), str(model), self._form], QUANTIZE, _SECONDS, hint="run it by hand")
        whole.unlink()
        model.chmod(FILE_MODE)
        fsync_path(model)

    def _remove_all_but_the_served(self) -> None:
        """Only what was loaded last stays beside the new one."""
        newest_first = sorted(self._models.iterdir(), key=lambda each: each.lstat().st_mtime_ns, reverse=True)
        for each in newest_first[1:]:
            shutil.rmtree(each, ignore_errors=True)

    def _room(self) -> int:
        """Bytes that a new model may take."""
        taken = sum(file.stat().st_size for file in self._models.rglob("*") if file.is_file())
        allowed = int(self._bench.settings.merged_gigabytes * _GIGABYTE) - taken
        return max(1, min(allowed, shutil.disk_usage(self._models).free))

    def wait_until_idle(self, seconds: float) -> bool:  # noqa: ARG002 - a request ends with the model it began with
        """As ``Engine.wait_until_idle``."""
        return True

    def swap(self, prepared: Path | None) -> None:
        """As ``Engine.swap``."""
        assert prepared is not None, "the base is a model too"
        settings, ollama = self._bench.settings, shutil.which("ollama")
        os.utime(prepared)
        if settings.command:
            run_command(settings, self._wanted, prepared)
        elif ollama is not None:
            command = [ollama, "create", settings.model, "-f", str(prepared / MODELFILE)]
            more = {"OLLAMA_HOST": settings.url, "HOME": str(self._bench.directory)}
            run_program(command, "ollama create", _SECONDS, hint="is Ollama running at serve.url?", more=more)
        else:
            text = f"nothing loads the model in {prepared}: there is no program ollama, and serve.command is not set"
            raise EngineFailed(text, hint="install Ollama, or set serve.command to what loads SLEEPD_ADAPTER")
        await_ready(self._bench, "/v1/models")

    def free(self) -> None:
        """As ``Engine.free``."""
        raise EngineFailed("no model can be unloaded by this engine", hint="set serve.free_before_training = false")

    def wake(self) -> None:
        """It was never freed."""
