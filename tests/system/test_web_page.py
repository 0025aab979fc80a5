"""What a socket starts, as installed: the page, with its token for root alone; and what speaks to the engine."""

from __future__ import annotations

import re

import pytest

from tests.system.machine import Machine
from tests.system.scenes import begin_service, configure, drop_in

ASK = """
import sys, urllib.request
request = urllib.request.Request(sys.argv[1], headers={"Authorization": "Bearer " + sys.argv[2]})
try:
    answer = urllib.request.build_opener(urllib.request.HTTPRedirectHandler).open(request, timeout=60)
    print(answer.status, answer.url, answer.read().decode())
except urllib.error.HTTPError as error:
    print(error.code, error.url, error.read().decode())
"""
MOST_EXPOSED = 1.0
MOST_EXPOSED_WITH_NETWORK = 1.3
MOST_EXPOSED_WITH_COMMAND = 1.6
"""What the owner's own command may need is not known."""
ENGINE = """
from http.server import BaseHTTPRequestHandler, HTTPServer
class Engine(BaseHTTPRequestHandler):
    def do_POST(self):
        self.send_response(200 if self.path == "/sleep?level=1" else 404)
        self.send_header("Content-Length", "0")
        self.end_headers()
HTTPServer(("127.0.0.1", 8099), Engine).serve_forever()
"""
FREE = """
import asyncio, sys
from pathlib import Path
import msgspec
from sleepd.config.serve_config import ServeConfig
from sleepd.protocol.deployment.serve_messages import ServeRequest
from sleepd.serving.serve_client import ServeClient
request = ServeRequest(
    action="free", wanted=None, settings=msgspec.to_builtins(ServeConfig(kind="vllm", url=sys.argv[1])),
    state_directory="/var/lib/sage-sleepd", base="embedded", python="python3",
)
outcome = asyncio.run(ServeClient(Path("/run/sage-sleepd/serve.sock")).ask(request, lambda step: None))
print(outcome.result, outcome.text)
"""
DAEMON_PYTHON = "/opt/sage-sleepd/current/daemon/bin/python"


@pytest.fixture(scope="module")
def served(shared: Machine) -> Machine:
    """A machine on which the daemon runs and the page's socket listens."""
    begin_service(shared)
    shared.run("systemctl", "enable", "--now", "sage-sleep-web.socket")
    shared.write("/srv/ask.py", ASK)
    return shared


def ask(machine: Machine, path: str, token: str = "none") -> str:
    """What the page answers, in one text: status, address, body."""
    return machine.run("python3", "/srv/ask.py", f"http://127.0.0.1:7533{path}", token).stdout


def test_request_starts_the_page(served: Machine) -> None:
    """Nothing runs before the first request; without the token it leads to the login, with it to the figures."""
    assert served.property("ActiveState", "sage-sleep-web.service") == "inactive"
    assert "/login" in ask(served, "/")
    assert served.property("ActiveState", "sage-sleep-web.service") == "active"
    token = served.run("sleepctl", "web", "--token").stdout.strip()
    page = ask(served, "/", token)
    assert page.startswith("200 ")
    assert "Next sleep" in page


def test_token_is_for_root(served: Machine) -> None:
    """Another user is told to ask as root, and cannot read the file."""
    done = served.run("runuser", "-u", "user", "--", "/usr/local/bin/sleepctl", "web", "--token", check=False)
    assert done.returncode in (4, 8)
    assert served.run("runuser", "-u", "user", "--", "cat", "/var/lib/sage-sleep-web/token", check=False).returncode


def test_page_may_pause(served: Machine) -> None:
    """The page's user is an operator to the daemon, as its group says: a posted form pauses and resumes."""
    program = """
import re, urllib.parse, urllib.request, http.cookiejar
opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()))
site = "http://127.0.0.1:7533"
def post(path, **fields):
    return opener.open(site + path, urllib.parse.urlencode(fields).encode(), timeout=60).read().decode()
post("/login", token=open("/var/lib/sage-sleep-web/token").read().strip(), next="/")
for action in ("pause", "resume"):
    page = opener.open(site + "/do/" + action, timeout=60).read().decode()
    print(post("/do/" + action, csrf=re.search('name="csrf" value="(.*?)"', page)[1]))
"""
    served.write("/srv/pause.py", program)
    said = served.run("python3", "/srv/pause.py").stdout
    assert "Paused" in said
    assert "Resumed" in said


@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("web", MOST_EXPOSED),
        ("sync", MOST_EXPOSED),
        ("serve", MOST_EXPOSED_WITH_NETWORK),
        ("notify", MOST_EXPOSED_WITH_COMMAND),
    ],
)
def test_unit_is_little_exposed(served: Machine, name: str, most: float) -> None:
    """Systemd's own figure for the sandbox of the page, and of what speaks to other machines, engines and the owner."""
    assert exposure(served, f"sage-sleep-{name}.service") <= most


def exposure(machine: Machine, unit: str) -> float:
    """Systemd's own figure for the sandbox of a unit."""
    said = machine.run("systemd-analyze", "security", unit, check=False).stdout
    found = re.search(rf"exposure level for {unit}: ([\d.]+)", said)
    assert found is not None, said
    return float(found[1])


def test_socket_starts_what_speaks_to_the_engine(served: Machine) -> None:
    """A request starts the confined process, which reaches the engine that the configuration names, and no other."""
    served.write("/srv/engine.py", ENGINE)
    served.write("/srv/free.py", FREE)
    served.run("systemd-run", "--unit=engine", "python3", "/srv/engine.py")
    configure(served, serve={"kind": "vllm", "url": "http://127.0.0.1:8099"})
    served.run("systemctl", "enable", "--now", "sage-sleep-serve.socket")
    said = [
        served.run(DAEMON_PYTHON, "-P", "/srv/free.py", f"http://127.0.0.1:{port}", user="sage-sleepd").stdout
        for port in (8099, 22)
    ]
    assert said[0].strip() == "freed"
    assert "the daemon's section [serve] is not that of" in said[1]


def test_idle_page_ends_and_comes_back(served: Machine) -> None:
    """When nobody asks the process ends, systemd goes on listening, and the next request starts another process."""
    unit = "sage-sleep-web.service"
    drop_in(served, '[Service]\nEnvironment="WEB_OPTIONS=--idle-seconds 1"\n', unit)
    served.run("systemctl", "stop", unit)
    assert "/login" in ask(served, "/")
    first = served.property("ExecMainPID", unit)
    served.await_true(lambda: served.property("ActiveState", unit) == "inactive", "the page to end")
    assert served.property("Result", unit) == "success"
    assert served.property("ActiveState", "sage-sleep-web.socket") == "active"
    assert "/login" in ask(served, "/")
    assert served.property("ExecMainPID", unit) != first
