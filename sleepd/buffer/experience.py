"""One experience: what a record of the buffer must be to be used, and how it is known. Pure.

The formats are those that agents write already: ``salience`` is a number or an object with ``total``, ``id`` may be
missing, other keys are the agent's own and ignored here.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from sleepd.errors import DECODE_ERRORS
from sleepd.protocol.chat_example import ChatExample, Message
from sleepd.text.bounded_text import folded

from .rating.rating_names import rating_names
from .said_at import said_at

_KEY_IN_HEX: Final = re.compile(r"[0-9a-f]{16}")
_CYCLE_AT_END: Final = re.compile(r"(?:^|[/\\])cycle_([0-9]{1,9})[/\\]?\Z")
LONGEST_PATH: Final = 4096
DEFAULT_SALIENCE: Final = 0.7
"""Of a record that has none."""
_NUMBER: Final = re.compile(r"[-+.0-9eE]{1,8}")


class Experience(ChatExample, frozen=True, kw_only=True):
    """One experience, as it is used."""

    id: str
    salience: float
    """0 to 1."""
    said_under: int | None = None
    """The cycle whose adapter gave the reply, where ``metadata`` has it; see :func:`said_under`."""
    said_at: int | None = None
    """When the engine in service may have given the reply, in Unix time; None: unknown, or another model gave it."""


def id_hash(identifier: str) -> int:
    """An id as an unsigned 64-bit number: itself if it is 16 hexadecimal digits, else its BLAKE2b hash."""
    if _KEY_IN_HEX.fullmatch(identifier):
        return int(identifier, 16)
    return int.from_bytes(hashlib.blake2b(identifier.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


def hash_text(key: int) -> str:
    """A key or a group as 16 hexadecimal digits."""
    return f"{key:016x}"


def content_hash(prompt: str, response: str) -> int:
    """64 bits of the SHA-256 of the normalised text (NFKC, case and white space folded): equal for copies."""
    text = "\0".join(" ".join(folded(part).split()) for part in (prompt, response))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def message_digest(message: Message) -> bytes:
    """64 bits of a message's normalised text, its role and its calls."""
    parts = (message.role, " ".join(folded(message.text).split()), *(call.text for call in message.calls))
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=8).digest()


def said_digest(message: Message) -> bytes:
    """The same of what a message says, however a log writes it: without its thought, with canonical arguments."""
    calls = tuple(msgspec.structs.replace(call, arguments=_canonical(call.arguments), id="") for call in message.calls)
    return message_digest(msgspec.structs.replace(message, text=without_thought(message.text), calls=calls))


def without_thought(text: str) -> str:
    """A reply without the thought that stands before it, as a history often has it."""
    opening, closing = "<think>", "</think>"
    start = text.lstrip()
    return start.partition(closing)[2].lstrip() if start.startswith(opening) and closing in start else text


def _canonical(arguments: str) -> str:
    try:
        return msgspec.json.encode(msgspec.json.decode(arguments), order="sorted").decode()
    except DECODE_ERRORS:
        return arguments


def group_of_digests(digests: Iterable[bytes], tools: str) -> int:
    """64 bits of all messages of a chat example, the reply last, and of the tools that were offered."""
    return int.from_bytes(hashlib.blake2b(b"".join([*digests, tools.encode()]), digest_size=8).digest(), "big")


def group_of(text: ChatExample) -> int:
    """64 bits of all that is trained of a chat example. Of one prompt and one reply it is their ``content_hash``."""
    if not text.context:
        return content_hash(text.prompt, text.response)
    reply = Message(role="assistant", text=text.response, calls=text.calls)
    return group_of_digests(map(message_digest, (*text.context, reply)), text.tools)


def content_hash_of(text: ChatExample) -> int:
    """The group of a chat example; of a masked one that of its text before."""
    return int(text.unmasked, 16) if text.unmasked else group_of(text)


def conversation_of(text: ChatExample) -> int:
    """What is equal for all chat examples that must be on one side of the split."""
    return int(text.conversation, 16) if text.conversation else content_hash_of(text)


def prompt_hash(prompt: str) -> int:
    """64 bits of the BLAKE2b of the normalised prompt: equal for one prompt asked again."""
    text = " ".join(folded(prompt).split())
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def derived_id(prompt: str, response: str) -> str:
    """The id of a record that has none: as agents derive it, the first 16 digits of sha256 of ``prompt|response``."""
    return hashlib.sha256(f"{prompt}|{response}".encode()).hexdigest()[:16]


def parse(record: Any, default_salience: float = DEFAULT_SALIENCE, served_as: str = "") -> Experience | str:
    """The experience in a decoded record of our own short form, or the reason why it is skipped.

    ``served_as``: the model name under which the engine in service answers.
    """
    if not isinstance(record, Mapping):
        return f"expected an object, found {_shown(record)}"
    reply = "completion" if "completion" in record and "response" not in record else "response"
    texts = {}
    for name in ("prompt", reply):
        value = record.get(name)
        if not isinstance(value, str):
            return f"{name}: expected text, found {_shown(value)}"
        if not _is_unicode(value):
            return f"{name}: is not valid Unicode"
        texts[name] = value
    if not texts[reply].strip():
        return f"{reply}: expected text, found nothing but white space"
    salience = default_salience if record.get("salience") is None else salience_of(record["salience"], "salience")
    if isinstance(salience, str):
        return salience
    identifier = record.get("id")
    if identifier is None or identifier == "":
        identifier = derived_id(texts["prompt"], texts[reply])
    elif isinstance(identifier, int) and not isinstance(identifier, bool) and abs(identifier) < 2**63:
        identifier = str(identifier)
    if not isinstance(identifier, str) or len(identifier) > 256 or not _is_unicode(identifier):
        return f"id: expected text of at most 256 characters, found {_shown(identifier)}"
    return Experience(
        id=identifier,
        prompt=texts["prompt"],
        response=texts[reply],
        salience=salience,
        said_under=said_under({"adapter": record.get("said_under")}) or said_under(record.get("metadata")),
        said_at=said_at(record.get("timestamp")) if _is_of_service(record, served_as) else None,
        rated_as=rating_names(_conversation(record.get("conversation"))),
    )


def _is_of_service(record: Mapping[str, Any], served_as: str) -> bool:
    """Whether the engine in service may have said it: no other model is named, and ``said_under`` is not null."""
    return record.get("said_under", "") is not None and record.get("model") in (None, "", served_as)


def _conversation(value: Any) -> str:
    """Its name; empty where there is none that can be used."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63:
        return str(value)
    return value if isinstance(value, str) and len(value) <= 256 and _is_unicode(value) else ""


def said_under(metadata: Any) -> int | None:
    """The cycle whose adapter was in use when the reply was given; None: the record does not have it.

    ``adapter`` is ``cycle_007``, a path that ends in it, or the number; ``sleep_cycle`` is the number. Whatever else
    stands there is the agent's own and has no meaning here: it may be anything.
    """
    if not isinstance(metadata, Mapping):
        return None
    for value in (metadata.get("adapter"), metadata.get("sleep_cycle")):
        if isinstance(value, str) and len(value) <= LONGEST_PATH and (named := _CYCLE_AT_END.search(value)):
            return int(named[1])
        if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 10**9:
            return value
    return None


def salience_of(value: Any, name: str) -> float | str:
    """A salience, 0 to 1, as a number or as the ``total`` of an object; or the reason why it is none."""
    if isinstance(value, Mapping):
        name, value = f"{name}.total", value.get("total")
    if not isinstance(value, int | float) or isinstance(value, bool):
        return f"{name}: expected a number, found {_shown(value)}"
    if not 0 <= value <= 1:  # false for NaN too
        return f"{name}: expected a number from 0 to 1, found {_shown(value)}"
    return float(value)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _shown(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, int) and abs(value) > 10**18:
        return "a very large integer"  # Python refuses to print the largest ones
    if isinstance(value, str) and not _NUMBER.fullmatch(value):
        return f"text of {len(value)} characters"  # nobody screened it, and every reader of the status sees the reason
    return ascii(value) if isinstance(value, str | int | float | bool) else type(value).__name__
