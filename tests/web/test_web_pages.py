"""Every page: what it shows, what it needs, and what it says when the daemon does not answer."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from sleepd.errors import DaemonNotRunning, VersionMismatch
from sleepd.protocol.answers import Cycles
from sleepd.protocol.control import GetStatus, History, Show
from sleepd.protocol.decision_view import VetoView
from sleepd.protocol.deployment.serve_messages import ServedState
from sleepd.protocol.status import Alarm
from sleepd.sleepctl.pages.digest_page import digest_page
from sleepd.sleepctl.pages.terminal import Row
from tests.sleepctl import sleepctl_scenes as scenes
from tests.sleepctl.sleepctl_fake_daemon import FakeDaemon
from tests.web.page_elements import Elements, assert_harmless
from tests.web.pages_daemon import PAGES, answer_pages, history
from tests.web.web_process import LIMIT_SECONDS, WebProcess

MOST_BYTES = 150_000
"""Of a page with its style, script and icon."""


@pytest.fixture(scope="module")
def cookie(site: WebProcess) -> str:
    return site.log_in()


@pytest.mark.parametrize("path", PAGES)
def test_pages_are_whole(site: WebProcess, cookie: str, path: str) -> None:
    """Each page answers with balanced elements, no inline script, style or handler, and nothing from elsewhere."""
    answer = site.get(path, cookie=cookie)
    assert answer.status == 200, answer.text
    assert_harmless(answer.text)
    assert ">None<" not in answer.text


def test_pages_are_small(site: WebProcess, cookie: str) -> None:
    """No page has more than 150 kB with all that it loads."""
    loaded = sum(len(site.get(f"/static/{name}").text.encode()) for name in ("style.css", "live.js", "icon.svg"))
    assert max(len(site.get(path, cookie=cookie).text.encode()) for path in PAGES) + loaded < MOST_BYTES


def test_start_page_has_the_figures(site: WebProcess, cookie: str) -> None:
    """State, progress, conditions, champion and last cycles stand on the page that is made by the server."""
    text = site.get("/", cookie=cookie).text
    for wanted in ("Training: cycle 9", "step 11 of 24", "New experiences", "3.12 → 2.71", "/do/cancel"):
        assert wanted in text
    for name, figure in (("Gain", "+0.41 nats/token"), ("Drift", "0.0186 of at most 0.05 nats/token")):
        assert f'<dt>{name} <span class="figure">{figure}</span></dt>' in text


def test_lag_is_on_the_start_page(site: WebProcess, daemon: FakeDaemon, cookie: str) -> None:
    """How long the oldest experience has waited to be learned, and that the buffer cannot be read, are shown."""
    since = datetime.now(UTC) - timedelta(hours=5, minutes=3)
    late = msgspec.structs.replace(scenes.MORNING.buffer, unread_since=since, to_learn_since=since)
    daemon.replies[GetStatus] = scenes.changed(scenes.MORNING, buffer=late)
    try:
        text = site.get("/", cookie=cookie).text
    finally:
        daemon.replies[GetStatus] = scenes.TRAINING
    assert "has waited 5 h 3 min." in text
    assert "(5 h 3 min ago); the counts" in text


def test_paused_cycle_offers_to_resume(site: WebProcess, daemon: FakeDaemon, cookie: str) -> None:
    """While a cycle runs in a paused daemon the start page offers to resume, and not to pause again."""
    paused = msgspec.structs.replace(scenes.TRAINING.decision, vetoes=[VetoView(name="paused", text="Paused")])
    daemon.replies[GetStatus] = scenes.changed(scenes.TRAINING, decision=paused)
    try:
        text = site.get("/", cookie=cookie).text
    finally:
        daemon.replies[GetStatus] = scenes.TRAINING
    assert "/do/resume" in text
    assert "/do/pause" not in text


def test_unended_cycle_has_trained_nothing(site: WebProcess, daemon: FakeDaemon, cookie: str) -> None:
    """A cycle without a verdict shows no number of trained experiences, and says what it was to be trained on."""
    failed = scenes.cycle(9, "failed", trained=61)
    before = dict(daemon.replies)
    daemon.replies |= {
        History: Cycles(cycles=[failed]),
        Show: msgspec.structs.replace(scenes.FULL, summary=failed),
    }
    try:
        assert ">61<" not in site.get("/cycles", cookie=cookie).text
        assert "What it was to be trained on" in site.get("/cycles/9", cookie=cookie).text
    finally:
        daemon.replies |= before


def test_origin_is_one_click_away(site: WebProcess, cookie: str) -> None:
    """Whoever says no to an action comes back to the page where its button was."""
    for path, origin in (("drop?id=q1", "/quarantine"), ("use?cycle=3", "/cycles/3"), ("pause", "/")):
        assert f'<a class="button" href="{origin}">No</a>' in site.get(f"/do/{path}", cookie=cookie).text


def test_energy_is_shown_where_measured(site: WebProcess, cookie: str) -> None:
    """A cycle's page and the timeline have the energy that the GPU drew; a cycle without that figure has a dash."""
    assert "16.7 Wh drawn by the GPU" in site.get("/cycles/8", cookie=cookie).text
    text = site.get("/cycles", cookie=cookie).text
    assert re.search(r'<td class="number" data-label="energy">1\d\.\d Wh</td>', text)
    assert "Energy that the GPU drew, Wh" in text
    assert ">cycle 21</text>" in text
    assert "Energy" not in site.get("/cycles?before=1", cookie=cookie).text


def test_served_adapter_is_shown(site: WebProcess, daemon: FakeDaemon, cookie: str) -> None:
    """What the engine was proved to run stands on the start page, with the problem and the command that fixes it."""
    serving = ServedState(
        kind="vllm",
        url="http://127.0.0.1:8000",
        model="agent",
        wanted=8,
        served=7,
        is_proved=True,
        proved_at=scenes.ago(minutes=2),
        problem="the engine does not take the adapter",
        hint="sleepctl doctor",
    )
    daemon.replies[GetStatus] = scenes.changed(scenes.MORNING, serving=serving)
    try:
        text = site.get("/", cookie=cookie).text
    finally:
        daemon.replies[GetStatus] = scenes.TRAINING
    assert "cycle 7, proved" in text
    assert re.search(r"\bnot cycle 8\b", text)
    assert '<code class="command">sleepctl doctor</code>' in text


def test_foreign_adapter_is_told_apart(site: WebProcess, daemon: FakeDaemon, cookie: str) -> None:
    """Of another machine's adapter each page says whose it is, and what it gained there and here."""
    known, status = dict(daemon.replies), scenes.MORNING
    assert status.champion is not None
    foreign = msgspec.structs.replace(scenes.PROMOTED, strategy="from:thor", tag="from:thor", origin=scenes.ORIGIN)
    champion = msgspec.structs.replace(status.champion, origin=scenes.ORIGIN)
    daemon.replies |= {
        GetStatus: scenes.changed(status, champion=champion, recent_cycles=[foreign]),
        History: Cycles(cycles=[foreign]),
        Show: msgspec.structs.replace(scenes.FULL, summary=foreign, origin=scenes.ORIGIN),
    }
    try:
        pages = [site.get(path, cookie=cookie).text for path in ("/", "/cycles", "/cycles/8")]
    finally:
        daemon.replies |= known
    for page in pages:
        assert re.search(r"from thor, cycle 41 there; gain there \+0\.50 \(30 .*?\), here \+0\.41 \(23 ", page)
        assert "tagged" not in page
    assert "by the strategy" not in pages[2]


def test_cycle_page_has_the_figures(site: WebProcess, cookie: str) -> None:
    """Verdict, gates, replies with marked words, held-out experiences, lineage and undo are on a cycle's page."""
    text = site.get("/cycles/8", cookie=cookie).text
    for wanted in (
        "Its adapter is in use.",
        "it drifted 0.0812 nats/token from the base; at most 0.05 is allowed",
        "<ins>second</ins>",
        "Where is the blue lamp?",
        "sleepctl rollback 7",
        "the base model",
    ):
        assert re.sub(r"</?(?:ins|del)>", "", wanted) in re.sub(r"</?(?:ins|del)>", "", text)


def test_ten_thousand_cycles_are_shown(directory: Path) -> None:
    """With 10,000 cycles the timeline shows the newest 60 and leads to the older ones; each has its lineage."""
    path = directory / "long.sock"
    fake = FakeDaemon(path)
    answer_pages(fake, cycles=history(10_000))
    try:
        with WebProcess(directory, path, "--read-without-token") as site:
            answer = site.get("/cycles?limit=60")
            assert len(answer.text.encode()) < MOST_BYTES
            assert answer.text.count('<th scope="row">') == 60
            assert 'href="/cycles/10000"' in answer.text
            assert "/cycles?limit=60&amp;before=9941" in answer.text
            older = site.get("/cycles?limit=60&before=9941").text
            assert "Cycles 9881 to 9940" in older
            assert "/cycles?limit=60&amp;before=10001" in older
            assert "<h2>Lineage</h2>" in site.get("/cycles/8").text
    finally:
        fake.close()


def test_events_bring_the_parts(site: WebProcess, cookie: str) -> None:
    """The stream of events sends the parts of the start page, each line of them as data."""
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=LIMIT_SECONDS)
    connection.request("GET", "/events", headers={"Cookie": cookie})
    answer = connection.getresponse()
    assert answer.getheader("Content-Type").startswith("text/event-stream")
    names: set[str] = set()
    while names != {"head", "facts", "actions"}:
        line = answer.readline().decode()
        assert line.startswith(("data:", "event:", "retry:", ":")) or line == "\n"
        if line.startswith("event: "):
            names.add(line[7:].strip())
    connection.close()


@pytest.mark.parametrize("error", [DaemonNotRunning, VersionMismatch])
def test_page_says_that_the_daemon_is_absent(
    site: WebProcess, daemon: FakeDaemon, cookie: str, error: type[DaemonNotRunning]
) -> None:
    """A daemon that is down, or of another version, is said with the next step; the page then loads itself again."""
    daemon.replies[GetStatus] = error("it cannot be asked", hint="sudo systemctl restart sage-sleepd")
    try:
        answer = site.get("/", cookie=cookie)
    finally:
        daemon.replies[GetStatus] = scenes.TRAINING
    assert answer.status == 503
    assert "sudo systemctl restart sage-sleepd" in answer.text
    assert 'http-equiv="refresh"' in answer.text
    assert site.get("/", cookie=cookie).status == 200


def test_absent_socket_is_said(directory: Path) -> None:
    """Without a socket the start page says that the daemon is not running, and how to start it."""
    with WebProcess(directory, directory / "nothing.sock", "--read-without-token") as site:
        answer = site.get("/")
    assert answer.status == 503
    assert "the daemon is not running" in answer.text


def test_inherited_socket_is_used(directory: Path, daemon: FakeDaemon) -> None:
    """The page answers on a socket that systemd listens on, and the process ends by itself when nobody asks."""
    import socket

    (directory / "token").write_text("x" * 30)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        start = (
            "import os, sys; os.dup2(int(sys.argv[1]), 3); os.environ |= {'LISTEN_PID': str(os.getpid()), "
            "'LISTEN_FDS': '1'}; os.execv(sys.executable, [sys.executable, '-m', 'sleepd.web', *sys.argv[2:]])"
        )
        fd = listening.fileno()
        command = [sys.executable, "-c", start, str(fd), "--socket", str(daemon.path), "--idle-seconds", "0.5"]
        command += ["--token-file", str(directory / "token")]
        with (
            subprocess.Popen(command, pass_fds=[fd]) as process,
            socket.create_connection(listening.getsockname()) as client,
        ):
            client.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            client.settimeout(LIMIT_SECONDS)
            assert client.recv(100).startswith(b"HTTP/1.1 200")
        assert process.wait(LIMIT_SECONDS) == 0


def test_report_is_one_file(directory: Path, daemon: FakeDaemon) -> None:
    """``sleepctl report N --html FILE`` writes a page that names no other file and allows no script."""
    path = directory / "report.html"
    asked = ["--socket", str(daemon.path), "report", "8", "--html", str(path)]
    subprocess.run([sys.executable, "-m", "sleepd.sleepctl", *asked], check=True, capture_output=True)
    assert path.stat().st_mode & 0o077 == 0
    elements = Elements(path.read_text()).found
    assert {"script", "link", "a", "img"}.isdisjoint(tag for tag, _ in elements)
    assert "\x1b" not in path.read_text()


def test_missing_extra_is_said(directory: Path, daemon: FakeDaemon) -> None:
    """Without jinja2 the command says which extra is missing, and exits with 4."""
    program = "import sys; sys.modules['jinja2'] = None; from sleepd.sleepctl.__main__ import main; sys.exit(main())"
    command = [
        sys.executable,
        "-c",
        program,
        "--socket",
        str(daemon.path),
        "report",
        "8",
        "--html",
        str(directory / "x"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_SECONDS)
    assert done.returncode == 4
    assert "sage-sleepd[web]" in done.stderr


def test_digest_is_short(directory: Path, daemon: FakeDaemon) -> None:
    """``sleepctl digest`` has at most ten lines, and the same as JSON."""
    command = [sys.executable, "-m", "sleepd.sleepctl", "--socket", str(daemon.path), "digest", "--since", "3d"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_SECONDS)
    assert done.returncode == 0, done.stderr
    assert 5 <= len(done.stdout.splitlines()) <= 10
    assert "In use" in done.stdout
    data = json.loads(subprocess.run([*command, "--json"], capture_output=True, timeout=LIMIT_SECONDS).stdout)
    assert data["cycles"]


def test_digest_never_grows() -> None:
    """With many alarms and many cycles the letter has ten lines, and says where the others are."""
    alarms = [Alarm(name=f"alarm_{number}", text="something lasts " * 9) for number in range(5)]
    page = digest_page(scenes.changed(scenes.MORNING, alarms=alarms), history(20)[:9], scenes.ago(days=3), scenes.NOW)
    texts = ["".join(span.text for span in row.spans) for row in page if isinstance(row, Row)]
    assert len(page) == len(texts) == 10
    assert max(map(len, texts)) <= 68
    assert "4 more: sleepctl status" in texts
    assert "7 more: sleepctl history" in texts
