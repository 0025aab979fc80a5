"""``ExperienceLog``: what an agent imports to write its experiences down.

It imports the standard library, msgspec and a few small modules of this package, so that it costs an agent nothing.
"""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from .appended_file import AppendedFile
from .buffer.reading.buffer_paths import MOST_ROTATED
from .config.schema import StateConfig
from .errors import BufferUnwritable, UsageError
from .files import FILE_MODE
from .protocol.experience_record import (
    MAX_LINE_BYTES,
    AssistantMessage,
    ConversationRecord,
    ReplyRecord,
    TextPart,
    UserMessage,
)
from .text.shell import quoted

_STATE_DIRECTORY: Final = StateConfig().directory
_CYCLE: Final = re.compile(r"cycle_[0-9]{1,9}")
_EXPECTED: Final = {
    "role": "system, developer, user, assistant or tool",
    "salience": "a number from 0 to 1, or an object with such a number as total",
    "total": "a number from 0 to 1",
    "said_under": '"cycle_007", a path that ends in it, or the number 7',
}
"""By key, where msgspec's own words do not say enough."""
_SEE: Final = 'config/README.md, "What the agent writes", describes a record; so does config/experience.schema.json'


class ExperienceLog:
    """Appends experiences to an agent's buffer, as JSON lines.

    Several processes and threads may write to one file at once. A record is written whole or not at all; where it is
    not written, ``add`` raises. By default a record is not synced to the disk: a power cut may cost the records of the
    last seconds, as the kernel decides, and ``add`` takes some microseconds.

    The daemon must be able to read the file, which holds what was said to the agent. A new file can be read by its
    owner and its group. So give the directory the group of the service, which its files then get as well:
    ``sudo chgrp sage-sleepd DIRECTORY; sudo chmod g+rxs DIRECTORY``. A file that exists keeps its mode.

    Args:
        path: the same as ``buffer.path``. Its directory must exist; the file is made with the first record.
        state_directory: the same as ``state.directory``. Its link ``current`` says which adapter is in use.
        mode: of a new file.
        max_bytes: a file that would grow beyond this is renamed to ``path.1``, and ``path.1`` to ``path.2``; the daemon
            reads them together. 0: it is never renamed.
        backups: so many renamed files are kept. The oldest is removed with the experiences in it: keep more than the
            daemon learns between two cycles.
        durable: sync each record to the disk before ``add`` returns.

    ``add`` takes either ``messages`` (and ``tools``), or ``prompt`` and ``response``:

    - ``messages``: the conversation in the form of OpenAI, up to and with the reply. The message objects of OpenAI's
      client are taken as they are. ``tools``: the tools that the model was offered, in the form of OpenAI.
    - ``supervised``: ``"last"``: the last reply is learned, and those before it are its context; ``"all"``: all are.
    - ``prompt`` and ``response``: what the user said, and the reply, where there is nothing else.
    - ``salience``: how much it matters, from 0 to 1. None: the daemon takes its default.
    - ``conversation``: names the conversation; ``id``: names the experience; ``metadata``: the agent's own.
    - ``said_under``: the adapter under which the reply was given: its directory, its name or its number; None: the base
      model. Where it is not given, it is the adapter that ``current`` leads to now, or none if that cannot be read. An
      agent that does not load the adapter anew when ``current`` changes must say which one it has loaded.

    Raises:
        UsageError: ``max_bytes`` or ``backups`` makes no sense.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        state_directory: str | os.PathLike[str] = _STATE_DIRECTORY,
        mode: int = FILE_MODE,
        max_bytes: int = 0,
        backups: int = 5,
        durable: bool = False,
    ) -> None:
        if max_bytes < 0 or not 1 <= backups <= MOST_ROTATED:
            raise UsageError(
                f"expected max_bytes of 0 or more and backups from 1 to {MOST_ROTATED}, "
                f"found {max_bytes} and {backups}",
                hint="max_bytes=0 turns the rotation off; the daemon reads no more backups than these",
            )
        self.path = Path(path).absolute()
        self._current = Path(state_directory) / "current"
        self._file = AppendedFile(self.path, mode=mode, max_bytes=max_bytes, backups=backups, is_durable=durable)

    def add(
        self,
        *,
        messages: Sequence[Any] | None = None,
        prompt: str | None = None,
        response: str | None = None,
        salience: float | Mapping[str, Any] | None = None,
        tools: Sequence[Any] | None = None,
        conversation: str | int | None = None,
        id: str | int | None = None,  # noqa: A002 (the name of the key)
        metadata: Mapping[str, Any] | None = None,
        said_under: str | int | os.PathLike[str] | None = "current",
        supervised: Literal["last", "all"] = "last",
    ) -> None:
        """Write one experience down; the class says what the arguments mean.

        Raises:
            UsageError: this is no experience; nothing was written.
            BufferUnwritable: nothing was written, and why.
        """
        told = {"said_under": None} if said_under is None else {}
        if said_under == "current":
            said_under = self._in_use()
        record = {
            **_said(messages, prompt, response, tools, supervised),
            "salience": salience,
            "id": id,
            "conversation": conversation,
            "said_under": os.fspath(said_under) if isinstance(said_under, os.PathLike) else said_under,
            "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
            "metadata": metadata,
        }
        self._append(_line(told | {key: value for key, value in record.items() if value is not None}))

    def _in_use(self) -> str | None:
        """The name of the adapter that ``current`` leads to; None: there is none, or it cannot be read."""
        try:
            name = Path(os.readlink(self._current)).name
        except OSError:
            return None
        return name if _CYCLE.fullmatch(name) else None

    def _append(self, line: bytes) -> None:
        try:
            self._file.append(line)
        except OSError as error:
            raise BufferUnwritable(
                f"{self.path}: the experience was not written: {error.strerror or error}", hint=self._hint(error)
            ) from error

    def _hint(self, error: OSError) -> str:
        match error.errno:
            case errno.ENOSPC | errno.EDQUOT:
                return f"free some space: df -h {quoted(self.path.parent)}"
            case errno.EACCES | errno.EPERM | errno.EROFS:
                return "let this user write the file; a rotation needs a directory that it may write, with hard links"
            case errno.ENOENT:
                return f"make its directory: mkdir -p {quoted(self.path.parent)}"
            case errno.ELOOP:
                return "a link is not rotated: give the path of the file itself"
        return "give the path of a file of JSON lines on a disk that can be written"


def _said(
    messages: Sequence[Any] | None,
    prompt: str | None,
    response: str | None,
    tools: Sequence[Any] | None,
    supervised: str,
) -> dict[str, Any]:
    """What was said, in one of the two forms.

    Raises:
        UsageError: in neither or in both.
    """
    if messages is not None and prompt is None and response is None:
        return {"messages": messages, "tools": tools, "supervised": supervised}
    if messages is not None or prompt is None or response is None or tools is not None:
        raise UsageError(
            "expected either messages (and tools), or prompt and response",
            hint="log.add(messages=[...], tools=[...]), or log.add(prompt=..., response=...)",
        )
    if isinstance(response, str) and not response.strip():
        raise UsageError("response: expected text, found nothing but white space", hint="leave an empty reply out")
    return {"prompt": prompt, "response": response}


def _line(record: dict[str, Any]) -> bytes:
    """The record as JSON, as the daemon reads it.

    Raises:
        UsageError: it is none that the daemon reads.
    """
    try:
        line = json.dumps(record, ensure_ascii=False, allow_nan=False, default=_plain).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(
            f"expected what JSON can hold: {error}", hint="texts, finite numbers, lists and dictionaries; no NaN"
        ) from None
    if len(line) > MAX_LINE_BYTES:
        raise UsageError(
            f"expected a record of at most {MAX_LINE_BYTES} bytes, found {len(line)}",
            hint="leave out what a tool returned, or the oldest messages",
        )
    try:
        if "messages" in record:
            _check_last(msgspec.json.decode(line, type=ConversationRecord))
        else:
            msgspec.json.decode(line, type=ReplyRecord)
    except (msgspec.ValidationError, RecursionError) as error:
        raise UsageError(f"this is no experience: {_reason(str(error))}", hint=_SEE) from None
    return line


def _reason(words: str) -> str:
    """The words of msgspec with their place first, and with what may stand there."""
    said, _, path = words.partition(" - at `$.")
    place = path.removesuffix("`")
    expected = _EXPECTED.get(place.rpartition(".")[2])
    return f"{place}: expected {expected} ({said})" if expected else words


def _check_last(record: ConversationRecord) -> None:
    *before, last = record.messages
    place = f"messages[{len(before)}]"
    if not isinstance(last, AssistantMessage):
        role = msgspec.to_builtins(last)["role"]
        raise UsageError(
            f"{place}: expected the reply of the assistant as the last message, found one of the role {role!r}",
            hint="add the conversation once the model has replied, up to this reply",
        )
    parts = [TextPart(text=last.content)] if isinstance(last.content, str) else last.content or ()
    if not last.tool_calls and not any(isinstance(part, TextPart) and part.text.strip() for part in parts):
        raise UsageError(
            f"{place}: expected a reply with text or calls of tools, found neither", hint="leave an empty reply out"
        )
    if not any(isinstance(one, UserMessage) for one in before):
        raise UsageError(
            "messages: expected a message of the user before the reply, found none",
            hint="add the conversation from the message of the user on that the reply answers",
        )


def _plain(value: Any) -> Any:
    """What stands in JSON for an object: of a pydantic model, such as a message of OpenAI's client, what it holds.

    Raises:
        TypeError: nothing does.
    """
    if isinstance(value, Mapping):
        return dict(value)
    if callable(dump := getattr(value, "model_dump", None)):
        return dump(mode="json", exclude_none=True)
    raise TypeError(f"found {type(value).__name__}")
