"""Every message on the control socket.

A client sends one request a line and gets one :class:`Answer` a line; after :class:`Subscribe` it gets
:class:`Announcement` lines until one side closes. Each line is a JSON object. The structures of the answers stand in
``status.py``.

Unknown fields are ignored (a newer client may speak to an older daemon of the same ``v``); missing and wrong ones are
refused by name.
"""

from __future__ import annotations

import math
from datetime import datetime
from typing import Annotated, Any, Literal, TypeVar, cast

import msgspec

from sleepd.errors import DECODE_ERRORS, ProtocolError, SleepdError, UsageError, VersionMismatch, from_wire

from .evidence import METRIC_NAME
from .given_thresholds import GivenThresholds, GivenTriggers, Integer

PROTOCOL_VERSION = 1
MAX_REQUEST_BYTES = 64 * 1024
MOST_ENTRIES = 1000
"""Of a list in one answer: who asks for more gets so many, for each entry is looked up while everybody else waits."""
Identifier = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
"""The id of an experience."""


# --- requests ---


class Request(msgspec.Struct, frozen=True, kw_only=True, tag_field="op", tag=lambda name: name.lower()):
    """Base of all requests; the op is the class name in lower case."""

    v: int = PROTOCOL_VERSION


class Listing(Request, frozen=True, kw_only=True):
    """Base of the requests for a list, which is at most ``MOST_ENTRIES`` long, however large the number is."""

    limit: Integer = 10

    def __post_init__(self) -> None:
        if self.limit > MOST_ENTRIES:
            msgspec.structs.force_setattr(self, "limit", MOST_ENTRIES)


class GetStatus(Request, frozen=True, kw_only=True):
    """Answer: :class:`Status`."""


class Check(Request, frozen=True, kw_only=True):
    """Read the buffer again and decide. Answer: :class:`DecisionView`."""

    thresholds: GivenThresholds = GivenThresholds()


class Run(Request, frozen=True, kw_only=True):
    """Sleep if due (or ``force``). Answer: :class:`RunResult`. With ``wait`` the answer comes at the cycle's end."""

    force: bool = False
    wait: bool = False
    epochs: Integer | None = None
    learning_rate: float | None = None
    max_experiences: Integer | None = None
    strategy: str | None = None
    strategies: Annotated[list[str], msgspec.Meta(max_length=2)] = []  # against each other
    thresholds: GivenThresholds = GivenThresholds()

    def __post_init__(self) -> None:
        for name, value, low, high in (
            ("epochs", self.epochs, 1, 1000),
            ("learning_rate", self.learning_rate, 1e-8, 1.0),
            ("max_experiences", self.max_experiences, 1, 10**6),
        ):
            if value is not None and not low <= value <= high:
                raise UsageError(f"{name}: expected {low:g} to {high:g}, found {value:g}", hint="sleepctl run --help")
        if self.strategies and (len(self.strategies) < 2 or self.strategy is not None):
            raise UsageError("strategies: expected two, without strategy", hint="sleepctl run --help")


class Cancel(Request, frozen=True, kw_only=True):
    """Discard the cycle under way. Answer: ``{"cycle": N, "undo": …}``."""


class Pause(Request, frozen=True, kw_only=True):
    """Start no cycle until resumed; one under way goes on. Answer: ``{"is_paused": true, "undo": …}``."""


class Resume(Request, frozen=True, kw_only=True):
    """The opposite of pause. Answer: ``{"is_paused": false, "undo": …}``."""


class History(Listing, frozen=True, kw_only=True):
    """Answer: ``{"schema": 1, "cycles": [CycleSummary …]}``, newest first."""

    limit: Integer = 50
    before: Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)] | None = None
    """Only cycles with a lower number: the next part of a long list."""


class Show(Request, frozen=True, kw_only=True):
    """Answer: :class:`CycleDetail`."""

    cycle: Integer


class Experiences(Listing, frozen=True, kw_only=True):
    """What a cycle trained and replayed, read in the buffer. Answer: :class:`Learned`."""

    cycle: Integer
    limit: Integer = 10
    """Most texts, at most 200."""


class Search(Listing, frozen=True, kw_only=True):
    """Experiences of the buffer whose text holds some words. Answer: :class:`FoundTexts`."""

    words: Annotated[str, msgspec.Meta(max_length=200)] = ""


class Why(Listing, frozen=True, kw_only=True):
    """Answer: ``{"schema": 1, "current": DecisionView, "changes": [DecisionRecord …]}``, newest first."""

    limit: Integer = 10
    since: Annotated[datetime, msgspec.Meta(tz=True)] | None = None
    """Changes from then on."""


class When(Request, frozen=True, kw_only=True):
    """When the next sleep is expected. Answer: :class:`ExpectedSleep`."""


class Simulate(Request, frozen=True, kw_only=True):
    """What other thresholds would have done since then. Answer: :class:`SimulatedTriggers`."""

    triggers: GivenTriggers
    since: Annotated[datetime, msgspec.Meta(tz=True)]


class Buffer(Request, frozen=True, kw_only=True):
    """Answer: :class:`BufferDetail`."""

    sample: Annotated[int, msgspec.Meta(ge=0, le=20)] = 0
    """So many of the first experiences with their texts; for operators."""
    moments: Annotated[int, msgspec.Meta(ge=0, le=500)] = 0
    """At most so many earlier moments with their counts."""


class Rollback(Request, frozen=True, kw_only=True):
    """Put an earlier champion (or, with 0, the base) in use; None: its parent. Answer: :class:`RolledBack`."""

    cycle: Integer | None = None


class Tag(Request, frozen=True, kw_only=True):
    """Give a cycle a tag, which keeps its weights; None removes it. Answer: :class:`Tagged`."""

    cycle: Integer
    name: Annotated[str, msgspec.Meta(pattern=r"^[^\x00-\x1f\x7f]{1,60}$")] | None = None


class AddMetric(Request, frozen=True, kw_only=True):
    """Add a figure that the operator measured on an adapter; None takes it away. Answer: :class:`MetricResult`."""

    cycle: Integer
    name: Annotated[str, msgspec.Meta(pattern=rf"^{METRIC_NAME}\Z")]
    value: float | None = None

    def __post_init__(self) -> None:
        if self.value is not None and not math.isfinite(self.value):
            raise UsageError(f"{self.name}: expected a number, found {self.value}", hint="sleepctl metric --help")


class Judge(Request, frozen=True, kw_only=True):
    """Start a cycle that judges the imported bundle whose id begins so. Answer: :class:`RunResult`."""

    bundle: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{4,64}\Z")]


class Prune(Request, frozen=True, kw_only=True):
    """Remove the weights that retention does not keep. Answer: :class:`PruneResult`."""

    is_dry_run: bool = False
    keep: Integer | None = None
    """Instead of the configured number of promoted ones."""


class Quarantine(Listing, frozen=True, kw_only=True):
    """Answer: :class:`QuarantineList`."""

    limit: Integer = 100


class QuarantineShow(Request, frozen=True, kw_only=True):
    """One experience with its text. Answer: :class:`QuarantineDetail`."""

    id: Identifier


class QuarantineDecide(Request, frozen=True, kw_only=True):
    """Release experiences (they may be trained), drop them, or take that back. Answer: :class:`Decided`."""

    ids: Annotated[list[Identifier], msgspec.Meta(min_length=1, max_length=1000)]
    decision: Literal["release", "drop", "reset"]


class Reload(Request, frozen=True, kw_only=True):
    """Read the configuration again, as SIGHUP does. Answer: ``{"changed": [keys]}``."""


class GetVersion(Request, frozen=True, kw_only=True):
    """Answer: ``{"version": …, "v": …}``."""


class Subscribe(Request, frozen=True, kw_only=True):
    """Answer ``{}``, then an :class:`Announcement` a line."""


AnyRequest = (
    GetStatus
    | Check
    | Run
    | Cancel
    | Pause
    | Resume
    | History
    | Show
    | Experiences
    | Search
    | Why
    | When
    | Simulate
    | Buffer
    | Rollback
    | Tag
    | AddMetric
    | Judge
    | Prune
    | Quarantine
    | QuarantineShow
    | QuarantineDecide
    | Reload
    | GetVersion
    | Subscribe
)

OPERATOR_REQUESTS = (
    *(Cancel, Pause, Resume, Rollback, Tag, AddMetric, Judge),
    *(Prune, QuarantineShow, QuarantineDecide, Reload),
)
"""These need the operator's permission always; ``Run`` and ``Check`` when they force or loosen."""


# --- answers ---


class WireError(msgspec.Struct, frozen=True, kw_only=True):
    """An error on its way to the client."""

    kind: str
    message: str
    hint: str


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """The one answer to a request: ``data``, or ``error``."""

    v: int = PROTOCOL_VERSION
    data: msgspec.Raw = msgspec.Raw(b"null")
    error: WireError | None = None


class Announcement(msgspec.Struct, frozen=True, kw_only=True):
    """One past fact, as it happens: ``progress``, ``cycle_started``, ``cycle_ended``, ``decision_changed`` …"""

    event: str
    at: datetime
    fields: dict[str, Any]


_T = TypeVar("_T")
_request_decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(AnyRequest)
_answer_decoder = msgspec.json.Decoder(Answer)


class _Versioned(msgspec.Struct):
    v: int = 0


def encode(message: Any) -> bytes:
    """One message as one line."""
    return msgspec.json.encode(message) + b"\n"


def decode_request(line: bytes) -> AnyRequest:
    """One line from a client.

    Raises:
        VersionMismatch: the client speaks another version.
        ProtocolError: it is no request; the field at fault is named.
    """
    try:
        spoken = msgspec.json.decode(line, type=_Versioned).v
        if spoken != PROTOCOL_VERSION:
            text = f"the client speaks protocol version {spoken}, this daemon {PROTOCOL_VERSION}"
            raise VersionMismatch(text, hint="install the same version of sage-sleepd for both")
        return cast(AnyRequest, _request_decoder.decode(line))
    except DECODE_ERRORS as error:
        raise ProtocolError(
            f"not understood: request: {error}",
            hint='send one JSON object a line, such as {"v": 1, "op": "getstatus"}',
        ) from error


def answer(data: Any) -> bytes:
    """A successful answer as one line."""
    return encode(Answer(data=msgspec.Raw(msgspec.json.encode(data))))


def answer_error(error: SleepdError) -> bytes:
    """An error as one line."""
    return encode(Answer(error=WireError(kind=error.kind, message=error.message, hint=error.hint)))


def decode_answer(line: bytes, kind: type[_T]) -> _T:
    """The data of an answer.

    Raises:
        SleepdError: the one the daemon answered with.
        VersionMismatch: the daemon speaks another version.
        ProtocolError: it is no answer.
    """
    try:
        received = _answer_decoder.decode(line)
        if received.v != PROTOCOL_VERSION:
            raise VersionMismatch(
                f"the daemon speaks protocol version {received.v}, this client {PROTOCOL_VERSION}",
                # By far the most frequent cause: the package was upgraded under a daemon that runs on.
                hint="sudo systemctl restart sage-sleepd (an upgraded daemon runs on as it was until then)",
            )
        if received.error is not None:
            raise from_wire(received.error.kind, received.error.message, received.error.hint)
        return msgspec.json.decode(received.data, type=kind)
    except DECODE_ERRORS as error:
        raise ProtocolError(f"not understood: answer: {error}", hint="is something else on that socket?") from error
