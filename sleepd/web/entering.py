"""Logging in and out."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from sleepd.errors import PermissionDenied, SleepdError

from .login import SESSION_SECONDS, TRIES_SECONDS
from .site import Site, form, is_own_path


def routes(site: Site) -> list[Route]:
    """The addresses of this module."""

    def show(request: Request) -> Response:
        return _form(site, request, request.query_params.get("next", "/"))

    async def log_in(request: Request) -> Response:
        try:
            given = await form(request)
        except SleepdError as error:
            return site.failure(request, error)
        target = given.get("next", "/")
        if not site.login.is_token(given.get("token", "")):
            return _form(site, request, target, is_wrong=True)
        response = RedirectResponse(target if is_own_path(target) else "/", 303)
        name, session = site.login.cookie, site.login.new_session()
        response.set_cookie(name, session, max_age=SESSION_SECONDS, httponly=True, samesite="strict", path="/")
        return response

    async def log_out(request: Request) -> Response:
        try:
            given = await form(request)
            if not site.login.is_csrf(site.login.identity(request), given.get("csrf", "")):
                raise PermissionDenied("the form is not of this login", hint="load the page again")
        except SleepdError as error:
            return site.failure(request, error)
        response = RedirectResponse("/login", 303)
        response.delete_cookie(site.login.cookie, path="/")
        return response

    return [
        Route("/login", show, methods=["GET"]),
        Route("/login", log_in, methods=["POST"]),
        Route("/logout", log_out, methods=["POST"]),
    ]


def _form(site: Site, request: Request, target: str, *, is_wrong: bool = False) -> Response:
    is_blocked = site.login.is_blocked
    status = 429 if is_blocked else 403 if is_wrong else 200
    response = site.page(
        request,
        "login.html",
        code=status,
        next=target if is_own_path(target) else "/",
        is_wrong=is_wrong,
        is_blocked=is_blocked,
    )
    if is_blocked:
        response.headers["Retry-After"] = f"{TRIES_SECONDS:.0f}"
    return response
