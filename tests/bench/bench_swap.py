"""``python tests/bench/bench_swap.py PROGRAM [--restart] [--in-flight N] [--base q4_1 …]``: swaps under load.

The engine is a real llama-server on a tiny random model, or on the embedded one in a quantization, in router mode; with
``--restart``, started with ``--lora`` and restarted for each swap; with ``--vllm`` a real vLLM on the embedded one. The
deployer walks from the base to cycle 1, to cycle 2, back to cycle 1 and to the base, while N agents ask without a
pause. Each answer is held against what was recorded of base, cycle 1 and cycle 2: an answer to a request that began
after the proof must be that of the proved one.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

sys.path.append(str(Path(__file__).parents[2]))

from sleepd.config.serve_config import ENVIRONMENT_FILE, INI_FILE
from sleepd.errors import EngineFailed, EngineUnreachable
from sleepd.policy.answer_distance import answers_apart
from sleepd.protocol.deployment.adapter_fingerprint import (
    AdapterFingerprint,
    ModelAnswer,
    PromptAnswer,
    PromptReference,
)
from sleepd.protocol.deployment.serve_messages import Generation
from sleepd.serving.endpoint import Endpoint
from sleepd.serving.http import HttpLimits, HttpServer
from sleepd.serving.proof import RECORD_FILE, ProofRecord, read_fingerprint
from sleepd.worker.model.find_base import find_base
from sleepd.worker.programs.tiny_model import make_tiny_model
from tests.agents import changed
from tests.serving.real_llama import LlamaUnit, make_real_champions, make_recorded_champions
from tests.serving.serving_stage import ServingStage
from tests.worker.conftest import make_plain

WALK = (1, 2, 1, 0)
ASKED_AGAIN = 3
"""So often the prompts of the last proof are asked again under load."""
BY_EMBEDDED = 0.05
"""How far the first adapter of the embedded model is moved: about as far as a cycle goes."""
_PRESETS = "version = 1\n\n[agent]\nmodel = {base}\n"


class Asked(NamedTuple):
    """One request: when it began and ended, and what was answered; None: it failed."""

    begin: float
    end: float
    prompt: PromptReference
    answer: PromptAnswer | None


class Traffic:
    """So many agents that ask without a pause, until the block ends."""

    def __init__(self, url: str, prompts: list[PromptReference], agents: int) -> None:
        self.url = url
        self._endpoint = Endpoint(url, "agent", limits=HttpLimits(seconds=600.0))
        self._prompts = prompts
        self.asked: list[Asked] = []
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(agents)]

    def __enter__(self) -> Traffic:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, number: int) -> None:
        while not self._is_over.is_set():
            prompt, begin = self._prompts[number % len(self._prompts)], time.monotonic()
            answer: PromptAnswer | None = None
            with contextlib.suppress(EngineFailed, EngineUnreachable):
                answer = self._endpoint.ask(prompt, is_cache_used=True)
            self.asked.append(Asked(begin, time.monotonic(), prompt, answer))
            if answer is None:
                self._is_over.wait(0.2)  # as an agent that tries again


def runs(one: Asked) -> int:
    """The cycle whose recorded answer is nearest; 0: the base."""
    assert one.answer is not None
    said = ModelAnswer(steps=one.answer.steps, text=one.answer.text)
    known = {0: one.prompt.base, 1: one.prompt.parent or one.prompt.base, 2: one.prompt.candidate}
    return min(known, key=lambda cycle: answers_apart(known[cycle], said))


class ProcessUnit(LlamaUnit):
    """A unit whose service is a process of llama-server."""

    program: Path

    def start(self) -> None:
        """Stop the server, and start it with what the environment file says."""
        self.stop()
        text = self.environment.read_text() if self.environment.exists() else ""
        self._server = started(self.program, self.port, "-m", str(self.base), *text.partition("=")[2].split())

    def stop(self) -> None:
        """End it as systemd would."""
        if self._server is not None:
            self._server.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._server.wait(10.0)
            self._server.kill()
            self._server.wait()


def started(program: Path, port: int, *arguments: str) -> subprocess.Popen[bytes]:
    """A llama-server that loads its model."""
    command = [str(program), "--host", "127.0.0.1", "--port", str(port), "-c", "8192", "-t", "1", *arguments]
    environment = {**os.environ, "LD_LIBRARY_PATH": str(program.parent)}
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)


def await_health(url: str) -> None:
    """Wait until the server answers; a vLLM on two busy cores takes minutes."""
    for _ in range(6000):
        with contextlib.suppress(EngineFailed, EngineUnreachable):
            if HttpServer(url).request("GET", "/health").status == 200:
                return
        time.sleep(0.1)
    raise SystemExit("the server did not come up")


@contextlib.contextmanager
def restarted(directory: Path, program: Path) -> Iterator[tuple[Any, str]]:
    """A server that a fake systemctl restarts."""
    place = Path(tempfile.mkdtemp(dir=directory))
    unit = ProcessUnit(place, directory / "base.gguf", directory / "state/serving" / ENVIRONMENT_FILE)
    unit.program = program
    os.environ["PATH"] = f"{place / 'bin'}:{os.environ['PATH']}"
    unit.start()
    try:
        await_health(unit.url)
        yield unit, "llama-restart"
    finally:
        unit.end()


class Address(NamedTuple):
    """Where an engine answers."""

    url: str
    model: str = "agent"


@contextlib.contextmanager
def routed(directory: Path, program: Path) -> Iterator[tuple[Any, str]]:
    """A server in router mode."""
    ini = directory / "state/serving" / INI_FILE
    ini.parent.mkdir(parents=True, exist_ok=True)
    ini.write_text(_PRESETS.format(base=directory / "base.gguf"))
    port = free_port()
    with answering(started(program, port, "--models-preset", str(ini)), port) as router:
        yield router, "llama-router"


@contextlib.contextmanager
def with_runtime_lora(directory: Path, program: Path) -> Iterator[tuple[Any, str]]:
    """A vLLM on the embedded model, that loads adapters while it runs."""
    (weights,) = (directory / "models").glob("*/model.safetensors")
    port = free_port()
    command = [str(program), "serve", str(weights.parent), "--host", "127.0.0.1", "--port", str(port)]
    command += ["--served-model-name", "base", "--enable-lora", "--max-lora-rank", "16", "--enforce-eager"]
    command += ["--dtype", "float32", "--max-model-len", "2048"]
    environment = {**os.environ, "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True", "VLLM_CPU_KVCACHE_SPACE": "1"}
    log = (directory / "vllm.log").open("wb")
    process = subprocess.Popen(command, stdout=log, stderr=log, env=environment | {"HF_HUB_OFFLINE": "1"})
    with answering(process, port) as vllm:
        yield vllm, "vllm"


def free_port() -> int:
    """One that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextlib.contextmanager
def answering(process: subprocess.Popen[bytes], port: int) -> Iterator[Address]:
    """A server from its first answer to its end."""
    found = Address(f"http://127.0.0.1:{port}")
    try:
        await_health(found.url)
        yield found
    finally:
        process.terminate()
        process.wait()


def fingerprint_of(state: Path) -> AdapterFingerprint:
    """Cycle 2's, which knows base and cycle 1 too."""
    place = next(each for each in (state / "cycle_002", state / "retired/cycle_002") if each.is_dir())
    found = read_fingerprint(Generation(cycle=2, directory=str(place), sha256=""))
    assert found is not None
    return found


def worst_again(directory: Path, url: str) -> float:
    """How far the answers of the last proof and those to the same prompts are apart now, in nats: the worst of them."""
    (place,) = directory.rglob(RECORD_FILE)
    record = msgspec.json.decode(place.read_bytes(), type=ProofRecord)
    endpoint = Endpoint(url, "agent", limits=HttpLimits(seconds=600.0))
    apart = []
    for prompt, was in zip(record.prompts, record.answers, strict=True):
        for is_cache_used in (True, False) if prompt.kind == "long" else (False,):
            now = endpoint.ask(prompt, is_cache_used=is_cache_used)
            left, right = (ModelAnswer(steps=each.steps, text=each.text) for each in (was, now))
            apart.append(answers_apart(left, right))
    return max(apart)


def walk(stage: ServingStage, traffic: Traffic, seconds: float) -> int:
    """Print a line for each swap; how many answers were of a wrong generation."""
    print("swap         serve_s  answered  failed  after  wrong  distance  next   again")
    wrong_in_all = 0
    for wanted in WALK:
        stage.roll_back(wanted)
        begin = time.monotonic()
        state = stage.turns()
        proved = time.monotonic()
        if not state.is_proved or state.served != (wanted or None):
            raise SystemExit(f"to {wanted}: not proved: {state.problem}")
        again = max(worst_again(stage.state, traffic.url) for _ in range(ASKED_AGAIN))
        time.sleep(seconds)
        window = [one for one in list(traffic.asked) if one.end >= begin]
        after = [one for one in window if one.begin >= proved and one.answer is not None]
        failed = sum(one.answer is None for one in window)
        wrong = sum(runs(one) != wanted for one in after)
        wrong_in_all += wrong
        name = f"to cycle {wanted}" if wanted else "to the base"
        figures = f"{len(window) - failed:8}  {failed:6}  {len(after):5}  {wrong:5}"
        apart = f"{state.distance:8.3f}  {state.next_nearest:.3f}  {again:.3f}"
        print(f"{name:12} {proved - begin:7.2f}  {figures}  {apart}", flush=True)
    return wrong_in_all


def make_tiny(directory: Path) -> str:
    """The tiny model with two champions; the name of the base."""
    model = directory / "model"
    make_tiny_model(model)
    make_plain(model)
    make_real_champions(directory, model, directory / "models", directory / "work")
    return str(model)


def make_embedded(directory: Path) -> str:
    """The embedded model with two champions, whose fingerprints were computed in float32; the name of the base."""
    make_recorded_champions(directory, Path("embedded"), directory / "models", directory / "work", by=BY_EMBEDDED)
    return "embedded"


def put_base(directory: Path, kind: str) -> None:
    """The embedded model in that quantization in the place of the base."""
    from tests.bench.quantizations import requantized

    source, target = find_base("embedded", "").weights[0], directory / "base.gguf"
    target.unlink(missing_ok=True)
    if kind == "q4_1":  # its own
        target.symlink_to(source)
    else:
        requantized(source, target, kind)


def walked(directory: Path, base: str, options: argparse.Namespace) -> int:
    """Start the server, and walk once; how many answers were of a wrong generation."""
    prompts = [one for one in fingerprint_of(directory / "state").prompts if one.kind != "long"]
    start = with_runtime_lora if options.vllm else restarted if options.restart else routed
    with start(directory, options.program.absolute()) as (engine, kind):
        stage = ServingStage(directory, engine, kind, unit="llama.service", wait_idle_seconds=5.0, answer_seconds=300.0)
        stage.config = changed(stage.config, "model", base=base)
        if options.vllm:  # which knows the agent's model name only when it was given something
            stage.roll_back(0)
            stage.turns()
        with Traffic(engine.url, prompts, options.in_flight) as traffic:
            wrong = walk(stage, traffic, options.seconds)
    print(f"{kind}, {options.in_flight} in flight: {wrong} answers of a wrong generation after the proof")
    return wrong


def main() -> int:
    """Walk over each base; returns 1 where an answer after a proof was of another generation."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("program", type=Path, help="llama-server, its libraries beside it; or vllm")
    kinds = parser.add_mutually_exclusive_group()
    kinds.add_argument("--restart", action="store_true", help="restart it for each swap, instead of router mode")
    kinds.add_argument("--vllm", action="store_true", help="the program is vllm")
    parser.add_argument("--in-flight", type=int, default=50, help="requests under way at any time")
    parser.add_argument("--seconds", type=float, default=3.0, help="of traffic after each proof")
    bases = "the embedded model in these quantizations, one after the other, instead of the tiny one"
    parser.add_argument("--base", nargs="+", choices=("q4_1", "q8_0", "f16"), help=bases)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-swap-") as name:
        directory, wrong = Path(name), 0
        base = make_embedded(directory) if options.base or options.vllm else make_tiny(directory)
        for kind in options.base or [""]:
            if kind:
                print(f"the embedded model in {kind}")
                put_base(directory, kind)
            wrong += walked(directory, base, options)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
