"""An endpoint asked by a process of its own, with the rights of who calls sleepctl."""

from __future__ import annotations

import subprocess
import sys

import msgspec

from sleepd.errors import ProtocolError, RequestFailed
from sleepd.protocol.control import decode_answer
from sleepd.protocol.deployment.live_request import LiveAnswer, LiveRequest

_MOST_SECONDS = 1800.0
"""For all questions; each answer has its own limit."""


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
