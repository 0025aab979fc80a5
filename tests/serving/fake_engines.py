"""Engines that answer as recorded models do: a server in a thread for each kind, with the faults that were measured."""

from __future__ import annotations

import configparser
import contextlib
import json
import math
import random
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import msgspec

from sleepd.protocol.chat_example import Message
from sleepd.protocol.checkpoint.checkpoint_files import FINGERPRINT_FILE
from sleepd.protocol.deployment.adapter_fingerprint import (
    REPLY_STEPS,
    VERSION,
    AdapterFingerprint,
    ModelAnswer,
    PromptReference,
    Step,
    TokenChance,
)
from sleepd.store.checkpoints import file_record, read_manifest

PROMPTS = 6
_WORDS = 60


def fingerprint(cycle: int, parent: int | None, *, strength: float = 2.0) -> AdapterFingerprint:
    """What a worker would record of that cycle: each model answers each prompt in its own way."""
    prompts = tuple(
        PromptReference(
            kind="long" if number == PROMPTS - 1 else "trained",
            messages=(Message(role="user", text=f"question {number}"),),
            prompt_tokens=10 + number,
            base=answer(None, number, strength),
            candidate=answer(cycle, number, strength),
            parent=None if parent is None else answer(parent, number, strength),
        )
        for number in range(PROMPTS)
    )
    return AdapterFingerprint(
        version=VERSION,
        cycle=cycle,
        parent=parent,
        base_fingerprint="base",
        dtype="float32",
        prompts=prompts,
        seconds=1.0,
    )


def write_fingerprint(checkpoint: Path, cycle: int, parent: int | None, **more: Any) -> None:
    """Beside the adapter, and in the manifest."""
    (checkpoint / FINGERPRINT_FILE).write_bytes(msgspec.json.encode(fingerprint(cycle, parent, **more)))
    record_files(checkpoint, FINGERPRINT_FILE)


def record_files(checkpoint: Path, *more: str) -> None:
    """Write the manifest that belongs to the files as they are now."""
    manifest = read_manifest(checkpoint)
    files = {name: file_record(checkpoint / name) for name in [*manifest.files, *more] if (checkpoint / name).exists()}
    (checkpoint / "manifest.json").write_bytes(msgspec.structs.replace(manifest, files=files).encoded())


def answer(cycle: int | None, prompt: int, strength: float = 2.0, noise: float = 0.0) -> ModelAnswer:
    steps = tuple(_step(cycle, prompt, number, strength, noise) for number in range(REPLY_STEPS))
    return ModelAnswer(steps=steps, text="".join(step[0].text for step in steps))


def _step(cycle: int | None, prompt: int, number: int, strength: float, noise: float) -> Step:
    base = random.Random(f"base {prompt} {number}")
    scores = [base.gauss(0.0, 2.0) for _ in range(_WORDS)]
    if cycle is not None:
        moved = random.Random(f"{cycle} {prompt} {number}")
        scores = [score + strength * moved.gauss(0.0, 1.0) for score in scores]
    blurred = random.Random(f"noise {cycle} {prompt} {number}")
    scores = [score + noise * blurred.gauss(0.0, 1.0) for score in scores]
    total = math.log(sum(math.exp(score) for score in scores))
    chances = [TokenChance(id=word, text=f"w{word} ", logprob=score - total) for word, score in enumerate(scores)]
    return tuple(sorted(chances, key=lambda chance: -chance.logprob)[:50])


class FakeEngine:
    """An OpenAI-compatible server. ``running`` is the cycle that it runs; None: the base."""

    def __init__(self, model: str = "agent") -> None:
        self.model = model
        self.running: int | None = None
        self.noise = 0.05
        self.strength = 2.0
        self.has_logprobs = True
        self.extra_tokens = 0
        self.kept_under: int | None = None
        """The cycle under which its cache of prompts was filled; None: the cache is as what it runs."""
        self.status = 200
        self.garbage: bytes | None = None
        self.requests: list[tuple[str, str, Any]] = []
        self.on_request: Callable[[str, str], None] = lambda _method, _path: None
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def paths(self) -> list[str]:
        return [path for _, path, _ in self.requests]

    def runs(self, model: str) -> int | None:
        """What a request for that model is answered by.

        Raises:
            LookupError: there is no such model.
        """
        if model != self.model:
            raise LookupError(model)
        return self.running

    def handle(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        match method, path.partition("?")[0]:
            case "POST", "/v1/chat/completions":
                return self.chat(body)
            case "GET", "/v1/models":
                return 200, {"data": [{"id": self.model}]}
            case "GET", "/health":
                return 200, {"status": "ok"}
        return 404, {"error": f"no {path}"}

    def said(self, cycle: int | None, number: int, _body: Any) -> ModelAnswer:
        """Its answer to the prompt of that number."""
        return answer(cycle, number, self.strength, self.noise)

    def chat(self, body: Any) -> tuple[int, Any]:
        try:
            cycle = self.runs(body["model"])
        except LookupError:
            return 404, {"error": {"message": f"The model `{body['model']}` does not exist."}}
        number = int(body["messages"][-1]["content"].partition("question ")[2] or 0)
        if self.kept_under is not None and number == PROMPTS - 1 and body.get("cache_prompt", True):
            cycle = self.kept_under
        said = self.said(cycle, number, body)
        content = [
            {"token": step[0].text, "logprob": step[0].logprob, "top_logprobs": list(_top(step))} for step in said.steps
        ]
        choice: dict[str, Any] = {"message": {"role": "assistant", "content": said.text}}
        if self.has_logprobs:
            choice["logprobs"] = {"content": content}
        return 200, {"choices": [choice], "usage": {"prompt_tokens": 10 + number + self.extra_tokens}}


def _top(step: Step) -> Iterator[dict[str, Any]]:
    for chance in step[:20]:
        yield {"token": chance.text, "logprob": chance.logprob}


def _handler(engine: FakeEngine) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            engine.requests.append((self.command, self.path, body))
            engine.on_request(self.command, self.path)
            status, found = engine.handle(self.command, self.path, body)
            if engine.status != 200:
                status, found = engine.status, {"error": "as told"}
            content = engine.garbage if engine.garbage is not None else json.dumps(found).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            with contextlib.suppress(BrokenPipeError):  # the client has left
                self.wfile.write(content)

        do_GET = do_POST = _serve  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    return Handler


class FakeRouter(FakeEngine):
    """``llama-server --models-preset``: what a model runs is taken from the file at a reload, and by its path alone."""

    def __init__(self, ini: Path, model: str = "agent") -> None:
        super().__init__(model)
        self.ini = ini
        self.known: dict[str, int | None] = {}
        """By path: other bytes under a path that is known are not loaded."""
        self.path: str | None = None
        self.state: dict[str, Any] = {"value": "unloaded"}
        self.is_processing = 0
        """So many questions about the slots are answered with a request under way."""
        self.broken: set[str] = set()
        """Adapters that do not load."""
        self.reload()

    def reload(self) -> None:
        parser = configparser.ConfigParser(interpolation=None)
        parser.read_string("[top]\n" + self.ini.read_text())
        path = parser.get(self.model, "lora", fallback=None)
        if path != self.path:
            self.state = {"value": "unloaded"}
        self.path = path

    def load(self) -> None:
        path = self.path
        if path is None:
            self.running = None
        elif path in self.broken or not Path(path).is_file():
            self.state = {"value": "unloaded", "failed": True, "exit_code": 1}
            return
        else:
            self.running = self.known.setdefault(path, int(Path(path).read_text()))
        self.state = {"value": "loaded"}

    def handle(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        match method, path:
            case "GET", "/models?reload=1":
                self.reload()
                return 200, self.models()
            case "GET", "/models":
                return 200, self.models()
            case "POST", "/models/load":
                self.load()
                return 200, {"success": True}
            case "POST", "/models/unload":
                self.state = {"value": "unloaded"}
                return 200, {"success": True}
        if path.startswith("/slots"):
            self.is_processing -= 1
            return 200, [{"id": 0, "is_processing": self.is_processing >= 0}]
        return super().handle(method, path, body)

    def models(self) -> Any:
        return {"data": [{"id": self.model, "status": self.state}]}

    def chat(self, body: Any) -> tuple[int, Any]:
        if self.state["value"] != "loaded":
            self.load()
        if self.state.get("failed"):
            return 500, {"error": {"message": "model failed to load"}}
        return super().chat(body)
