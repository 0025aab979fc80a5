"""``live``: a fake engine answers as a made-up model, and the real process that asks it is started."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import msgspec
import pytest

from sleepd.protocol.deployment.adapter_fingerprint import PromptAnswer
from tests.fingerprints import answers_of, base_model, fingerprint_of, moved
from tests.sleepctl.sleepctl_ran import Ran

Sleepctl = Callable[..., Ran]
BASE = base_model()
OLDER = moved(BASE, 1, 1.0)
NEWER = moved(OLDER, 2, 0.8)
KEY = "sk-for-the-engine-only"


class FakeEngine(ThreadingHTTPServer):
    """Answers the questions of the made-up fingerprints; ``answers`` may be replaced while it runs."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers = answers_of(NEWER, noise=0.1)
        self.keys: set[str | None] = set()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: FakeEngine

    def do_GET(self) -> None:
        self._send({"data": [{"id": "agent"}]})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.keys.add(self.headers["Authorization"])
        number = int(asked["messages"][-1]["content"].split()[1].rstrip("?"))
        self._send(completion(self.server.answers[number]))

    def _send(self, document: object) -> None:
        body = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None:
        """Nothing is logged."""


def completion(answer: PromptAnswer) -> object:
    """As an engine says it."""
    places = [
        {
            "token": step[0].text,
            "logprob": step[0].logprob,
            "id": step[0].id,
            "top_logprobs": [{"token": one.text, "logprob": one.logprob, "id": one.id} for one in step],
        }
        for step in answer.steps
    ]
    logprobs = {"content": places} if places else None
    usage = {"prompt_tokens": answer.prompt_tokens}
    return {"choices": [{"message": {"content": answer.text}, "logprobs": logprobs}], "usage": usage}


@pytest.fixture
def engine() -> Iterator[FakeEngine]:
    """A fake engine that ends with the test."""
    with FakeEngine() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def state(tmp_path: Path) -> str:
    """A state directory: cycle 7 is in use, its parent 6 has a fingerprint, and 5 was made by an earlier version."""
    fingerprints = {
        "cycle_007": fingerprint_of(BASE, NEWER, OLDER, cycle=7, parent_cycle=6),
        "cycle_006": fingerprint_of(BASE, OLDER, cycle=6),
    }
    for name, one in fingerprints.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "fingerprint.json").write_bytes(msgspec.json.encode(one))
    (tmp_path / "retired" / "cycle_005").mkdir(parents=True)
    (tmp_path / "current").symlink_to("cycle_007")
    return str(tmp_path)


def test_proved_engine_exits_with_zero(sleepctl: Sleepctl, engine: FakeEngine, state: str) -> None:
    """An engine that runs what is in use: the page names it with both distances, and what cannot be recognised."""
    ran = sleepctl("live", engine.url, "--state", state)
    assert ran.code == 0, ran.err
    assert f"{engine.url}, model agent" in ran.out
    assert "cycle 7 (0." in ran.out
    assert "1 checkpoint without a fingerprint: cycle 5" in " ".join(ran.out.split())


def test_other_adapter_exits_with_one(sleepctl: Sleepctl, engine: FakeEngine, state: str) -> None:
    """An engine that runs the older generation, or the base: the page says that this is not what is in use."""
    engine.answers = answers_of(OLDER, noise=0.1)
    ran = sleepctl("live", engine.url, "--state", state, "--json")
    assert (ran.code, ran.json["identity"]["cycle"], ran.json["in_use"], ran.json["is_in_use"]) == (1, 6, 7, False)
    engine.answers = answers_of(BASE, noise=0.1)
    ran = sleepctl("live", engine.url, "--state", state)
    assert ran.code == 1
    assert "it does not run what is in use, cycle 7" in " ".join(ran.out.split())


def test_text_alone_proves_nothing(sleepctl: Sleepctl, engine: FakeEngine, state: str) -> None:
    """An engine without log-probabilities is reported as such, with the weaker test by its name, and exits with 1."""
    engine.answers = [msgspec.structs.replace(one, steps=()) for one in answers_of(NEWER)]
    ran = sleepctl("live", engine.url, "--state", state)
    assert ran.code == 1
    words = " ".join(ran.out.split())
    assert "the engine gives no log-probabilities" in words
    assert "by text alone, 16 of 16 replies are those of cycle 7" in words


def test_key_reaches_the_engine_alone(sleepctl: Sleepctl, engine: FakeEngine, state: str, tmp_path: Path) -> None:
    """The key comes from a file of mode 0600 and is shown nowhere; one that others may read is refused."""
    file = tmp_path / "key"
    file.write_text(f"{KEY}\n")
    file.chmod(0o644)
    refused = sleepctl("live", engine.url, "--state", state, "--key-file", str(file))
    assert (refused.code, f"chmod 600 {file}" in refused.err) == (9, True)
    file.chmod(0o600)
    ran = sleepctl("live", engine.url, "--state", state, "--key-file", str(file), "--json")
    assert ran.code == 0
    assert engine.keys == {f"Bearer {KEY}"}
    assert KEY not in ran.out + ran.err + refused.out + refused.err


def test_absent_engine_exits_with_three(sleepctl: Sleepctl, state: str) -> None:
    """Where nobody answers, the address is named."""
    ran = sleepctl("live", "http://127.0.0.1:9", "--state", state)
    assert ran.code == 3
    assert "the engine at http://127.0.0.1:9 cannot be reached: Connection refused" in ran.err


def test_engine_of_the_configuration_is_asked(
    sleepctl: Sleepctl, engine: FakeEngine, state: str, tmp_path: Path
) -> None:
    """Without a URL, engine and model are those of ``[serve]``."""
    config = tmp_path / "c.toml"
    config.write_text(f'[serve]\nurl = "{engine.url}"\nmodel = "mine"\n')
    ran = sleepctl("live", "--state", state, "--config", str(config), "--json")
    assert (ran.code, ran.json["url"], ran.json["model"]) == (0, engine.url, "mine"), ran.err


def test_no_fingerprint_is_not_guessed(sleepctl: Sleepctl, engine: FakeEngine, tmp_path: Path) -> None:
    """With checkpoints of earlier versions only, nothing is asked, and what will help is named."""
    (tmp_path / "cycle_001").mkdir()
    ran = sleepctl("live", engine.url, "--state", str(tmp_path))
    assert ran.code == 4
    assert "none of 1 checkpoints has a fingerprint.json" in ran.err
    assert "the next cycle writes one" in ran.err
    assert engine.keys == set()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"{", "cannot be understood"),
        (b'{"version": 1}', "cannot be understood"),
        (b"[" * 100000, "cannot be understood"),
        (None, "it has version 2, this sage-sleepd reads 1"),
    ],
    ids=["torn", "incomplete", "deep", "newer"],
)
def test_damaged_fingerprint_is_an_error(
    content: bytes | None, expected: str, sleepctl: Sleepctl, engine: FakeEngine, state: str
) -> None:
    """A fingerprint that is damaged, or that a newer version wrote, is named by its path."""
    newer = msgspec.structs.replace(fingerprint_of(BASE, NEWER), version=2)
    Path(state, "cycle_007/fingerprint.json").write_bytes(content or msgspec.json.encode(newer))
    ran = sleepctl("live", engine.url, "--state", state)
    assert ran.code == 1
    assert expected in ran.err
    assert "cycle_007/fingerprint.json" in ran.err
