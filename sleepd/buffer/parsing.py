"""A buffer's bytes as decoded records: the container, and each record with its place. Pure.

The containers are distinguished by content: ``[`` begins an array; ``{`` an object, with ``experiences`` or as one
record of a known format, or the first of JSON lines; ``<|im_start|>`` ChatML text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec

from sleepd.errors import DECODE_ERRORS
from sleepd.protocol.experience_record import MAX_LINE_BYTES

from .formats.recognition import format_of
from .formats.training_files.chatml import START, conversations_of_file
from .formats.unread import unread_file, unread_program
from .learnables import HalfWritten, NoJson

NULS_LEFT_BY: Final = (
    "left by a crash or by a log rotation that truncates the file under its writer (copytruncate): rotate by rename, "
    "or let the agent append (mode 'a')"
)
_ONE_A_LINE: Final = ": more than one value stands in it; write an array, or one object a line (jq -c . FILE)"
_LINES_EXAMINED: Final = 20
_NAME: Final = 60
"""Characters of a key's name in a reason."""
_BOM: Final = b"\xef\xbb\xbf"
_WIDE_BOMS: Final = (b"\xff\xfe", b"\xfe\xff")
_WIDEST_BOMS: Final = (b"\xff\xfe\0\0", b"\0\0\xfe\xff")
_FIRST_KEY: Final = re.compile(rb'\{\s*"(\w+)"\s*:')
_EXPERIENCE_KEYS: Final = frozenset({b"id", b"prompt", b"response", b"salience", b"session", b"phase", b"timestamp"})
_OWN_TEXTS: Final = frozenset({"prompt", "response", "completion"})
_PLAIN_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,39}")
_LISTED: Final = re.compile(rb'"experiences"\s*:\s*\[')
_STRUCTURE: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[\]{},]', re.DOTALL)
"""Strings as a whole, so that what is in them is not taken for structure. One without an end is taken whole too, and
nothing is tried again: otherwise each quote in it would be a beginning of its own, and the work quadratic."""
TORN: Final = "expected a line end, found the file's"
_LONG_HEAD_BYTES: Final = 2**19


def form_of(head: bytes) -> str:
    """``array``, ``object``, ``lines``, ``chatml`` or ``empty``, by the beginning of a file.

    Raises:
        HalfWritten: it begins like none of them.
    """
    text = head.removeprefix(_BOM).lstrip()
    if not text:
        return "empty"
    if foreign := _foreign(head):
        raise HalfWritten(foreign)
    if text.startswith(START.encode()):
        return "chatml"
    if text[:1] == b"[" and not _is_torn_first(text, 2):
        return "array"
    if text[:1] != b"{":
        if _is_torn_first(text, 1):
            return "lines"
        raise HalfWritten(f"begins with {text[:12]!r}, expected '[' or '{{'")
    return "lines" if _is_lines(text) else "object"


def _foreign(data: bytes) -> str:
    """What bytes that are no JSON are and what to do, where they are something known; empty: they are not."""
    head = data[:64]
    if program := unread_file(head):
        return program
    if found := _wide_encoding(head):
        return f"is {found}, expected UTF-8: let the agent write UTF-8, or convert it once (iconv -f {found} -t UTF-8)"
    if not head.strip(b"\0"):
        return f"begins with NUL bytes, {NULS_LEFT_BY}"
    return ""


def _wide_encoding(head: bytes) -> str:
    """UTF-16 or UTF-32, by its mark or by where the zero bytes of its ASCII letters stand; empty: neither."""
    zeros = [2 * head[place::4].count(0) > len(head[place::4]) for place in range(4)]
    if head.startswith(_WIDEST_BOMS) or sum(zeros) == 3:
        return "UTF-32"
    return "UTF-16" if head.startswith(_WIDE_BOMS) or (sum(zeros) == 2 and zeros[0] == zeros[2]) else ""


def _is_torn_first(text: bytes, least: int) -> bool:
    """Whether a line that is no JSON stands before at least so many that are objects.

    An array with one experience on each line has one such line, the last: a comma follows the others.
    """
    first, *more = text.split(b"\n", _LINES_EXAMINED)
    return isinstance(_decoded(first), NoJson) and sum(map(_is_object, more)) >= least


def _is_object(line: bytes) -> bool:
    return line.startswith(b"{") and isinstance(_decoded(line), dict)


def _is_lines(text: bytes) -> bool:
    """Whether text that begins with ``{`` is JSON lines.

    Its first line is an experience then, or is broken. An object with one experience on each line has such lines too,
    but its first line breaks off where the object goes on, and its first key is none of an experience's.
    """
    first, *more = text.split(b"\n", _LINES_EXAMINED)
    value = _decoded(first)
    if isinstance(value, dict):
        return bool(value) and "experiences" not in value
    key = _FIRST_KEY.match(text)
    is_experience = key is not None and key[1] in _EXPERIENCE_KEYS
    if not is_experience and _LISTED.search(text):
        return False
    # A line too long to be seen whole, or a broken one that is followed by others; indented ones belong to an object.
    is_long = b"\n" not in text and len(text) > _LONG_HEAD_BYTES
    return is_long or any(map(_is_object, more))


def numbered(lines: Iterable[bytes], first: int) -> Iterator[tuple[str, Any]]:
    """The decoded records of complete lines, each with its position."""
    for number, line in enumerate(lines, first):
        nuls = len(line) - len(line.lstrip(b"\0"))
        if nuls and line[nuls:].strip():
            yield f"line {number}", NoJson(nuls_before(nuls))
            record = decoded_line(line[nuls:])
        else:
            record = decoded_line(line)
        yield from ((f"line {number}", one) for one in _on_a_line(record))


def _on_a_line(record: Any) -> list[Any]:
    """The records of a line. An array, such as that of a form before, is several; one of messages is a conversation."""
    if not isinstance(record, list):
        return [] if record is None else [record]
    is_talk = bool(record) and all(isinstance(one, dict) and "role" in one for one in record)
    return [{"messages": record}] if is_talk else record


def nuls_before(count: int) -> str:
    """Why so many bytes before a line are left out."""
    return f"{count} NUL bytes before it, {NULS_LEFT_BY}; the line itself is read"


def records(data: bytes, form: str) -> Iterator[tuple[str, Any]]:
    """The decoded records of an array, an object or ChatML text, each with its position.

    Raises:
        HalfWritten: the content does not parse as a whole.
    """
    if form == "empty":
        return
    data = data.removeprefix(_BOM)
    if form == "chatml":
        yield from ((f"line {line}", record) for line, record in conversations_of_file(data))
        return
    raw: Any
    try:
        if form == "array":
            raw = msgspec.json.decode(data, type=list[msgspec.Raw])
        else:
            # The other keys are the agent's and may be anything: they are not built.
            raw = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
            if "experiences" in raw:
                raw = {"experiences": msgspec.json.decode(raw["experiences"], type=list[msgspec.Raw])}
    except DECODE_ERRORS as error:
        if "truncated" in str(error):
            # The usual case of half a file, found out without the slow parser and its memory.
            raise HalfWritten(f"not whole: {error}"[:200]) from None
        raw = _one_by_one(data, form) if isinstance(error, RecursionError) else _tolerantly(data, form)
    listed = raw.get("experiences") if isinstance(raw, dict) else raw
    if not isinstance(listed, list):
        listed = [_record_of_another(data, raw)]
    for number, record in enumerate(listed, 1):
        if isinstance(record, msgspec.Raw):
            # Decoded one by one, so that one bad record does not lose the others.
            yield f"record {number}", _decoded(bytes(record))
        else:
            yield f"record {number}", record


def _record_of_another(data: bytes, raw: Any) -> dict[str, Any]:
    """The whole content as one record of another program's.

    Raises:
        HalfWritten: it is none.
    """
    whole = _decoded(data) if isinstance(raw, dict) and "experiences" not in raw else None
    if isinstance(whole, dict) and (format_of(whole) or unread_program(whole) or not _OWN_TEXTS.isdisjoint(whole)):
        return whole
    names = ", ".join(name[:_NAME] for name in list(raw)[:5]) if isinstance(raw, dict) else type(raw).__name__
    known = whole if isinstance(whole, dict) else {}
    lists = [name for name, value in known.items() if isinstance(value, list) and _PLAIN_NAME.fullmatch(name)]
    step = f": write the list alone (jq .{lists[0]} FILE)" if lists else ""
    raise HalfWritten(f"expected a list of experiences, found an object with {names!r}{step}")


def _one_by_one(data: bytes, form: str) -> list[msgspec.Raw]:
    """The records of a list in which one is nested too deeply for any parser, cut apart without parsing them.

    Raises:
        HalfWritten: the list does not end.
    """
    if form == "object":
        key = _LISTED.search(data)
        if key is None:
            raise HalfWritten("nested too deeply")
        data = data[key.end() - 1 :]
    found = []
    depth = start = 0
    for token in _STRUCTURE.finditer(data):
        mark = token[0]
        if mark in b"[{":
            depth += 1
            start = token.end() if depth == 1 else start
        elif depth == 1 and mark in b",]":
            if data[start : token.start()].strip():
                found.append(msgspec.Raw(data[start : token.start()]))
            start = token.end()
        if mark in b"]}":
            depth -= 1
            if depth == 0:
                return found
    raise HalfWritten("not whole: the list of experiences does not end")


def _tolerantly(data: bytes, form: str) -> Any:
    """What the strict parser refuses and agents nevertheless write: NaN, stray bytes, lone surrogates.

    The records concerned are skipped one by one, instead of the whole file.
    """
    try:
        return json.loads(data.decode("utf-8", "surrogateescape"))
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":
            return _one_after_another(data.decode("utf-8", "surrogateescape"))
        raise HalfWritten(f"not whole: {error}"[:200]) from None
    except (ValueError, RecursionError):  # one more is too deep, or has a number of more than 4,300 digits
        return _one_by_one(data, form)


def _one_after_another(text: str) -> list[Any]:
    """The records of several values, as a file has them that went on in another form, or that has no line ends.

    Raises:
        HalfWritten: not all of them are whole.
    """
    decoder, found, place = json.JSONDecoder(), list[Any](), 0
    while place < len(text):
        try:
            value, place = decoder.raw_decode(text, place)
        except (ValueError, RecursionError) as error:
            raise HalfWritten(f"not whole: {error}"[:200] + _ONE_A_LINE) from None
        is_list = isinstance(value, dict) and isinstance(value.get("experiences"), list)
        value = value["experiences"] if is_list else value
        found += value if isinstance(value, list) else [value]
        while place < len(text) and text[place].isspace():
            place += 1
    return found


def _decoded(text: bytes) -> Any:
    """One decoded JSON value; a :class:`NoJson` for one that is none, which ``parse`` skips."""
    try:
        return msgspec.json.decode(text)
    except DECODE_ERRORS:
        try:
            return json.loads(text.decode("utf-8", "surrogateescape"))
        except (ValueError, RecursionError) as error:
            return NoJson(f"not JSON: {error}"[:200])
    except MemoryError:
        return NoJson("its parts take more memory than there is")


def decoded_line(line: bytes) -> Any:
    """A decoded line; None for a blank one; a :class:`NoJson` for one that is no JSON."""
    if len(line) > MAX_LINE_BYTES:
        return NoJson(f"longer than {MAX_LINE_BYTES} bytes")
    stripped = line.removeprefix(_BOM).strip()
    if not stripped:
        return None
    value = _decoded(stripped)
    return NoJson(_foreign(line) or value) if isinstance(value, NoJson) else value
