"""What an engine answers is hostile input: bounded, checked, and never a traceback."""

from __future__ import annotations

import gzip
import json
import math
import re
import socket
import threading
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sleepd.errors import EngineFailed, EngineUnreachable, SleepdError, UsageError
from sleepd.protocol.chat_example import Message, ToolCall, as_openai
from sleepd.protocol.deployment.adapter_fingerprint import ModelAnswer, PromptReference
from sleepd.serving.endpoint import Endpoint
from sleepd.serving.http import HttpAnswer, HttpLimits, HttpServer

KEY = "sk-only-the-engine-may-see-this"
Write = Callable[[socket.socket], None]
NOTHING = ModelAnswer(steps=(), text="")
PROMPT = PromptReference(
    kind="trained", messages=(Message(role="user", text="Who?"),), prompt_tokens=3, base=NOTHING, candidate=NOTHING
)


def whole_request(connected: socket.socket) -> bytes:
    """A request's header and body: to close with some of it unread would reset the connection under the answer."""
    with connected.makefile("rb") as read:
        header = b""
        for line in read:
            header += line
            if line == b"\r\n":
                break
        length = re.search(rb"(?i)content-length: (\d+)", header)
        return header + read.read(int(length[1]) if length else 0)


class Engine:
    """A server on this machine that answers each request with what ``write`` sends."""

    def __init__(self, write: Write) -> None:
        self._write = write
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self.requests: list[bytes] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connected, _ = self._listening.accept()
            except OSError:
                return
            with connected:
                try:
                    self.requests.append(whole_request(connected))
                    self._write(connected)
                except OSError:  # the client had enough
                    continue

    def close(self) -> None:
        """No further request is taken."""
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join()


@pytest.fixture
def engine() -> Iterator[Callable[[Write], Engine]]:
    """Starts engines that end with the test."""
    started: list[Engine] = []

    def start(write: Write) -> Engine:
        started.append(Engine(write))
        return started[-1]

    yield start
    for one in started:
        one.close()


def response(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    """A whole HTTP answer."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def completion(**changes: object) -> bytes:
    """A good answer to a chat request, with these fields in the place of its own."""
    chance = {"token": "A", "logprob": -0.5, "id": 1}
    place = {**chance, "top_logprobs": [chance, {"token": "B", "logprob": -1.5, "id": 2}]}
    choice = {"message": {"content": "A"}, "logprobs": {"content": [place]}}
    return json.dumps({"choices": [choice], "usage": {"prompt_tokens": 3}, **changes}).encode()


def place(**changes: object) -> list[object]:
    """``choices`` with one token, of which these fields are others."""
    token = {"token": "A", "logprob": -0.5, "top_logprobs": [], **changes}
    return [{"message": {"content": "A"}, "logprobs": {"content": [token]}}]


def drip(connected: socket.socket) -> None:
    """A byte of a header now and then, without end."""
    connected.sendall(b"HTTP/1.1 200 OK\r\nX: ")
    while True:
        connected.sendall(b"a")
        threading.Event().wait(0.01)


def endless(start: bytes) -> Write:
    """Bytes without end behind ``start``."""

    def write(connected: socket.socket) -> None:
        connected.sendall(start)
        while True:
            connected.sendall(b"a" * 65536)

    return write


def flood(content: bytes) -> Write:
    """The same bytes again and again."""

    def write(connected: socket.socket) -> None:
        while True:
            connected.sendall(content * 1000)

    return write


def silent(_connected: socket.socket) -> None:
    """Nothing for two seconds."""
    threading.Event().wait(2)


def sends(content: bytes) -> Write:
    """All of it at once."""
    return lambda connected: connected.sendall(content)


HOSTILE: dict[str, tuple[Write, str]] = {
    "a status of failure": (sends(response(b"no \x1b[2Jmodel", "503 Busy")), r"status 503: no  \[2Jmodel"),
    "a redirect": (sends(response(b"", "302 Found", "Location: http://127.0.0.1:1/")), "it redirects"),
    "no HTTP": (sends(b"SSH-2.0-OpenSSH_9.2\r\n"), "no HTTP"),
    "nothing": (sends(b""), "cannot be reached|no HTTP"),
    "half a body": (sends(response(b"{}")[:-1]), "cannot be reached|no HTTP"),
    "a body without end": (endless(b"HTTP/1.1 200 OK\r\n\r\n"), "more than 65536 bytes"),
    "a chunk without end": (
        endless(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffff\r\n"),
        "65536 bytes",
    ),
    "a header without end": (endless(b"HTTP/1.1 200 OK\r\nX: "), "no HTTP|65536 bytes"),
    "a huge length": (sends(b"HTTP/1.1 200 OK\r\nContent-Length: 9" + b"9" * 30 + b"\r\n\r\n"), "no HTTP|reached"),
    "a negative length": (sends(b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n{}"), "expected|choices"),
    "bytes that trickle": (drip, "within 0.5 s"),
    "silence": (silent, "within 0.5 s"),
    "headers without number": (endless(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200), "no HTTP"),
    "provisional answers without end": (flood(b"HTTP/1.1 100 Continue\r\n\r\n"), "65536 bytes"),
    "a compressed answer": (
        sends(response(gzip.compress(b"{}"), "200 OK", "Content-Encoding: gzip")),
        "something else",
    ),
    "a surrogate alone": (sends(response(b'{"choices": [{"message": {"content": "\\ud800"}}]}')), "something else"),
    "no JSON": (sends(response(b"<html>")), "something else"),
    "no UTF-8": (sends(response(b'{"choices": "\xff\xfe"}')), "something else"),
    "deep JSON": (sends(response(b'{"x": ' + b"[" * 30000 + b"]" * 30000 + b"}")), "something else"),
    "a list": (sends(response(b"[]")), "something else"),
    "choices that are none": (sends(response(completion(choices=[]))), "without a choice"),
    "choices of another type": (sends(response(completion(choices={"a": 1}))), "something else"),
    "NaN": (sends(response(completion(choices=place(logprob=math.nan)))), "something else"),
    "infinity": (sends(response(completion(choices=place(logprob=-math.inf)))), "something else"),
    "a number beyond floats": (sends(response(completion().replace(b"-0.5", b"-1e999"))), "something else|log-prob"),
    "a chance far below 0": (sends(response(completion(choices=place(logprob=-1e200)))), r"-1e\+200 as a log-prob"),
    "a chance above 1": (sends(response(completion(choices=place(logprob=0.5)))), "0.5 as a log-probability"),
    "a text for a number": (sends(response(completion(choices=place(logprob="-1")))), "something else"),
    "a token that is a number": (sends(response(completion(choices=place(token=7)))), "something else"),
    "tokens below none": (sends(response(completion(usage={"prompt_tokens": "3"}))), "something else"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_answer_is_an_error(
    name: str, engine: Callable[[Write], Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever comes, it is one error in a sentence within the limits, and the key is in none of it."""
    monkeypatch.setattr("sleepd.serving.endpoint.BUSY_PAUSES", (0.0,))
    write, expected = HOSTILE[name]
    started = engine(write)
    endpoint = Endpoint(started.url, "agent", KEY, HttpLimits(seconds=0.5, most_bytes=65536))
    with pytest.raises((EngineFailed, EngineUnreachable), match=expected) as raised:
        endpoint.ask(PROMPT)
    assert KEY not in f"{raised.value.message} {raised.value.hint} {endpoint.server!r}"
    assert "\x1b" not in raised.value.message
    assert f"Bearer {KEY}".encode() in started.requests[0]


def test_redirect_takes_no_key_along(engine: Callable[[Write], Engine]) -> None:
    """Where an engine redirects to, nobody is asked."""
    elsewhere = engine(sends(response(completion())))
    first = engine(sends(response(b"", "307 Temporary Redirect", f"Location: {elsewhere.url}/v1/chat/completions")))
    with pytest.raises(EngineFailed, match="redirects"):
        Endpoint(first.url, "agent", KEY).ask(PROMPT)
    assert elsewhere.requests == []


def test_good_answer_is_understood(engine: Callable[[Write], Engine]) -> None:
    """The chosen token stands first, the others behind it, and the text and the count of tokens are there."""
    answer = Endpoint(engine(sends(response(completion()))).url, "agent").ask(PROMPT)
    assert [(one.id, one.text, one.logprob) for one in answer.steps[0]] == [(1, "A", -0.5), (2, "B", -1.5)]
    assert (answer.text, answer.prompt_tokens) == ("A", 3)


def test_engine_without_logprobs_is_understood(engine: Callable[[Write], Engine]) -> None:
    """An engine that leaves log-probabilities and usage out is no error: what it says is its text."""
    said = json.dumps({"choices": [{"message": {"content": "A"}, "logprobs": None}]}).encode()
    answer = Endpoint(engine(sends(response(said))).url, "agent").ask(PROMPT)
    assert (answer.text, answer.steps, answer.prompt_tokens) == ("A", (), None)


@pytest.mark.parametrize(
    ("models", "expected"), [(["a"], None), ([], "serves 0 models"), (["a", "b\x1b[2J"], r"serves 2 models: 'a', 'b")]
)
def test_only_model_is_taken(models: list[str], expected: str | None, engine: Callable[[Write], Engine]) -> None:
    """Without a name the engine's only model is asked; of several, one must be named."""
    body = json.dumps({"data": [{"id": name} for name in models]}).encode()
    endpoint = Endpoint(engine(sends(response(body))).url)
    if expected is None:
        assert endpoint.model() == "a"
        return
    with pytest.raises(EngineFailed, match=expected) as raised:
        endpoint.model()
    assert "\x1b" not in raised.value.message


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:8080",
        "ftp://host",
        "http://",
        "http://host:99999",
        "http://me:word@host",
        "http://h/?q",
        "http://h/ x",
    ],
)
def test_url_that_is_none_is_refused(url: str) -> None:
    """Only the plain address of a server is taken; a password in it is shown to nobody."""
    with pytest.raises(UsageError) as raised:
        Endpoint(url)
    assert "word@" not in raised.value.message


def test_address_may_end_in_v1(engine: Callable[[Write], Engine]) -> None:
    """What other programs call the base URL ends in /v1, and so it may here."""
    started = engine(sends(response(completion())))
    Endpoint(f"{started.url}/v1/", "agent").ask(PROMPT)
    assert started.requests[0].startswith(b"POST /v1/chat/completions HTTP/1.1\r\n")


def test_key_with_a_line_break_is_refused() -> None:
    """A key cannot bring headers of its own."""
    with pytest.raises(UsageError, match="control characters"):
        HttpServer("http://127.0.0.1:1", "key\r\nX-More: 1")


def test_nobody_there_is_unreachable() -> None:
    """A closed port is an error of its own, with what to look for."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(EngineUnreachable, match=f"127.0.0.1:{port} .*: Connection refused"):
        Endpoint(f"http://127.0.0.1:{port}", "agent").ask(PROMPT)


def test_tool_calls_are_sent_as_openai_has_them() -> None:
    """A message with calls, and a result, have the keys of OpenAI's chat completions."""
    call = ToolCall(name="look", arguments='{"at": 1}', id="c1")
    assert as_openai(Message(role="assistant", text="", calls=(call,)))["tool_calls"] == [
        {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at": 1}'}}
    ]
    assert as_openai(Message(role="tool", text="2", call_id="c1", name="look")) == {
        "role": "tool",
        "content": "2",
        "tool_call_id": "c1",
        "name": "look",
    }


KEYS = st.sampled_from(
    ["choices", "message", "content", "logprobs", "top_logprobs", "token", "logprob", "id", "usage", "prompt_tokens"]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=6),
    max_leaves=20,
)


@settings(max_examples=300, deadline=None)
@given(VALUES)
def test_any_json_is_an_answer_or_an_error(value: object) -> None:
    """Any JSON is either understood or refused with an error of ours; no other exception leaves."""
    body = json.dumps(value).encode()
    endpoint = _Said(body)
    try:
        answer = endpoint.ask(PROMPT)
    except SleepdError:
        return
    assert all(math.isfinite(one.logprob) and one.logprob <= 0.01 for step in answer.steps for one in step)


class _Said(Endpoint):
    """An endpoint whose engine has answered already."""

    def __init__(self, body: bytes) -> None:
        super().__init__("http://127.0.0.1:1", "agent")
        self.server = _Answered(body)


class _Answered(HttpServer):
    def __init__(self, body: bytes) -> None:
        super().__init__("http://127.0.0.1:1")
        object.__setattr__(self, "body", body)

    def request(self, method: str, path: str, body: object = None) -> HttpAnswer:
        """What was to be said."""
        return HttpAnswer(200, self.body)
