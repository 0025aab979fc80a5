"""What can be done from the page. GET asks for a confirmation and changes nothing; POST does it.

The confirmation says what will happen and how it is undone. Afterwards the page shows the daemon's own answer with the
command that undoes it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from sleepd.errors import NotFound, PermissionDenied, SleepdError, UsageError
from sleepd.protocol import control
from sleepd.protocol.answers import Cancelled, Decided, Paused, RolledBack, Tagged
from sleepd.protocol.status import RunResult
from sleepd.sleepctl.pages.wording import count, model

from .site import Site, form, to_login, whole_number

TAG_CHARACTERS = 60


class Done(NamedTuple):
    """What was done, in a sentence, and the command that undoes it."""

    text: str
    undo: str
    cycle: int | None = None


class Action(NamedTuple):
    """One thing that can be done."""

    title: str
    effect: str
    """What will happen."""
    undo: str
    """How it is undone."""
    order: Callable[[Mapping[str, str]], control.Request]
    """The request, from the fields of the form."""
    answer: type[Any]
    said: Callable[[Any], Done]
    """The daemon's answer in a sentence."""
    fields: tuple[str, ...] = ()
    """Fields of the form that the address brings, and that the confirmation shows and sends on."""
    is_grave: bool = False


def _cycle(given: Mapping[str, str]) -> int:
    return whole_number(given.get("cycle", ""), "cycle")


def _tag(given: Mapping[str, str]) -> control.Tag:
    name = given.get("name", "").strip()
    if len(name) > TAG_CHARACTERS or not name.isprintable():
        raise UsageError(f"a tag has at most {TAG_CHARACTERS} printable characters", hint="use a shorter one")
    return control.Tag(cycle=_cycle(given), name=name or None)


def _decide(decision: Any) -> Callable[[Mapping[str, str]], control.Request]:
    def order(given: Mapping[str, str]) -> control.Request:
        identifier = given.get("id", "")
        if not 0 < len(identifier) <= 256:
            raise UsageError("the id of an experience has 1 to 256 characters", hint="use the page's own buttons")
        return control.QuarantineDecide(ids=[identifier], decision=decision)

    return order


def _decided(done: Decided) -> Done:
    verb = {"release": "released", "drop": "dropped", "reset": "left to the screening again"}[done.decision]
    trained = f"; already trained in cycle {', '.join(map(str, done.trained_in))}" if done.trained_in else ""
    return Done(f"{count(len(done.ids), 'experience')} {verb}{trained}.", done.undo)


def _started(done: RunResult) -> Done:
    return Done(f"{done.reason}.", done.undo, done.cycle)


def _rolled_back(done: RolledBack) -> Done:
    kept = (
        f" {count(done.quarantined, 'experience')} recorded under it went into quarantine." if done.quarantined else ""
    )
    return Done(f"{model(done.champion)} is in use; before: {model(done.was)}.{kept}".capitalize(), done.undo)


def _tagged(done: Tagged) -> Done:
    text = f"Cycle {done.cycle} is tagged {done.tag}." if done.tag else f"Cycle {done.cycle} has no tag now."
    return Done(text, done.undo, done.cycle)


ACTIONS: Final[dict[str, Action]] = {
    "run": Action(
        "Start a cycle if one is due",
        "The daemon reads the buffer and starts a cycle if every condition is met and nothing vetoes it.",
        "“Cancel” discards the cycle until it has a verdict; “Roll back” takes its adapter out of use afterwards.",
        lambda _: control.Run(),
        RunResult,
        _started,
    ),
    "force": Action(
        "Start a cycle now",
        "A cycle starts although a condition is not met. Quarantine, the checks of the worker and the verdict hold.",
        "“Cancel” discards the cycle until it has a verdict; “Roll back” takes its adapter out of use afterwards.",
        lambda _: control.Run(force=True),
        RunResult,
        _started,
    ),
    "cancel": Action(
        "Cancel the running cycle",
        "The cycle under way is discarded with what it has learned. The adapter in use stays.",
        "It cannot be undone. The experiences stay in the buffer: a new cycle can learn them.",
        lambda _: control.Cancel(),
        Cancelled,
        lambda done: Done(f"Cycle {done.cycle} is cancelled; what it learned is discarded.", done.undo, done.cycle),
        is_grave=True,
    ),
    "pause": Action(
        "Pause",
        "No cycle starts any more. A running cycle continues.",
        "“Resume” undoes it.",
        lambda _: control.Pause(),
        Paused,
        lambda done: Done("Paused: no new cycle starts.", done.undo),
    ),
    "resume": Action(
        "Resume",
        "Cycles start again when they are due; one may start at once.",
        "“Pause” undoes it.",
        lambda _: control.Resume(),
        Paused,
        lambda done: Done("Resumed: a cycle starts when it is due.", done.undo),
    ),
    "rollback": Action(
        "Roll back",
        "The champion is taken out of use. Its parent is put in use: the champion before it, or the base model. "
        "Experiences that the agent recorded under it go into quarantine.",
        "“Put in use” on the page of that cycle undoes it.",
        lambda _: control.Rollback(),
        RolledBack,
        _rolled_back,
        is_grave=True,
    ),
    "use": Action(
        "Put another adapter in use",
        "The adapter of this cycle is put in use instead of the champion; cycle 0 is the base model.",
        "“Put in use” on the page of the cycle that is in use now undoes it.",
        lambda given: control.Rollback(cycle=_cycle(given)),
        RolledBack,
        _rolled_back,
        ("cycle",),
        is_grave=True,
    ),
    "tag": Action(
        "Tag a cycle",
        "The cycle keeps its weights for as long as it has a tag. An empty tag removes it.",
        "Give the cycle its old tag again.",
        _tag,
        Tagged,
        _tagged,
        ("cycle", "name"),
    ),
    "release": Action(
        "Release from quarantine",
        "The next cycles may train this experience, whatever the screening found in it.",
        "“Leave it to the screening” undoes it. What a cycle has trained by then stays trained.",
        _decide("release"),
        Decided,
        _decided,
        ("id",),
        is_grave=True,
    ),
    "drop": Action(
        "Drop",
        "No cycle trains this experience or a copy of it. The agent's file is not changed.",
        "“Leave it to the screening” undoes it.",
        _decide("drop"),
        Decided,
        _decided,
        ("id",),
    ),
    "reset": Action(
        "Leave it to the screening",
        "Your decision on this experience is taken back: the screening alone decides.",
        "“Release” or “Drop” decides again.",
        _decide("reset"),
        Decided,
        _decided,
        ("id",),
    ),
}


def routes(site: Site) -> list[Route]:
    """The addresses of this module."""

    def confirm(request: Request) -> Response:
        if not site.login.identity(request):
            return to_login(request)
        try:
            name, action = _action(request)
            given = {field: request.query_params.get(field, "") for field in action.fields}
            action.order(given)  # so that a wrong field is said before anybody confirms it
        except SleepdError as error:
            return site.failure(request, error)
        return site.page(request, "confirm.html", name=name, action=action, given=given, back=_origin(action, given))

    async def do(request: Request) -> Response:
        try:
            identity = site.login.identity(request)
            if not identity:
                raise PermissionDenied("this needs a login", hint="log in with the token: sudo sleepctl web --token")
            given = await form(request)
            if not site.login.is_csrf(identity, given.get("csrf", "")):
                raise PermissionDenied("the form is not of this login", hint="load the page again and confirm again")
            action = _action(request)[1]
            answer = await run_in_threadpool(site.daemon.ask, action.order(given), action.answer)
        except SleepdError as error:
            return site.failure(request, error)
        return site.page(request, "done.html", action=action, done=action.said(answer), back=_origin(action, given))

    return [
        Route("/do/{action}", confirm, methods=["GET"]),
        Route("/do/{action}", do, methods=["POST"]),
    ]


def _origin(action: Action, given: Mapping[str, str]) -> str:
    """The page where it was chosen; its fields were read before."""
    if "id" in action.fields:
        return "/quarantine"
    cycle = _cycle(given) if "cycle" in action.fields else 0
    return f"/cycles/{cycle}" if cycle else "/"


def _action(request: Request) -> tuple[str, Action]:
    name = request.path_params["action"]
    if name not in ACTIONS:
        raise NotFound(f"there is no action {name[:40]!r}", hint="use the page's own buttons")
    return name, ACTIONS[name]
