"""What every request must be before anything looks at it, and what every response says to the browser.

Rule 1: ``Host`` names this page. A page of somebody else whose name was made to point here (DNS rebinding) does not.
Rule 2: nothing is read without bound: methods, lengths of path, query, headers and body are limited.
Rule 3: a POST comes from a page of ours, as the browser says (``Sec-Fetch-Site``, ``Origin``).
Rule 4: no response may run a script, load a style or a picture, or send a form elsewhere (``Content-Security-Policy``).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY_BYTES = 64 * 1024
MAX_TARGET_BYTES = 4096
"""Of path and query together."""
MAX_HEADER_BYTES = 16 * 1024
METHODS = ("GET", "HEAD", "POST")
LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "[::1]"})

POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # With "no-referrer" a browser would send "Origin: null" with our own forms.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


class Refusal(Exception):
    """A request that goes no further."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


class Guard:
    """Stands before the application.

    Args:
        app: what gets the requests that pass.
        names: what ``Host`` may say, without the port.
        monotonic: the clock by which ``last_request`` is told.
    """

    def __init__(self, app: ASGIApp, names: frozenset[str], monotonic: Callable[[], float] = time.monotonic) -> None:
        self._app = app
        self._names = LOOPBACK_NAMES | {name.lower() for name in names}
        self._monotonic = monotonic
        self.last_request = monotonic()
        self.open_requests = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        self.open_requests += 1
        self.last_request = self._monotonic()

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        try:
            self._check(scope)
        except Refusal as refusal:
            response = PlainTextResponse(f"{refusal.text}\n", refusal.status, {"Connection": "close"})
            await response(scope, receive, send_guarded)
        else:
            await self._app(scope, receive, send_guarded)
        finally:
            self.open_requests -= 1
            self.last_request = self._monotonic()

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        if len(hosts) != 1 or _name_of(hosts[0]) not in self._names:
            raise Refusal(
                421, "This page does not answer to that host name. Use http://127.0.0.1 with its port, or --host NAME."
            )
        if scope["method"] not in METHODS:
            raise Refusal(405, f"Expected {', '.join(METHODS)}.")
        if len(scope["raw_path"]) + len(scope["query_string"]) > MAX_TARGET_BYTES:
            raise Refusal(414, f"Path and query may have {MAX_TARGET_BYTES} bytes.")
        if sum(len(name) + len(value) for name, value in headers.raw) > MAX_HEADER_BYTES:
            raise Refusal(431, f"The headers of a request may have {MAX_HEADER_BYTES} bytes.")
        _check_body(headers, has_body=scope["method"] == "POST")
        if scope["method"] == "POST":
            _check_origin(headers, hosts[0])


def _name_of(host: str) -> str:
    """``Host`` without its port, in lower case."""
    name, colon, port = host.lower().rpartition(":")
    return name if colon and port.isdigit() else host.lower()


def _check_body(headers: Headers, *, has_body: bool) -> None:
    length = headers.get("content-length")
    if "transfer-encoding" in headers or (has_body and length is None):
        raise Refusal(411, "Expected a body with Content-Length.")
    if length is None:
        return
    if not length.isascii() or not length.isdigit() or len(length) > 12 or int(length) > MAX_BODY_BYTES:
        raise Refusal(413, f"A request may have a body of {MAX_BODY_BYTES} bytes.")


def _check_origin(headers: Headers, host: str) -> None:
    site = headers.get("sec-fetch-site", "same-origin")
    origin = headers.get("origin")
    is_foreign = origin is not None and urlsplit(origin).netloc.lower() != host.lower()
    if site not in ("same-origin", "none") or is_foreign:
        raise Refusal(403, "A form of another site may not change anything here.")
