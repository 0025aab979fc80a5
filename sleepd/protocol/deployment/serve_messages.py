"""What the daemon and the process that speaks to engines tell each other, and what the status shows of it.

The daemon sends one :class:`ServeRequest` over a connection of its own. The process answers with any number of
:class:`ServeStep` lines and ends with one :class:`ServeOutcome`. Each line is a JSON object.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import msgspec

from sleepd.clock import Moment
from sleepd.errors import DECODE_ERRORS, ProtocolError

MAX_LINE_BYTES = 1024 * 1024


class Generation(msgspec.Struct, frozen=True, kw_only=True):
    """One adapter, as the engine can be given it. The base itself is None wherever a generation may stand."""

    cycle: int
    directory: str
    """The checkpoint: the adapter's files, and its ``fingerprint.json`` where the worker wrote one."""
    sha256: str
    """Of the weights, as the manifest has it: two generations never share a name."""


Action: TypeAlias = Literal["ensure", "free", "watch"]


class ServeRequest(msgspec.Struct, frozen=True, kw_only=True):
    """See to it that the engine runs ``wanted``, and prove it; or ask the engine to free the GPU; or watch it.

    ``watch`` asks nothing: it ends when another instance of the engine listens, at the latest after an hour.
    """

    action: Action = "ensure"
    wanted: Generation | None
    """None: the base."""
    fallback: Generation | None = None
    """What was proved last, and is put back where ``wanted`` cannot be proved; None: the base."""
    has_fallback: bool = False
    """False: nothing was ever proved, so that there is nothing to put back."""
    others: list[Generation] = []
    """Further generations that the engine may be found to run."""
    was_given: bool = False
    """``wanted`` was put into the engine before: what cannot be told is no reason to put it in again."""
    failures: int = 0
    """How often in a row it ended without a proof."""
    may_swap: bool = True
    """False: only ask what the engine runs."""
    is_asked_for: bool = False
    """The operator asks: the base model of the engine may be another one than at earlier proofs."""
    instance: str | None = None
    """To watch: the instance that was asked last; None: the one that is found first."""
    settings: dict[str, Any]
    """The daemon's section ``[serve]``."""
    state_directory: str
    base: str
    """The configured base model."""
    cache_directory: str = ""
    """Where the hub's models are cached; empty: the default place."""
    python: str
    """The interpreter that has torch."""


Phase: TypeAlias = Literal["", "asking", "preparing", "waiting", "swapping", "proving", "putting_back", "freeing"]


class ServeStep(msgspec.Struct, frozen=True, kw_only=True, tag="step"):
    """What is done now. From ``swapping`` on nothing is proved any more."""

    phase: Phase
    text: str = ""
    cycle: int | None = None
    """Of ``preparing``: what the engine was just found to run; None with ``is_known``: the base."""
    is_known: bool = False
    """Whether its answers named that."""


Result: TypeAlias = Literal["proved", "unproved", "put_back", "not_served", "unreachable", "freed", "watched"]


class ServeOutcome(msgspec.Struct, frozen=True, kw_only=True, tag="outcome"):
    """How it ended.

    ``proved``: the engine runs ``wanted``. ``unproved``: it was given ``wanted``, and its answers cannot tell (too few
    log-probabilities, too coarse, no fingerprint). ``put_back``: it runs ``fallback`` again, which was proved.
    ``not_served``: it runs something else. ``unreachable``: it did not answer. ``freed``: it holds no GPU now.
    ``watched``: ``instance`` listens now.
    """

    result: Result
    cycle: int | None = None
    """What the answers prove: the cycle, or None with ``is_known`` for the base."""
    is_known: bool = False
    """Whether the answers name what the engine runs."""
    has_swapped: bool = False
    """Whether the engine was given something else on the way."""
    distance: float | None = None
    """Between the engine's answers and the fingerprint of what it runs."""
    next_nearest: float | None = None
    """The same to the nearest other generation."""
    instance: str | None = None
    """A name for the running engine, another one after its restart: read before the first question; None: not read."""
    identity: str = ""
    """What the answers were found to be, in the words of ``policy.identification``."""
    text: str = ""
    """What is wrong, a sentence; empty where it is proved."""
    hint: str = ""
    """The command that fixes it."""


class ServedState(msgspec.Struct, frozen=True, kw_only=True):
    """What the engine runs, as far as that is proved: the line ``Serving`` of the status."""

    kind: str
    """``serve.kind``."""
    url: str
    model: str
    wanted: int | None
    """What ``current`` names; None: the base."""
    served: int | None = None
    """What was proved last; None: the base, where ``is_proved``."""
    is_proved: bool = False
    """Whether ``served`` holds: it was proved, and nothing has been found or done since that contradicts it."""
    since: Moment | None = None
    """Since when ``served`` is proved without a break."""
    proved_at: Moment | None = None
    """When it was proved last."""
    distance: float | None = None
    next_nearest: float | None = None
    phase: Phase = ""
    """What is done now; empty: nothing."""
    problem: str = ""
    """What is wrong, a sentence; empty: nothing is."""
    hint: str = ""
    """The command that fixes it."""
    retry_at: Moment | None = None
    """When it is tried again by itself."""


class ServedSpan(msgspec.Struct, frozen=True, kw_only=True):
    """From when to when the engine was proved to run one generation."""

    cycle: int | None
    """None: the base."""
    since: Moment
    proved_at: Moment
    """The last proof."""
    until: Moment | None = None
    """When it ended: a swap began, or something else was found; None: it lasts."""
    distance: float | None = None
    next_nearest: float | None = None
    proofs: int = 1


_answers: msgspec.json.Decoder[ServeStep | ServeOutcome] = msgspec.json.Decoder(ServeStep | ServeOutcome)
_request = msgspec.json.Decoder(ServeRequest)


def encode(message: ServeRequest | ServeStep | ServeOutcome) -> bytes:
    """One message as one line."""
    return msgspec.json.encode(message) + b"\n"


def decode_request(line: bytes) -> ServeRequest:
    """The daemon's line.

    Raises:
        ProtocolError: it is no request.
    """
    try:
        return _request.decode(line)
    except DECODE_ERRORS as error:
        raise ProtocolError(f"not understood: request to serve: {error}", hint=_SAME_VERSION) from error


def decode_message(line: bytes) -> ServeStep | ServeOutcome:
    """A line of the process that speaks to engines.

    Raises:
        ProtocolError: it is no such message.
    """
    try:
        return _answers.decode(line)
    except DECODE_ERRORS as error:
        raise ProtocolError(f"not understood: answer of the serve process: {error}", hint=_SAME_VERSION) from error


_SAME_VERSION = "restart sage-sleepd: an upgraded daemon runs on as it was until then"
