"""llama-server in router mode: the presets file says which adapter a model has, and a reload takes it over.

What was measured of build b10605 decides the order here. A request under way blocks a reload for ten seconds and is
then broken off: the slots are asked first. Other bytes under a path that the server knows are not loaded, and nothing
says so: each generation has a file name of its own. An adapter that does not load shows only in ``/models``: that is
read back. Without a ``lora`` line the model is the base itself.
"""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import quote

import msgspec

from sleepd.config.serve_config import INI_FILE
from sleepd.errors import ConfigError, EngineFailed
from sleepd.files import read_document, replace_file
from sleepd.protocol.deployment.serve_messages import Generation

from .engine import Bench, Slot, until, until_idle

MAX_INI_BYTES = 256 * 1024
_SECTION = re.compile(r"^\s*\[(.*)\]\s*$")
_LORA = re.compile(r"^\s*(lora|lora-scaled|LLAMA_ARG_LORA\w*)\s*=", re.IGNORECASE)


class _LoadStatus(msgspec.Struct, frozen=True):
    value: str = ""
    failed: bool = False
    exit_code: int = 0


class _RoutedModel(msgspec.Struct, frozen=True):
    id: str
    status: _LoadStatus = _LoadStatus()


class _RoutedModels(msgspec.Struct, frozen=True):
    data: list[_RoutedModel]


class LlamaRouter:
    """``llama-server --models-preset FILE``; see ``engine.Engine``."""

    can_start = False
    can_put_back = True

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        settings = bench.settings
        self._model = settings.model
        self.ini = Path(settings.ini) if settings.ini else bench.directory / INI_FILE

    def prepare(self, generation: Generation | None) -> Path | None:
        """As ``Engine.prepare``."""
        with_adapter(self._read(), self._model, None, self.ini)  # a wrong file is found before anything is converted
        if generation is None:
            return None
        return self._bench.to_gguf(Path(generation.directory), self._bench.adapters)

    def wait_until_idle(self, seconds: float) -> bool:
        """As ``Engine.wait_until_idle``."""
        return until_idle(self._is_idle, self._bench, seconds)

    def _is_idle(self) -> bool:
        if self._state().value != "loaded":
            return True
        path = f"/slots?model={quote(self._model, safe='')}&autoload=false"
        return not any(slot.is_processing for slot in self._bench.server.json("GET", path, list[Slot]))

    def swap(self, prepared: Path | None) -> None:
        """As ``Engine.swap``."""
        content = with_adapter(self._read(), self._model, prepared, self.ini)
        replace_file(self.ini, content.encode())
        self._bench.server.json("GET", "/models?reload=1", _RoutedModels)
        self._load()

    def _load(self) -> None:
        """Have the model loaded, and wait until it is.

        Raises:
            EngineFailed: it does not load.
        """
        if self._state().value not in ("loaded", "loading"):
            self._bench.server.json("POST", "/models/load", dict[str, object], {"model": self._model})
        states: list[_LoadStatus] = []

        def has_ended() -> bool:
            states.append(self._state())
            return states[-1].failed or states[-1].value == "loaded"

        seconds = self._bench.settings.ready_seconds
        is_over = until(has_ended, seconds, self._bench.sleep)
        if is_over and states[-1].value == "loaded" and not states[-1].failed:
            return
        how = f"it ended with {states[-1].exit_code}" if is_over else f"it was not loaded within {seconds:g} s"
        raise EngineFailed(f"llama-server could not load the model {self._model!r}: {how}", hint="its own log says why")

    def _state(self) -> _LoadStatus:
        models = self._bench.server.json("GET", "/models", _RoutedModels).data
        found = next((each.status for each in models if each.id == self._model), None)
        if found is None:
            text = f"llama-server knows no model {self._model!r}"
            raise EngineFailed(text, hint=f"was it started with --models-preset {self.ini}?")
        return found

    def _read(self) -> str:
        try:
            return read_document(self.ini, MAX_INI_BYTES).decode()
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise ConfigError(f"{self.ini}: cannot be read: {why}", hint="sleepctl setup-serve writes one") from error

    def free(self) -> None:
        """As ``Engine.free``."""
        if self._state().value == "loaded":
            self._bench.server.json("POST", "/models/unload", dict[str, object], {"model": self._model})

    def wake(self) -> None:
        """As ``Engine.wake``."""
        self._load()


def with_adapter(content: str, model: str, adapter: Path | None, file: Path) -> str:
    """The presets with ``adapter`` as the only one of ``model``; every other line stays as it is.

    Raises:
        ConfigError: there is no section for that model, or more than one.
    """
    lines: list[str] = []
    section, found = "", 0
    for line in content.splitlines():
        heading = _SECTION.match(line)
        if heading:
            section = heading[1].strip()
        if section == model and not heading and _LORA.match(line):
            continue
        lines.append(line)
        if heading and section == model:
            found += 1
            lines += [] if adapter is None else [f"lora = {adapter}"]
    if found != 1:
        raise ConfigError(
            f"{file}: expected one section [{model}], found {found}",
            hint="sleepctl setup-serve shows what it must hold",
        )
    return "\n".join(lines) + "\n"
