"""Who may look and who may act: a token that only root and the page can read, and a cookie for whoever knew it.

The cookie holds its end, a random number and an HMAC of both under a key made from the token. Nothing is kept here, so
a login outlives the process, which ends when nobody looks. Another token ends every login.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from starlette.requests import Request

from sleepd.errors import ConfigError
from sleepd.text.shell import quoted

SESSION_SECONDS = 12 * 3600
TRIES = 10
"""Wrong tokens within ``TRIES_SECONDS``; then nobody can log in until some of them are that old."""
TRIES_SECONDS = 60.0
MIN_TOKEN = 20


class Login:
    """Decides from a request whose it is.

    Args:
        token: what is asked for.
        is_open: reading needs no login.
        user_header: the header in which a reverse proxy names the user who logged in there; empty: none is believed.
        now: seconds of the wall clock.
    """

    def __init__(
        self, token: str, *, is_open: bool = False, user_header: str = "", now: Callable[[], float] = time.time
    ) -> None:
        self._token = token.encode()
        self._key = hashlib.sha256(b"sage-sleepd session " + self._token).digest()
        self._header = user_header
        self._now = now
        self._wrong: deque[float] = deque(maxlen=TRIES)
        self.is_open = is_open
        self.cookie = f"sleepd_{hashlib.sha256(self._key).hexdigest()[:8]}"
        """Its name: a browser keeps the cookies of all ports of this machine in one place, and so of all pages."""

    def identity(self, request: Request) -> str:
        """Whose request it is, for the CSRF token; empty: nobody's who logged in."""
        cookie = request.cookies.get(self.cookie, "")
        if self._is_valid(cookie):
            return f"cookie {cookie}"
        named = request.headers.get(self._header, "") if self._header else ""
        return f"header {named}" if named else ""

    def may_read(self, request: Request) -> bool:
        """Whether the pages may be shown."""
        if self.is_open or self.identity(request):
            return True
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        return scheme.lower() == "bearer" and self.is_token(given)

    def is_token(self, given: str) -> bool:
        """Whether this is the token. A wrong one counts; while there were too many, none is right."""
        now = self._now()
        while self._wrong and not 0 <= now - self._wrong[0] < TRIES_SECONDS:
            self._wrong.popleft()
        if len(self._wrong) == TRIES:
            return False
        if hmac.compare_digest(given.strip().encode("utf-8", "replace"), self._token):
            return True
        self._wrong.append(now)
        return False

    @property
    def is_blocked(self) -> bool:
        """Whether there were too many wrong tokens."""
        return len(self._wrong) == TRIES and self._now() - self._wrong[0] < TRIES_SECONDS

    def new_session(self) -> str:
        """A cookie's value for somebody who knew the token."""
        head = f"{int(self._now()) + SESSION_SECONDS}.{secrets.token_hex(8)}"
        return f"{head}.{self._sign('session', head)}"

    def csrf(self, identity: str) -> str:
        """What a form of ours says and a form of another site cannot know."""
        return self._sign("form", identity)

    def is_csrf(self, identity: str, given: str) -> bool:
        """Whether a form was made for whoever sends it."""
        return bool(identity) and hmac.compare_digest(given.encode("utf-8", "replace"), self.csrf(identity).encode())

    def _is_valid(self, cookie: str) -> bool:
        head, _, signature = cookie.rpartition(".")
        expected = self._sign("session", head).encode()
        if not hmac.compare_digest(signature.encode("utf-8", "replace"), expected):
            return False
        return int(head.partition(".")[0]) > self._now()  # we signed it: it is a number

    def _sign(self, purpose: str, text: str) -> str:
        return hmac.new(self._key, f"{purpose} {text}".encode("utf-8", "replace"), hashlib.sha256).hexdigest()


def read_token(path: Path) -> str:
    """The token of the file; made where there is none.

    Raises:
        ConfigError: the file cannot be read or made, or what it holds is too short to be a token.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            token = path.read_text(encoding="ascii", errors="replace").strip()
        else:
            token = secrets.token_urlsafe(24)
            with os.fdopen(descriptor, "w") as file:
                file.write(f"{token}\n")
    except OSError as error:
        raise ConfigError(
            f"{path}: the token cannot be read or written: {error.strerror}",
            hint="name a file that this user may create: --token-file PATH",
        ) from error
    if len(token) < MIN_TOKEN:
        raise ConfigError(
            f"{path}: expected a token of {MIN_TOKEN} or more characters, found {len(token)}",
            hint=f"remove it; a new one is made at the next start: rm {quoted(path)}",
        )
    return token
