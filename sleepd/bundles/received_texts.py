"""Experiences of other machines, written where this machine's buffer is read: the policy ``merge`` of ``[sync]``.

Rule 1: they become experiences like any: they are screened, and the secret of this state directory decides which are
held out. Nothing that the sender says of screening, split or salience beyond its figure decides anything here.
Rule 2: each bears its origin. Its id begins with ``from:SIGNER:``, its model is ``from:SIGNER``, and no adapter of this
machine is named as the one that it was said under: numbers of cycles are the sender's own.
Rule 3: the files are the operator's. What is removed from them does not come again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from sleepd.buffer.experience import Experience, conversation_of, hash_text
from sleepd.errors import DECODE_ERRORS, BundleInvalid
from sleepd.files import read_document, replace_file
from sleepd.protocol.chat_example import Message, as_openai
from sleepd.protocol.checkpoint.checkpoint_files import RESERVOIR_FILE
from sleepd.text.shell import quoted

from .contents import MEMBERS
from .foreign import ForeignBundle

_MOST_ID_CHARACTERS: Final = 256
_decoder = msgspec.json.Decoder(Experience)


def write_received(bundle: ForeignBundle, kept: Path, directory: Path) -> Path | None:
    """Write the experiences of a bundle as a file of the buffer; None: it has no texts.

    Args:
        bundle: a received one.
        kept: where it is unpacked.
        directory: a part of the buffer.

    Raises:
        BundleInvalid: its texts are no experiences.
        OSError: they cannot be read or written.
    """
    try:
        content = read_document(kept / RESERVOIR_FILE, MEMBERS[RESERVOIR_FILE])
    except FileNotFoundError:
        return None
    try:
        experiences = _decoder.decode_lines(content)
    except DECODE_ERRORS as error:
        hint = f"sleepctl bundle remove {quoted(bundle.id[:12])}"
        raise BundleInvalid(f"{kept / RESERVOIR_FILE}: not understood: {error}", hint=hint) from error
    lines = b"".join(msgspec.json.encode(record) + b"\n" for record in _records(bundle.signer, experiences))
    path = directory / f"from-{_in_a_name(bundle.signer)}-{bundle.id[:12]}.jsonl"
    replace_file(path, lines)
    return path


def _records(signer: str, experiences: list[Experience]) -> Iterator[dict[str, Any]]:
    for one in experiences:
        messages = [*one.messages, Message(role="assistant", text=one.response, calls=one.calls)]
        record: dict[str, Any] = {
            "id": marked(signer, one.id),
            "messages": [as_openai(each) for each in messages],
            "salience": one.salience,
            "supervised": "last",
            "said_under": None,
            "model": f"from:{signer}",
            "conversation_hash": hash_text(conversation_of(one)),
        }
        yield record | ({"tools": msgspec.json.decode(one.tools)} if one.tools else {})


def marked(signer: str, id_: str) -> str:
    """The id here of what the sender calls ``id_``."""
    text = f"from:{signer}:{id_}"
    if len(text) <= _MOST_ID_CHARACTERS:
        return text
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    return f"{text[: _MOST_ID_CHARACTERS - 33]}:{digest}"


def _in_a_name(signer: str) -> str:
    """An allowed signer's name is the operator's, and may hold what no file's name may."""
    return "".join(each if each.isascii() and (each.isalnum() or each in "._@-") else "_" for each in signer)[:64]
