"""What every page has at hand: the daemon, who is logged in, the frame around a page, errors as pages."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, quote

from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from sleepd.clock import Clock
from sleepd.errors import (
    Busy,
    DaemonNotRunning,
    NotFound,
    NothingToDo,
    PermissionDenied,
    SleepdError,
    UsageError,
    VersionMismatch,
)
from sleepd.version import VERSION

from .daemon_access import DaemonAccess
from .login import Login
from .rendering import render
from .subscription import Subscription

_STATUS = {
    NotFound: 404,
    UsageError: 400,
    PermissionDenied: 403,
    Busy: 503,
    DaemonNotRunning: 503,
    VersionMismatch: 503,
}
"""HTTP's number for an error of the daemon; 502 for every other one, and 409 where an order is refused."""
FIELDS = 20
"""Most fields of a form of ours."""
FORM_SECONDS = 5.0
"""How long a form may take to arrive after its headers."""


class Site(NamedTuple):
    """What the pages are made with."""

    daemon: DaemonAccess
    login: Login
    live: Subscription
    clock: Clock

    def page(self, request: Request, template: str, *, code: int = 200, **values: Any) -> Response:
        """A template in the frame that all pages have."""
        identity = self.login.identity(request)
        frame = {
            "now": self.clock.now(),
            "path": request.url.path,
            "is_operator": bool(identity),
            "csrf": self.login.csrf(identity) if identity else "",
            "version": VERSION,
        }
        return HTMLResponse(render(template, **{**frame, **values}), code)

    def failure(self, request: Request, error: SleepdError) -> Response:
        """An error as a page: what is wrong, and the next step."""
        status = next((code for kind, code in _STATUS.items() if isinstance(error, kind)), 502)
        if request.method == "POST" and status == 502:
            status = 409
        said = {"headline": headline(error), "message": error.message, "hint": error.hint, "is_down": _is_down(error)}
        return self.page(request, "error.html", code=status, **said)


def _is_down(error: SleepdError) -> bool:
    """Whether it is worth asking again in a moment."""
    return isinstance(error, DaemonNotRunning | VersionMismatch)


def headline(error: SleepdError) -> str:
    """An error in a few words."""
    if isinstance(error, VersionMismatch):
        return "The daemon has another version"
    if _is_down(error):
        return "The daemon does not answer"
    return "There is nothing to do" if isinstance(error, NothingToDo) else "This did not work"


View = Callable[[Site, Request], Response]


def reading(site: Site, view: View) -> Callable[[Request], Response]:
    """A page that shows something: only for whoever may read; errors of the daemon become pages."""

    def respond(request: Request) -> Response:
        if not site.login.may_read(request):
            return to_login(request)
        try:
            return view(site, request)
        except SleepdError as error:
            return site.failure(request, error)

    return respond


def to_login(request: Request) -> Response:
    """Asks for the token, and comes back to the page that was asked for."""
    target = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    return RedirectResponse(f"/login?next={quote(target, safe='')}", 303)


def is_own_path(target: str) -> bool:
    """Whether this is a path of this site; with two slashes at its beginning it would be an address of another one."""
    return target.startswith("/") and not target.startswith(("//", "/\\")) and target.isprintable()


async def form(request: Request) -> dict[str, str]:
    """The fields of a posted form; the guard has bounded its length.

    Raises:
        UsageError: it is no form of ours.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise UsageError("the request has no form", hint="use the page's own buttons")
    try:
        async with asyncio.timeout(FORM_SECONDS):
            text = (await request.body()).decode("ascii")
        return dict(parse_qsl(text, keep_blank_values=True, max_num_fields=FIELDS, errors="strict"))
    except (TimeoutError, ClientDisconnect) as error:
        raise UsageError("the form did not arrive whole", hint="send it again") from error
    except ValueError as error:
        raise UsageError(f"the form cannot be read: {error}", hint="use the page's own buttons") from error


def whole_number(text: str, name: str, *, least: int = 0, most: int = 10**9) -> int:
    """A number from an address or a form.

    Raises:
        NotFound: it is none, or out of bounds.
    """
    if text.isascii() and text.isdigit() and len(text) <= 10 and least <= int(text) <= most:
        return int(text)
    raise NotFound(f"{name}: expected a number from {least} to {most}, found {text[:40]!r}", hint="see the timeline")
