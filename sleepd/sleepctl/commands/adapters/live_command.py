"""``live``: what a running engine answers with, as its answers show it."""

from __future__ import annotations

from pathlib import Path

from sleepd.protocol.deployment.live_request import LiveRequest
from sleepd.sleepctl.endpoint_asking import ask_endpoint
from sleepd.sleepctl.exit_codes import ExitCode
from sleepd.sleepctl.pages.live_page import live_page
from sleepd.sleepctl.session import Session


def live(session: Session) -> ExitCode:
    """Asked by a process of its own, with the caller's rights; FAILED where the engine runs something else."""
    arguments = session.arguments
    url, model, key_file = arguments.url, arguments.model, arguments.key_file
    if not url:
        serve = session.places.load_config().config.serve
        url, model, key_file = serve.url, model or serve.model, key_file or serve.key_file
    request = LiveRequest(
        url=url,
        model=model,
        key_file=str(Path(key_file).absolute()) if key_file else "",
        state=str(session.places.state.absolute()),
    )
    answer = ask_endpoint(request)
    session.console.show(answer, live_page(answer))
    return ExitCode.OK if answer.is_in_use else ExitCode.FAILED
