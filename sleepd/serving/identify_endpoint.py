"""``python -m sleepd.serving.identify_endpoint``: ask an endpoint which adapter it runs.

A ``LiveRequest`` comes on standard input, an answer as of the control socket goes to standard output. It runs with the
rights of who calls it, and needs to read the fingerprints: the group of the service may.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import msgspec

from sleepd.errors import DECODE_ERRORS, NotFound, PermissionDenied, ProtocolError, SleepdError
from sleepd.files import is_own_directory, read_document
from sleepd.protocol.chat_example import Message
from sleepd.protocol.checkpoint.checkpoint_files import FINGERPRINT_FILE
from sleepd.protocol.control import answer, answer_error
from sleepd.protocol.deployment.adapter_fingerprint import (
    MAX_FILE_BYTES,
    VERSION,
    AdapterFingerprint,
    Identity,
    IdentityKind,
    ModelAnswer,
    PromptReference,
)
from sleepd.protocol.deployment.live_request import LiveAnswer, LiveRequest
from sleepd.store.checkpoints import cycle_number

from .endpoint import Endpoint
from .http import HttpLimits
from .key_file import read_key
from .uncached_identity import identity_of

MOST_COMPARED = 6
"""Fingerprints that an endpoint is held against: the champion's, then the newest. Each takes sixteen questions."""


def main() -> int:
    """HttpAnswer one request; exit code 1 where the answer is an error."""
    try:
        request = msgspec.json.decode(sys.stdin.buffer.read(), type=LiveRequest)
        line, code = answer(live(request)), 0
    except DECODE_ERRORS as error:
        problem = ProtocolError(f"not understood: request: {error}", hint="sleepctl live asks it rightly")
        line, code = answer_error(problem), 1
    except SleepdError as error:
        line, code = answer_error(error), 1
    sys.stdout.buffer.write(line)
    return code


def live(request: LiveRequest) -> LiveAnswer:
    """What the endpoint runs.

    Raises:
        SleepdError: the endpoint cannot be asked, or there is no fingerprint to hold its answers against.
    """
    started = time.monotonic()
    key = read_key(request.key_file)
    endpoint = Endpoint(request.url, request.model, key, HttpLimits(seconds=request.seconds))
    in_use, fingerprints, without = _fingerprints(Path(request.state))
    if not fingerprints and not request.is_check:
        text = (
            f"{request.state}: none of {len(without)} checkpoints has a {FINGERPRINT_FILE} to hold the answers against"
        )
        raise NotFound(text, hint="the next cycle writes one")
    identity = identity_of(endpoint, fingerprints)[0] if fingerprints else _first_answer(endpoint)
    return LiveAnswer(
        url=request.url,
        model=endpoint.model(),
        in_use=in_use,
        is_in_use=identity.is_named and identity.cycle == in_use,
        identity=identity,
        compared=[one.cycle for one in fingerprints],
        without=without,
        seconds=round(time.monotonic() - started, 3),
    )


def _first_answer(endpoint: Endpoint) -> Identity:
    """Of an engine that nothing can be compared with yet."""
    nothing = ModelAnswer(steps=(), text="")
    greeting = (Message(role="user", text="Good morning."),)
    prompt = PromptReference(kind="reference", messages=greeting, prompt_tokens=1, base=nothing, candidate=nothing)
    kind: IdentityKind = "too_coarse" if endpoint.ask(prompt).has_chances else "no_logprobs"
    return Identity(kind=kind, reason="no cycle has recorded its answers yet")


def _fingerprints(state: Path) -> tuple[int | None, list[AdapterFingerprint], list[int]]:
    """What is in use; the fingerprints, the champion's first, then the newest; and the cycles that have none."""
    try:
        in_use = _champion(state)
        paths = {cycle_number(path.name): path for place in (state / "retired", state) for path in _directories(place)}
    except PermissionError as error:
        raise _no_permission(state) from error
    found: list[AdapterFingerprint] = []
    without = []
    for cycle in sorted(paths, key=lambda number: (number != in_use, -number)):
        if len(found) == MOST_COMPARED:
            break
        fingerprint = read_fingerprint(paths[cycle])
        found += [fingerprint] if fingerprint else []
        without += [] if fingerprint else [cycle]
    return in_use, found, without


def _champion(state: Path) -> int | None:
    """The cycle that is in use; None: the base."""
    link = state / "current"
    return (cycle_number(os.readlink(link)) or None) if link.is_symlink() else None


def _directories(place: Path) -> list[Path]:
    if not place.is_dir():
        return []
    return [path for path in place.iterdir() if cycle_number(path.name) and is_own_directory(path)]


def read_fingerprint(checkpoint: Path) -> AdapterFingerprint | None:
    """The fingerprint of a checkpoint; None: it has none.

    Raises:
        PermissionDenied: this user may not read it.
        ProtocolError: it is damaged, or a newer version wrote it.
    """
    path = checkpoint / FINGERPRINT_FILE
    hint = "sleepctl doctor verifies the checkpoints"
    try:
        found = msgspec.json.decode(read_document(path, MAX_FILE_BYTES), type=AdapterFingerprint)
    except FileNotFoundError:
        return None
    except PermissionError as error:
        raise _no_permission(path) from error
    except (OSError, *DECODE_ERRORS) as error:
        raise ProtocolError(f"{path}: cannot be understood: {error}", hint=hint) from error
    if found.version > VERSION:
        text = f"{path}: it has version {found.version}, this sage-sleepd reads {VERSION}"
        raise ProtocolError(text, hint="install the version that wrote it, or a newer one")
    return found


def _no_permission(path: Path) -> PermissionDenied:
    hint = "sudo usermod -aG sage-sleepd $USER, then log in again (or once: sudo sleepctl …)"
    return PermissionDenied(f"{path}: this user may not read it", hint=hint)


if __name__ == "__main__":
    sys.exit(main())
