"""Valid documents made wrong: at the level of JSON, of TOML, and of bytes.

Everything is drawn from the ``random.Random`` that is given, so that an input comes again from its seed.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random
from typing import Any


class Token(str):
    """JSON text that stands as it is."""


class Pairs(list[tuple[str, Any]]):
    """The members of a JSON object, in which a key may come twice."""


def _nested(opening: str, closing: str, depth: int, inside: str = "") -> Token:
    return Token(opening * depth + inside + closing * depth)


TOKENS = (
    *map(Token, ("null", "true", "false", "0", "-1", "1", "-0.0", "0.5", "2.5", "1e999", "-1e999", "1e-400")),
    *map(Token, ("NaN", "-NaN", "Infinity", "-Infinity", "nul", "01", "+1", "0x10", "1_000", "'x'", "")),
    *(Token(str(2**power + more)) for power in (31, 32, 53, 63, 64) for more in (-1, 0, 1)),
    *map(Token, ("9" * 400, "9" * 5000, "-" + "9" * 5000, "0." + "3" * 5000, "1" + "0" * 308 + ".5")),
    *map(Token, ('""', '" "', '"\\ud800"', '"\\udc00\\ud800"', '"\\u0000"', '"\\x"', '"\ud800"', '"\ufeff"', '"\\')),
    *map(Token, ('"0001-01-01T00:00:00"', '"9999-12-31T23:59:59"', '"9999-12-31T23:59:59-14:00"', '"2026-13-01"')),
    *map(Token, ('"0001-01-01T00:00:00+14:00"', '"2026-01-10T06:00:00Z"', '"2026-01-10"', '"now"', '"nan"', '"1"')),
    *map(Token, ('"../../etc/passwd"', '"/dev/zero"', '"a/b"', '"."', '"\\n"', '"' + "x" * 300 + '"')),
    *map(Token, ("[]", "{}", "[[]]", '{"":{}}', '{"a":1,"a":2}', "[1,2", '{"a"', '["\\ud800"]')),
    _nested("[", "]", 50),
    _nested("[", "]", 2000),
    _nested("[", "]", 30000),
    _nested('{"a":', "}", 2000, "1"),
    _nested("[", "", 2000),
)
"""Values that programs stumble over."""

BITS = (
    *(b"\xef\xbb\xbf", b"\xff\xfe", b"\0", b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x80\xa8"),
    *(b"\n", b"\r\n", b"\r", b"\x0b", b"\x1a", b"\x1e", b"\x7f", b" " * 40, b"\t"),
    *(b"[", b"]", b"{", b"}", b'"', b"'", b":", b",", b"\\", b"\\u", b"\\ud800", b"=", b"#", b".", b"-", b"e9"),
    *(b"NaN", b"Infinity", b"null", b"true", b'"id":', b'"experiences":[', b'{"v":2}', b"9" * 30),
)
"""Bytes that have a meaning somewhere."""


def parse(text: bytes) -> Any:
    """A JSON document as a tree in which objects are lists of pairs."""
    return json.loads(text, object_pairs_hook=Pairs)


def write(tree: Any) -> str:
    """The opposite of ``parse``."""
    if isinstance(tree, Token):
        return str(tree)
    if isinstance(tree, Pairs):
        members = (f"{key if isinstance(key, Token) else json.dumps(key)}:{write(value)}" for key, value in tree)
        return "{" + ",".join(members) + "}"
    if isinstance(tree, list):
        return "[" + ",".join(map(write, tree)) + "]"
    return json.dumps(tree)


def _places(tree: Any) -> list[tuple[list[Any], int]]:
    """Every value below the root, as its container and its place there."""
    found = []
    waiting = [tree]
    while waiting:
        container = waiting.pop()
        for place, item in enumerate(container):
            value = item[1] if isinstance(container, Pairs) else item
            found.append((container, place))
            if isinstance(value, list):
                waiting.append(value)
    return found


def mutated_tree(random: Random, document: bytes) -> bytes:
    """A JSON document with one to three of its values or members changed."""
    root = [parse(document)]
    for _ in range(random.randint(1, 3)):
        container, place = random.choice(_places(root))
        item = container[place]
        token = random.choice(TOKENS)
        what = random.random()
        if not isinstance(container, Pairs):
            if what < 0.7 or container is root:
                container[place] = token
            elif what < 0.85:
                container.insert(place, item)
            else:
                del container[place]
        elif what < 0.6:
            container[place] = (item[0], token)
        elif what < 0.7:
            del container[place]
        elif what < 0.8:
            container.insert(random.randrange(len(container) + 1), (item[0], token))
        elif what < 0.9:
            other = random.choice(container)
            container[place] = (other[0], item[1])
        else:
            container[place] = (
                random.choice([Token('"\\ud800"'), Token('"\\u0000"'), item[0] + "s", "", "ä"]),
                item[1],
            )
    return write(root[0]).encode("utf-8", "surrogatepass")


def mutated_bytes(random: Random, document: bytes) -> bytes:
    """A document with one to four places changed, whatever they mean."""
    data = bytearray(document)
    for _ in range(random.randint(1, 4)):
        start = random.randrange(len(data) + 1)
        end = min(len(data), start + random.choice([1, 1, 2, 8, 64, 1000]))
        what = random.randrange(7)
        if what == 0 and data:
            data[min(start, len(data) - 1)] ^= 1 << random.randrange(8)
        elif what == 1:
            data[start:end] = b""
        elif what == 2:
            data[start:start] = data[start:end]
        elif what == 3:
            data[start:] = b""
        elif what == 4:
            data[start:end] = random.randbytes(end - start)
        else:
            data[start:start] = random.choice(BITS)
    return bytes(data)


def mutated_json(random: Random, document: bytes) -> bytes:
    """A JSON document changed in either way, or in both; one in twenty not at all."""
    what = random.random()
    if what < 0.05:
        return document
    try:
        changed = mutated_tree(random, document) if what < 0.65 else document
    except (ValueError, RecursionError):  # it was changed before, and is no JSON now
        return mutated_bytes(random, document)
    return changed if what < 0.55 else mutated_bytes(random, changed)


def mutated_lines(random: Random, document: bytes) -> bytes:
    """JSON lines, with one or two lines changed, moved or doubled; or changed as bytes."""
    if random.random() < 0.3:
        return mutated_bytes(random, document)
    lines = document.split(b"\n")
    for _ in range(random.randint(1, 2)):
        place = random.randrange(len(lines))
        what = random.random()
        if what < 0.6 and lines[place].startswith(b"{"):
            lines[place] = mutated_json(random, lines[place])
        elif what < 0.8:
            lines.insert(random.randrange(len(lines) + 1), lines[place])
        else:
            del lines[place]
            lines = lines or [b""]
    return b"\n".join(lines)


_TOML_VALUES = (
    *("1", "0", "-1", "7", "1.5", "nan", "inf", "-inf", "1e400", "true", '"x"', "'/x'", '"/a"', '"gentle"', '""'),
    *("[]", "{}", "[[1]]", "{a = 1}", "1979-05-27", "1979-02-30", "07:32:00", "1979-05-27T00:32:00-07:00"),
    *(
        "9" * 20,
        "9" * 5000,
        "0x" + "f" * 5000,
        "0b1",
        "0o17",
        "1_000",
        "1__0",
        '"\\ud800"',
        '"\\U0010ffff"',
        '"\\u0000"',
    ),
    *(
        '"' + "x" * 300 + '"',
        "'''\na\n'''",
        '"""',
        "[" * 2000,
        "{a=" * 500,
        '"' + "/a" * 80 + '"',
        "'~/b'",
        '"0660"',
        "'rw'",
    ),
)
_TOML_LINES = (
    "[triggers]",
    "[x]",
    "[[triggers]]",
    "[triggers.x]",
    "a.b.c = 1",
    "triggers.min_experiences = 3",
    "x",
    "= 1",
    "[",
)


def mutated_toml(random: Random, document: bytes) -> bytes:
    """A TOML document with one to three lines changed; or changed as bytes."""
    if random.random() < 0.3:
        return mutated_bytes(random, document)
    lines = document.decode().split("\n")
    for _ in range(random.randint(1, 3)):
        place = random.randrange(len(lines))
        key, is_assigned, _value = lines[place].partition(" = ")
        what = random.random()
        if is_assigned and what < 0.6:
            lines[place] = f"{key} = {random.choice(_TOML_VALUES)}"
        elif is_assigned and what < 0.7:
            lines[place] = f"{key[:-1]} = {_value}"
        elif what < 0.8:
            lines.insert(random.randrange(len(lines) + 1), random.choice([*_TOML_LINES, lines[place]]))
        else:
            del lines[place]
            lines = lines or [""]
    return "\n".join(lines).encode()


def toml_value(random: Random) -> str:
    """A value as it may stand in a document or a variable."""
    return random.choice(_TOML_VALUES)


Mutation = Callable[[Random, bytes], bytes]
