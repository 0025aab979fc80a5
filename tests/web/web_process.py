"""``python -m sleepd.web`` on a free port, and what a browser would ask it."""

from __future__ import annotations

import http.client
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self
from urllib.parse import urlencode

from tests.web.browser import Browser

LIMIT_SECONDS = 120.0
"""Much longer than a start takes: a machine with other work must fail no test."""
TOKEN = "a token that only this test knows"


class Response(NamedTuple):
    """What came back."""

    status: int
    headers: http.client.HTTPMessage
    text: str


class WebProcess:
    """Serves until the end of the block."""

    def __init__(self, directory: Path, socket_path: Path, *options: str) -> None:
        self.token_file = directory / "token"
        self.token_file.write_text(TOKEN)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"
        self.log_path = directory / "web.log"
        self._log = self.log_path.open("wb")
        command = [sys.executable, "-m", "sleepd.web", "--socket", str(socket_path), "--token-file"]
        command += [str(self.token_file), "--address", f"127.0.0.1:{self.port}", *options]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log)

    def __enter__(self) -> Self:
        deadline = time.monotonic() + LIMIT_SECONDS
        while True:
            try:
                assert self.get("/health").text == "ok\n"
                return self
            except OSError:
                assert self.process.poll() is None, self.log_path.read_text()
                assert time.monotonic() < deadline
                time.sleep(0.05)

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self.process.terminate()
        self.process.wait(LIMIT_SECONDS)
        self._log.close()

    def ask(self, method: str, path: str, headers: dict[str, str] | None = None, body: bytes | None = None) -> Response:
        """One request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=LIMIT_SECONDS)
        try:
            connection.request(method, path, body=body, headers=headers or {})
            answer = connection.getresponse()
            return Response(answer.status, answer.headers, answer.read().decode())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Response:
        """A page, as its header lines say."""
        return self.ask("GET", path, {name.replace("_", "-"): value for name, value in headers.items()})

    def post(self, path: str, fields: dict[str, str], **headers: str) -> Response:
        """A form."""
        given = {"Content-Type": "application/x-www-form-urlencoded"}
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        return self.ask("POST", path, given, urlencode(fields).encode())

    def log_in(self) -> str:
        """The cookie of somebody who knows the token."""
        answer = self.post("/login", {"token": TOKEN, "next": "/"})
        assert answer.status == 303, answer.text
        return answer.headers["Set-Cookie"].partition(";")[0]

    def log_in_with(self, browser: Browser) -> None:
        """The same in a browser, by the form."""
        browser.open(f"{self.address}/login")
        browser.run("document.querySelector('#token').value = arguments[0]", TOKEN)
        browser.click("form.card button")
        browser.await_text("button.link", "Log out")
