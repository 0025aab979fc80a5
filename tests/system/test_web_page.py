"""The page as an installed service: started by a request, confined, with its token for root alone."""

from __future__ import annotations

import json
import re

import pytest

from tests.system.machine import Machine
from tests.system.scenes import begin_service

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


def test_page_is_little_exposed(served: Machine) -> None:
    """Systemd's own figure for the sandbox of the page."""
    said = served.run("systemd-analyze", "security", "--json=short", "sage-sleep-web.service", check=False).stdout
    assert json.loads(said)
    overall = served.run("systemd-analyze", "security", "sage-sleep-web.service", check=False).stdout
    found = re.search(r"exposure level for sage-sleep-web.service: ([\d.]+)", overall)
    assert found is not None
    assert float(found[1]) <= MOST_EXPOSED
