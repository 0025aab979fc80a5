"""The pages that show something."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from sleepd.errors import SleepdError
from sleepd.protocol.answers import Cycles, FoundTexts, Reasons
from sleepd.protocol.control import Buffer, GetStatus, History, Quarantine, Search, Show, Why
from sleepd.protocol.prometheus import metrics_text
from sleepd.protocol.status import BufferDetail, CycleDetail, CycleSummary, QuarantineList, Status
from sleepd.sleepctl.asking import known_cycle

from .rendering import render
from .site import Site, headline, whole_number
from .values import buffer_values, comparison_values, cycle_values, start_values, timeline_values

DECISIONS = 40
"""Decisions, and alarms, below the timeline."""
MOST_CYCLES = 60
"""Of one timeline: the page stays below 150 kB."""
WORDS = 200
"""Characters that can be searched for."""
EARLIER, LATER = 80, 20
"""Cycles before and after one that are searched for its lineage."""
TEXTS = 50
"""Experiences whose text stands on the page of a cycle."""


def start(site: Site, request: Request) -> Response:
    """State, conditions, progress, champion, warnings."""
    status, now = site.daemon.ask(GetStatus(), Status), site.clock.now()
    champion = _champion(site, status)
    values = start_values.head(status, site.live.losses, now) | start_values.facts(status, champion, now)
    return site.page(request, "start.html", **values)


def _champion(site: Site, status: Status) -> CycleSummary | None:
    """The line of the cycle in use; None: there is none."""
    if status.champion is None:
        return None
    number = status.champion.cycle
    found = site.daemon.ask(History(limit=1, before=number + 1), Cycles).cycles
    return found[0] if found and found[0].cycle == number else None


def live_parts(site: Site, *, is_operator: bool) -> dict[str, str]:
    """The parts of the start page, as the browser replaces them."""
    try:
        status, now = site.daemon.ask(GetStatus(), Status), site.clock.now()
        champion = _champion(site, status)
    except SleepdError as error:
        said = {"headline": headline(error), "message": error.message, "hint": error.hint}
        return {"head": render("parts/absent.html", **said)}
    return {
        "head": render("parts/head.html", **start_values.head(status, site.live.losses, now)),
        "facts": render("parts/facts.html", **start_values.facts(status, champion, now)),
        "actions": render("parts/actions.html", status=status, is_operator=is_operator),
    }


def events(site: Site, request: Request) -> Response:
    """The parts of the start page as server-sent events."""
    site.live.refuse_more()
    is_operator = bool(site.login.identity(request))
    stream = site.live.parts(lambda: live_parts(site, is_operator=is_operator))
    return StreamingResponse(stream, media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})


def timeline(site: Site, request: Request) -> Response:
    """Every cycle, and the decisions."""
    query = request.query_params
    limit = whole_number(query.get("limit", "40"), "limit", least=1, most=MOST_CYCLES)
    before = whole_number(query["before"], "before", least=1) if "before" in query else None
    cycles = site.daemon.ask(History(limit=limit, before=before), Cycles).cycles
    reasons = site.daemon.ask(Why(limit=DECISIONS), Reasons)
    values = timeline_values.values(cycles, reasons, site.clock.now(), limit=limit, is_newest=before is None)
    return site.page(request, "timeline.html", **values)


def cycle(site: Site, request: Request) -> Response:
    """One cycle."""
    number = _number(request.path_params["cycle"])
    known = known_cycle(site.daemon.ask, number, limit=TEXTS)
    # Its lineage is drawn from the cycles around it.
    cycles = site.daemon.ask(History(limit=EARLIER + LATER, before=number + LATER), Cycles).cycles
    return site.page(request, "cycle.html", has_links=True, **cycle_values.values(known, cycles, site.clock.now()))


def compare(site: Site, request: Request) -> Response:
    """Two cycles side by side."""
    one, other = (
        site.daemon.ask(Show(cycle=_number(request.query_params.get(name, ""))), CycleDetail) for name in ("a", "b")
    )
    return site.page(request, "compare.html", **comparison_values.values(one, other, site.clock.now()))


def buffer(site: Site, request: Request) -> Response:
    """The buffer as it was just read, and what a search finds in it."""
    detail, now = site.daemon.ask(Buffer(moments=buffer_values.MOMENTS), BufferDetail), site.clock.now()
    words = request.query_params.get("search", "")[:WORDS]
    found = site.daemon.ask(Search(words=words, limit=TEXTS), FoundTexts) if words else None
    return site.page(request, "buffer.html", now=now, words=words, found=found, **buffer_values.values(detail, now))


def quarantine(site: Site, request: Request) -> Response:
    """What is excluded from training, to be reviewed."""
    known = site.daemon.ask(Quarantine(limit=buffer_values.SEARCHED), QuarantineList)
    search, state = (request.query_params.get(name, "") for name in ("search", "state"))
    return site.page(request, "quarantine.html", **buffer_values.quarantine_values(known, search[:200], state))


def metrics(site: Site, _: Request) -> Response:
    """The figures for Prometheus; those of the newest cycle with a report among them."""
    status = site.daemon.ask(GetStatus(), Status)
    judged = next((each.cycle for each in status.recent_cycles if each.holdout_after is not None), None)
    detail = None if judged is None else site.daemon.ask(Show(cycle=judged), CycleDetail)
    text = metrics_text(status, detail.report if detail else None)
    return Response(text, media_type="text/plain; version=0.0.4")


def _number(text: str) -> int:
    return whole_number(text, "cycle", least=1)
