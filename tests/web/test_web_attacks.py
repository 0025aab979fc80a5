"""What hostile texts, foreign pages and clients without manners can do to the page: nothing."""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sleepd.protocol import control
from sleepd.protocol.answers import Cycles, Learned, Paused, Reasons
from sleepd.protocol.status import BufferDetail, CycleDetail, QuarantineList, Status
from sleepd.web.subscription import STREAMS
from tests.sleepctl import sleepctl_scenes as scenes
from tests.sleepctl.sleepctl_fake_daemon import FakeDaemon
from tests.sleepctl.test_sleepctl_hostile_words import SHOWN_AS_NOTHING, WORDS
from tests.web.page_elements import assert_harmless
from tests.web.pages_daemon import PAGES, answer_pages, history
from tests.web.web_process import LIMIT_SECONDS, TOKEN, WebProcess

CORPUS = Path(__file__).parents[1] / "data" / "quarantine_corpus.jsonl"
MARKUP = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</title></style></textarea></svg><svg onload=alert(1)>",
    "javascript:alert(1)",
    "{{ 7 * 7 }}{% include 'base.html' %}{# x",
    "<!-- ]]> <![CDATA[ <?xml ?>",
    "&lt;b&gt;&#x3c;script&#x3e;",
    "\n\nevent: head\ndata: <b>\n\n",
    "data: x\r\nevent: facts",
    "<a href=//evil.example>x</a><base href=//evil.example>",
    "\x00\x1b[2J\u202e\u2066<\u200bscript>",
)
KINDS: dict[type[control.Request], type[Any]] = {
    control.GetStatus: Status,
    control.Show: CycleDetail,
    control.Experiences: Learned,
    control.Buffer: BufferDetail,
    control.Quarantine: QuarantineList,
    control.Why: Reasons,
}


def texts() -> list[str]:
    """What the tests of the quarantine and of the terminal use, and markup."""
    records = [json.loads(line) for line in CORPUS.read_text().splitlines()]
    spoken = [record[key] for record in records for key in ("prompt", "response") if record.get(key)]
    return [*MARKUP, *WORDS[1:], SHOWN_AS_NOTHING, scenes.HOSTILE, *[text[:3000] for text in spoken]]


def attacked(value: Any, supply: Iterator[str]) -> Any:
    """The same data with another text in the place of each that somebody else may have written."""
    fixed = {
        "state",
        "form",
        "personal_data",
        "outcome",
        "relation",
        "mode",
        "role",
        "phase",
        "personal",
        "level",
        "type",
        "conversation",
        "unmasked",
    }
    if isinstance(value, dict):
        return {key: each if key in fixed else attacked(each, supply) for key, each in value.items()}
    if isinstance(value, list):
        return [attacked(each, supply) for each in value]
    if isinstance(value, str) and not value.startswith("2026-") and value != "adapter_changed":
        return next(supply)
    return value


def assail(daemon: FakeDaemon, supply: Iterator[str]) -> None:
    """Have every answer of the daemon hold hostile texts."""
    answer_pages(daemon, cycles=history(30))
    for request, kind in KINDS.items():
        benign = msgspec.to_builtins(daemon.replies[request])
        daemon.replies[request] = msgspec.convert(attacked(benign, supply), kind, strict=False)
    cycles = [msgspec.convert(attacked(msgspec.to_builtins(each), supply), type(each)) for each in history(30)]
    daemon.replies[control.History] = Cycles(cycles=cycles)


@pytest.fixture
def attack(daemon: FakeDaemon) -> Iterator[Iterator[str]]:
    """The corpus, again and again; the daemon answers as before afterwards."""
    yield itertools.cycle(texts())
    answer_pages(daemon, cycles=history(60))


def test_corpus_stays_text(site: WebProcess, daemon: FakeDaemon, attack: Iterator[str]) -> None:
    """Every text of the corpus, in every place of every page, makes no element and no invisible character."""
    cookie, seen = site.log_in(), 0
    wanted = len(texts())
    while seen < wanted:
        seen += 60  # fewer than any page shows
        assail(daemon, attack)
        for path in PAGES:
            answer = site.get(path, cookie=cookie)
            assert answer.status == 200
            assert_harmless(answer.text)


def test_corpus_in_addresses_stays_text(site: WebProcess) -> None:
    """Searches, numbers, names and paths that come back on a page are text there."""
    from urllib.parse import quote

    cookie = site.log_in()
    for text in (*MARKUP, *WORDS, SHOWN_AS_NOTHING):
        given = quote(text, safe="")
        paths = (f"/quarantine?search={given}&state={given}", f"/cycles/{given}", f"/compare?a={given}&b={given}")
        for path in (*paths, f"/do/tag?cycle=8&name={given}", f"/login?next={given}", f"/{given}", f"/do/{given}"):
            assert_harmless(site.get(path, cookie=cookie).text)
        assert site.get(f"/cycles?limit={given}", cookie=cookie).status == 404


def test_events_cannot_be_forged(site: WebProcess, daemon: FakeDaemon, attack: Iterator[str]) -> None:
    """A text with line breaks begins no event and ends none."""
    assail(daemon, itertools.cycle(["x\n\nevent: forged\ndata: y\r\n\revent: forged"]))
    with socket.create_connection(("127.0.0.1", site.port), LIMIT_SECONDS) as client:
        head = f"GET /events HTTP/1.1\r\nHost: localhost\r\nCookie: {site.log_in()}\r\n\r\n"
        client.sendall(head.encode())
        with client.makefile("rb") as lines:
            received: list[bytes] = []
            while not any(line.startswith(b"event: facts") for line in received[:-3]):
                received.append(lines.readline())
    assert not any(line.startswith(b"event: forged") for line in received)


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost.", "", "127.0.0.1:x", "[::1"])
def test_foreign_host_is_refused(site: WebProcess, host: str) -> None:
    """A name that was made to point here (DNS rebinding) gets nothing, not even the login."""
    assert site.get("/login", host=host).status in (400, 421)
    assert site.get("/login", host=f"localhost:{site.port}").status == 200


def test_headers_are_strict(site: WebProcess) -> None:
    """Every response forbids scripts, frames and forms of others, also an error and a refusal."""
    for path in ("/login", "/nothing", "/static/style.css", "/"):
        headers = site.get(path).headers
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["X-Frame-Options"] == "DENY"
    assert "Content-Security-Policy" in site.get("/", host="evil.example").headers


def test_nobody_reads_without_login(site: WebProcess) -> None:
    """Without the token every page leads to the login, and no action is done."""
    for path in PAGES[:-1]:
        answer = site.get(path)
        assert (answer.status, answer.headers["Location"].partition("?")[0]) == (303, "/login")
    assert site.post("/do/pause", {"csrf": "x"}).status == 403
    assert site.get("/", authorization=f"Bearer {TOKEN}").status == 200
    assert site.get("/", authorization="Bearer wrong").status == 303
    name = site.log_in().partition("=")[0]
    assert site.get("/", cookie=f"{name}=99999999999.aa.bb").status == 303


def test_action_needs_the_forms_token(site: WebProcess, daemon: FakeDaemon) -> None:
    """Without the CSRF token of this login an action is refused; with it, it is done once and says how to undo it."""
    daemon.replies[control.Pause] = Paused(is_paused=True, undo="sleepctl resume")
    cookie, other = site.log_in(), site.log_in()
    csrf = _csrf(site, cookie)
    asked = len(daemon.requests)
    for fields in ({}, {"csrf": ""}, {"csrf": csrf[:-1] + "0"}, {"csrf": _csrf(site, other)}):
        assert site.post("/do/pause", fields, cookie=cookie).status == 403
    assert not any(isinstance(each, control.Pause) for each in daemon.requests[asked:])
    answer = site.post("/do/pause", {"csrf": csrf}, cookie=cookie)
    assert answer.status == 200
    assert "sleepctl resume" in answer.text
    assert sum(isinstance(each, control.Pause) for each in daemon.requests[asked:]) == 1


def _csrf(site: WebProcess, cookie: str) -> str:
    text = site.get("/do/pause", cookie=cookie).text
    return text.partition('name="csrf" value="')[2].partition('"')[0]


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
    ],
)
def test_foreign_form_is_refused(site: WebProcess, headers: dict[str, str]) -> None:
    """A form of another site changes nothing, also with the cookie and the token of the form."""
    cookie = site.log_in()
    assert site.post("/do/pause", {"csrf": _csrf(site, cookie)}, cookie=cookie, **headers).status == 403


def test_get_changes_nothing(site: WebProcess, daemon: FakeDaemon) -> None:
    """GET and HEAD on every address ask the daemon only questions."""
    cookie, asked = site.log_in(), len(daemon.requests)
    for path in (*PAGES, "/do/pause", "/do/use?cycle=3", "/do/drop?id=q1", "/logout"):
        site.get(path, cookie=cookie)
        site.ask("HEAD", path, {"Cookie": cookie})
    changing = (control.Run, *control.OPERATOR_REQUESTS)
    assert not any(isinstance(each, changing) for each in daemon.requests[asked:])


@pytest.mark.parametrize(
    ("method", "path", "headers", "body", "status"),
    [
        ("PUT", "/", {}, b"", 405),
        ("DELETE", "/cycles/8", {}, b"", 405),
        ("POST", "/login", {"Content-Length": "99999999999"}, None, 413),
        ("POST", "/login", {"Content-Length": "65537"}, None, 413),
        ("POST", "/login", {"Transfer-Encoding": "chunked"}, None, 411),
        ("GET", "/?" + "x" * 5000, {}, None, 414),
        ("POST", "/login", {"Content-Type": "application/json"}, b"{}", 400),
        ("POST", "/login", {"Content-Type": "application/x-www-form-urlencoded"}, b"&".join([b"a=b"] * 99), 400),
        ("GET", "/login", {"X-Long": "x" * 20_000}, None, 431),
        ("GET", "/static/../app.py", {}, None, 404),
        ("GET", "/static/", {}, None, 404),
    ],
)
def test_requests_are_bounded(
    site: WebProcess, method: str, path: str, headers: dict[str, str], body: bytes | None, status: int
) -> None:
    """Other methods, long bodies, addresses and headers, other types, many fields and folders are refused."""
    assert site.ask(method, path, headers, body).status == status


def test_slow_clients_keep_no_place(site: WebProcess) -> None:
    """Connections with half a request are closed after a while, and a form that does not come whole is refused."""
    form = "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 30\r\n\r\ntoken="
    heads = [f"POST /login HTTP/1.1\r\nHost: localhost\r\n{form}", *["GET /login HTTP/1.1\r\nHost: loc"] * 40]
    with contextlib.ExitStack() as clients:
        opened = [
            clients.enter_context(socket.create_connection(("127.0.0.1", site.port), LIMIT_SECONDS)) for _ in heads
        ]
        for client, head in zip(opened, heads, strict=True):
            client.sendall(head.encode())
        received = [client.makefile("rb").readline() for client in opened]
    assert received == [b"HTTP/1.1 400 Bad Request\r\n", *[b""] * 40]
    assert site.get("/login").status == 200


def test_live_pages_are_limited(site: WebProcess) -> None:
    """Sixteen browsers may follow the start page; the next one is told so, and the page itself still comes."""
    cookie = site.log_in()
    request = f"GET /events HTTP/1.1\r\nHost: localhost\r\nCookie: {cookie}\r\n\r\n".encode()
    with contextlib.ExitStack() as clients:
        for _ in range(STREAMS):
            client = clients.enter_context(socket.create_connection(("127.0.0.1", site.port), LIMIT_SECONDS))
            client.sendall(request)
            assert client.recv(15) == b"HTTP/1.1 200 OK"
        answer = site.get("/events", cookie=cookie)
        assert (answer.status, "16 browsers look already" in answer.text) == (503, True)
        assert site.get("/", cookie=cookie).status == 200


def test_wrong_tokens_are_limited(directory: Path, daemon: FakeDaemon) -> None:
    """After ten wrong tokens the right one is refused, too, and the answer says for how long."""
    with WebProcess(directory, daemon.path) as site:
        for _ in range(10):
            assert site.post("/login", {"token": "wrong"}).status in (403, 429)
        answer = site.post("/login", {"token": TOKEN})
        assert (answer.status, answer.headers["Retry-After"]) == (429, "60")


def test_login_leads_nowhere_else(site: WebProcess) -> None:
    """After the login only a path of this site is loaded; the cookie is for this site and no script."""
    for target in ("//evil.example", "/\\evil.example", "http://evil.example", "x", "/\r\nSet-Cookie: a=b"):
        answer = site.post("/login", {"token": TOKEN, "next": target})
        assert answer.headers["Location"] == "/"
    cookie = answer.headers["Set-Cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert "set-cookie" not in site.post("/login", {"token": "x", "next": "/"}).headers


def test_logging_out_needs_the_form(site: WebProcess) -> None:
    """The form of the login itself logs out; another one does not."""
    cookie = site.log_in()
    assert site.post("/logout", {"csrf": "x"}, cookie=cookie).status == 403
    assert site.post("/logout", {"csrf": _csrf(site, cookie)}, cookie=cookie).status == 303
