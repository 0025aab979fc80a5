"""What goes over the line between the machine that sleeps (home) and the machine that trains for it (the host).

One JSON line a message. Behind ``Wanted`` home sends the contents of the wanted files, behind ``Results`` the host
those of its files: after the line ``Contents`` one after the other, in the order of the list, each as long as the list
says. No path, no mode and no archive travels. A file has one of the names below or is refused, and its sha256 is
compared before it gets its name.

    home                                 host
    Offer: who I am, which files    ->
                                    <-   JobRefused, or Wanted: which of them are not here yet
    the wanted files                ->
                                    <-   Progress, Notice …
    Stop, if it is asked to         ->
                                    <-   Results, their files, then Report or Failure
    ResultsReceived                        ->   the host removes what it has of the job

Both sides send ``Beat``, so that each knows a line that is dead. In place of ``Offer`` home may send ``Examine``.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Annotated, Any, Final, TypeVar, cast

import msgspec
from msgspec import Meta

from sleepd.errors import DECODE_ERRORS, ProtocolError

from .job import RESUME_POINT, Failure, Notice, Progress, Report

JOB: Final = "work/job.json"
EXAMPLES: Final = "work/experiences.jsonl"
_OF_AN_ADAPTER: Final = ("adapter_model.safetensors", "adapter_config.json", "fingerprint.json", "replies.json")
ADAPTERS: Final = ("parent", "predecessor", "foreign")
"""Directories of adapters that a job names, as fields of ``Job`` and as folders on the host."""
SENT: Final = (JOB, EXAMPLES, RESUME_POINT, *(f"{each}/{name}" for each in ADAPTERS for name in _OF_AN_ADAPTER))
"""Every name that home may send."""
RETURNED: Final = (*_OF_AN_ADAPTER, RESUME_POINT)
"""Every name that the host may send."""
MOST_BYTES: Final = 2**34
"""Of all files of one list together."""
SAME_VERSION: Final = "install the same version of sage-sleepd on both machines"


class FileEntry(msgspec.Struct, frozen=True):
    """One file, known by its content."""

    name: str
    bytes: Annotated[int, Meta(ge=0, le=MOST_BYTES)]
    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]


class MachineIdentity(msgspec.Struct, frozen=True, kw_only=True):
    """What must be equal on both machines; also what ``sleepd.worker.programs.identify`` prints."""

    version: str
    code: str
    """Fingerprint of the files of sage-sleepd that a worker uses."""
    base: str = ""
    """Fingerprint of the base; empty: there is none that can be used."""
    base_problem: str = ""
    base_hint: str = ""


class Offer(msgspec.Struct, frozen=True, kw_only=True, tag="offer"):
    """A job for the host."""

    identity: MachineIdentity
    files: list[FileEntry]
    silence_seconds: Annotated[float, Meta(gt=0)]
    stop_seconds: Annotated[float, Meta(gt=0)]


class Examine(msgspec.Struct, frozen=True, kw_only=True, tag="examine"):
    """A question in place of an offer: what is there?"""


class Stop(msgspec.Struct, frozen=True, kw_only=True, tag="stop"):
    """The worker is to stop, as SIGTERM asks it."""


class ResultsReceived(msgspec.Struct, frozen=True, kw_only=True, tag="received"):
    """The results are on home's disk."""


class Beat(msgspec.Struct, frozen=True, kw_only=True, tag="beat"):
    """A sign of life."""


class Contents(msgspec.Struct, frozen=True, kw_only=True, tag="contents"):
    """What follows are the contents of the files: signs of life may have gone before, and none comes in between."""


class Examined(msgspec.Struct, frozen=True, kw_only=True, tag="examined"):
    """What is there."""

    identity: MachineIdentity
    device: str = ""
    device_problem: str = ""
    device_hint: str = ""
    free_bytes: Annotated[int, Meta(ge=0)] = 0
    is_confined: bool = False
    """Whether the key may start this one command alone."""


class Wanted(msgspec.Struct, frozen=True, kw_only=True, tag="wanted"):
    """The offered files that are not here yet."""

    names: list[str]


class Results(msgspec.Struct, frozen=True, kw_only=True, tag="results"):
    """What the worker has left; the outcome is the next message."""

    files: list[FileEntry]


class JobRefused(msgspec.Struct, frozen=True, kw_only=True, tag="refused"):
    """The host does not take the job."""

    message: str
    hint: str
    is_passing: bool = False
    """Whether it may take it in a moment."""


HomeMessage = Offer | Examine | Stop | ResultsReceived | Beat | Contents
HostMessage = Examined | Wanted | Results | JobRefused | Beat | Contents | Progress | Notice | Report | Failure

_Message = TypeVar("_Message")
_home_decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(HomeMessage)
_host_decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(HostMessage)


def decode_home(text: bytes) -> HomeMessage:
    """One line that home sent.

    Raises:
        ProtocolError: it is no message.
    """
    return cast(HomeMessage, _decode(_home_decoder, text))


def decode_host(text: bytes) -> HostMessage:
    """One line that the host sent.

    Raises:
        ProtocolError: it is no message.
    """
    return cast(HostMessage, _decode(_host_decoder, text))


def _decode(decoder: msgspec.json.Decoder[Any], text: bytes) -> Any:
    try:
        return decoder.decode(text)
    except DECODE_ERRORS as error:
        raise ProtocolError(f"not understood: what came over the line: {error}", hint=SAME_VERSION) from error


def refuse_list(files: Sequence[FileEntry], allowed: Sequence[str]) -> None:
    """Refuse a list of files with a name that is not expected, a name twice, or too many bytes.

    Raises:
        ProtocolError: with the name or the figure.
    """
    names = [each.name for each in files]
    unknown = [name for name in names if name not in allowed]
    if unknown:
        raise ProtocolError(f"expected one of the known files, {unknown[0]!r:.80} was named", hint=SAME_VERSION)
    if len(set(names)) < len(names):
        raise ProtocolError("expected each file once, one was named twice", hint=SAME_VERSION)
    total = sum(each.bytes for each in files)
    if total > MOST_BYTES:
        raise ProtocolError(f"expected at most {MOST_BYTES} bytes, {total} were announced", hint=SAME_VERSION)


def job_id(files: Sequence[FileEntry]) -> str:
    """What a job is known by: its files, without the resume point, which changes while it runs."""
    kept = sorted((each for each in files if each.name != RESUME_POINT), key=lambda each: each.name)
    return sha256(msgspec.json.encode(kept)).hexdigest()[:32]
