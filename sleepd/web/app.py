"""The application: which address is answered by which view."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from . import actions, entering, views
from .rendering import static
from .site import Site, reading
from .web_places import SOCKET_HEADER

STATIC = {"style.css": "text/css", "live.js": "text/javascript", "icon.svg": "image/svg+xml"}
"""Every file that is served, and its type."""


def build(site: Site) -> Starlette:
    """Every address of the page."""

    def page(path: str, view: Callable[[Site, Request], Response]) -> Route:
        return Route(path, reading(site, view), methods=["GET"])

    routes = [
        page("/", views.start),
        page("/events", views.events),
        page("/cycles", views.timeline),
        page("/cycles/{cycle}", views.cycle),
        page("/compare", views.compare),
        page("/buffer", views.buffer),
        page("/quarantine", views.quarantine),
        page("/metrics", views.metrics),
        *[Route(f"/static/{name}", _static(name, kind), methods=["GET"]) for name, kind in STATIC.items()],
        Route("/health", _health(site), methods=["GET"]),
        *entering.routes(site),
        *actions.routes(site),
    ]

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        site.live.stop()

    async def not_found(request: Request, _: Exception) -> Response:
        said = {"headline": "There is no such page", "message": request.url.path, "hint": "", "is_down": False}
        return site.page(request, "error.html", code=404, **said)

    async def unexpected(request: Request, error: Exception) -> Response:
        said = {"headline": "The page could not be made", "message": f"{type(error).__name__}.", "is_down": False}
        return site.page(request, "error.html", code=500, hint="journalctl -u sage-sleep-web has the traceback", **said)

    return Starlette(
        routes=routes, lifespan=lifespan, exception_handlers={404: not_found, 405: not_found, 500: unexpected}
    )


def _static(name: str, kind: str) -> Callable[[Request], Response]:
    content = static(name)

    def respond(_: Request) -> Response:
        return Response(content, media_type=kind, headers={"Cache-Control": "max-age=300"})

    return respond


def _health(site: Site) -> Callable[[Request], Response]:
    """Whether this process answers, and for which daemon; nothing of the daemon itself."""
    headers = {SOCKET_HEADER: quote(site.daemon.socket_path)}

    def respond(_: Request) -> Response:
        return PlainTextResponse("ok\n", headers=headers)

    return respond
