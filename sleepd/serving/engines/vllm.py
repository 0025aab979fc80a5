"""vLLM with runtime LoRA: the adapter is loaded in place under the agent's model name.

What was measured of vLLM 0.32 decides the order here. Its prefix cache is keyed by name and path, so that the path of
our link ``current`` would answer with a mixture: each generation has a directory with a hash in its name. The base's
own served name is refused for an adapter, and an adapter that is unloaded leaves a name that answers 404: the base is
an adapter of its own under the agent's name, whose factors B are zero.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Final

import msgspec

from sleepd.errors import EngineFailed, NotFound
from sleepd.files import FILE_MODE, fsync_path, make_directory
from sleepd.protocol.checkpoint.checkpoint_files import CONFIG_FILE, WEIGHTS_FILE
from sleepd.protocol.deployment.serve_messages import Generation
from sleepd.serving.http import quoted
from sleepd.store.adapter_file import read_header

from .engine import Bench, adapter_name, until_idle

BASE: Final = "base-"
_RUNNING: Final = re.compile(rb"^vllm:num_requests_(?:running|waiting)(?:\{[^}]*\})?\s+([0-9.eE+]+)\s*$", re.MULTILINE)
_ZEROS: Final = bytes(2**20)
_ENABLE: Final = "start vLLM with --enable-lora --max-lora-rank 16 and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True"
_SLEEP_MODE: Final = "start vLLM with --enable-sleep-mode and VLLM_SERVER_DEV_MODE=1"


class _Sleeping(msgspec.Struct, frozen=True):
    is_sleeping: bool


class Vllm:
    """``vllm serve --enable-lora``; see ``engine.Engine``."""

    can_start = False
    can_put_back = True

    def __init__(self, bench: Bench) -> None:
        self._bench = bench

    def prepare(self, generation: Generation | None) -> Path | None:
        """As ``Engine.prepare``."""
        if generation is not None:
            return self._copied(Path(generation.directory), adapter_name(generation))
        made = sorted(self._bench.adapters.glob(f"{BASE}*"))
        if made:
            return made[0]
        pattern = self._bench.pattern
        if pattern is None:
            raise NotFound("there is no adapter yet whose form the base's could have", hint="the first cycle makes one")
        return self._copied(Path(pattern.directory), f"{BASE}{pattern.sha256[:12]}", is_base=True)

    def _copied(self, source: Path, name: str, *, is_base: bool = False) -> Path:
        """The two files that vLLM reads, in a directory of their own: whole, or not there."""
        target, unfinished = self._bench.adapters / name, self._bench.adapters / f".{name}.unfinished"
        if target.is_dir():
            return target
        shutil.rmtree(unfinished, ignore_errors=True)
        make_directory(self._bench.adapters)
        make_directory(unfinished)
        for file in (WEIGHTS_FILE, CONFIG_FILE):
            shutil.copyfile(source / file, unfinished / file)
            (unfinished / file).chmod(FILE_MODE)
        if is_base:
            empty_factors(unfinished / WEIGHTS_FILE)
        for file in (WEIGHTS_FILE, CONFIG_FILE):
            fsync_path(unfinished / file)
        fsync_path(unfinished)
        unfinished.rename(target)
        fsync_path(self._bench.adapters)
        return target

    def wait_until_idle(self, seconds: float) -> bool:
        """As ``Engine.wait_until_idle``."""
        return until_idle(self._is_idle, self._bench, seconds)

    def _is_idle(self) -> bool:
        found = _RUNNING.findall(self._bench.server.request("GET", "/metrics").body)
        return all(float(number) == 0 for number in found)

    def swap(self, prepared: Path | None) -> None:
        """As ``Engine.swap``."""
        assert prepared is not None, "the base is an adapter too"
        name = self._bench.settings.model
        body = {"lora_name": name, "lora_path": str(prepared), "load_inplace": True}
        answer = self._bench.server.request("POST", "/v1/load_lora_adapter", body)
        if answer.status == 404:
            raise EngineFailed(f"vLLM at {self._bench.server.url} loads no adapters while it runs", hint=_ENABLE)
        if answer.status != 200:
            text = f"vLLM refused {prepared.name} as {name!r} with status {answer.status}: {quoted(answer.body)}"
            raise EngineFailed(text, hint="serve.model must not be the base's own name; vLLM's log says more")

    def free(self) -> None:
        """As ``Engine.free``."""
        self._post("/sleep?level=1")

    def wake(self) -> None:
        """As ``Engine.wake``."""
        if self._bench.server.json("GET", "/is_sleeping", _Sleeping).is_sleeping:
            self._post("/wake_up")

    def _post(self, path: str) -> None:
        status = self._bench.server.request("POST", path).status
        if status != 200:
            text = f"vLLM at {self._bench.server.url} answers POST {path} with status {status}"
            raise EngineFailed(text, hint=_SLEEP_MODE)


def empty_factors(path: Path) -> None:
    """Set every factor B in a file of adapter weights to zero: the adapter then changes nothing.

    Raises:
        CheckpointInvalid: it is no such file.
    """
    with path.open("r+b") as file:
        tensors, start = read_header(file, path)
        for name, tensor in tensors.items():
            if ".lora_B." not in name:
                continue
            begin, end = tensor.data_offsets
            file.seek(start + begin)
            for left in range(end - begin, 0, -len(_ZEROS)):
                file.write(_ZEROS[:left])
