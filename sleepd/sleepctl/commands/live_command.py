"""``live``: what a running engine answers with, as its answers show it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec

from sleepd.errors import ProtocolError, RequestFailed
from sleepd.protocol.control import decode_answer
from sleepd.protocol.deployment.live_request import LiveAnswer, LiveRequest
from sleepd.sleepctl.exit_codes import ExitCode
from sleepd.sleepctl.pages.live_page import live_page
from sleepd.sleepctl.session import Session

_MOST_SECONDS = 1800.0
"""For all questions; each answer has its own limit."""


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


def ask_endpoint(request: LiveRequest) -> LiveAnswer:
    """What the endpoint runs.

    Raises:
        SleepdError: it cannot be asked, or there is nothing to compare with.
    """
    command = [sys.executable, "-P", "-m", "sleepd.serving.identify_endpoint"]
    try:
        done = subprocess.run(
            command, input=msgspec.json.encode(request), capture_output=True, timeout=_MOST_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        text = f"the engine at {request.url} did not answer all questions within {_MOST_SECONDS:g} s"
        raise RequestFailed(text, hint="is it busy?") from None
    if not done.stdout:
        last = done.stderr.decode(errors="replace").strip().splitlines() or [f"exit status {done.returncode}"]
        raise ProtocolError(f"the process that asks the engine failed: {last[-1]}", hint="sleepctl doctor")
    return decode_answer(done.stdout, LiveAnswer)
