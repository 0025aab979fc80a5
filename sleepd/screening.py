"""The short-lived process that screens experiences: it has the texts and the library for secrets, the daemon neither.

``python -m sleepd.screening FD``. The buffer is the inherited descriptor FD. Standard input is a sequence of frames:
first the wanted keys as an array of 64-bit integers, then pages of keys and signatures of earlier experiences.
Standard output is a sequence of frames, each a list of :class:`Screened`, as they are found; an empty list is the end.
A frame is its length in four bytes, the largest first, and MessagePack. A buffer that is half-written ends early: what
is missing is asked for again.
"""

from __future__ import annotations

import os
import sys
from array import array
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO, Final

import msgspec

from .digest import HalfWritten
from .experience import Experience, experience_key, group_key, parse
from .quarantine import MAX_CHARACTERS, Finding, Neighbours, Screened, find_repeated, is_bare_question, sketch
from .reader import limit_memory, read_records
from .secret_scan import SecretFinder

FRAME: Final = 200
"""Experiences in one frame: a second's work for a small machine."""
NICENESS: Final = 10


def encode_frame(content: Any) -> bytes:
    """One frame."""
    packed = msgspec.msgpack.encode(content)
    return len(packed).to_bytes(4, "big") + packed


def _frames(file: BinaryIO) -> Iterator[bytes]:
    while length := file.read(4):
        yield file.read(int.from_bytes(length, "big"))


class Screener:
    """Screens one experience after the other, each against those before it."""

    def __init__(self, secrets: SecretFinder, earlier: Iterable[tuple[int, bytes]]) -> None:
        self._secrets = secrets
        self._neighbours = Neighbours()
        for key, signature in earlier:
            self._neighbours.add(key, signature)

    def screen(self, experience: Experience) -> Screened:
        """What speaks against training it. Only what nothing speaks against is an original for later ones."""
        key, original, signature = experience_key(experience.id), None, b""
        found = self._find_in_text(experience)
        if not found.reason:
            signature = sketch(experience)
            twin = self._neighbours.find(key, signature)
            if twin is None:
                self._neighbours.add(key, signature)
                found = Finding("bare_question") if is_bare_question(experience.response) else found
            else:
                original, share = twin
                found, signature = Finding("near_duplicate", f"{share:.2f}"), b""
        return Screened(
            key=key,
            group=group_key(experience.prompt, experience.response),
            id=experience.id,
            said_under=experience.said_under,
            reason=found.reason,
            detail=found.detail,
            original=original,
            signature=signature,
        )

    def _find_in_text(self, experience: Experience) -> Finding:
        length = len(experience.prompt) + len(experience.response)
        if length > MAX_CHARACTERS:
            return Finding("too_long", f"{length} characters, {MAX_CHARACTERS} at most are looked at")
        for name, text in (("prompt", experience.prompt), ("reply", experience.response)):
            if kind := self._secrets.find(text):
                return Finding("secret", f"{kind} in the {name}")
        return find_repeated(experience)


def screen_records(records: Iterable[Any], wanted: Iterable[int], screener: Screener) -> Iterator[Screened]:
    """The wanted experiences among decoded records, in order, each id once as ``Digest`` has it."""
    left = set(wanted)
    for record in records:
        experience = parse(record)
        if isinstance(experience, str):
            continue
        key = experience_key(experience.id)
        if key in left:
            left.remove(key)
            yield screener.screen(experience)
        if not left:
            return


def main() -> None:
    """Read standard input, answer on standard output."""
    limit_memory()
    os.nice(NICENESS)
    frames = _frames(sys.stdin.buffer)
    wanted = array("Q")
    wanted.frombytes(msgspec.msgpack.decode(next(frames), type=bytes))
    pages = msgspec.msgpack.Decoder(list[tuple[int, bytes]])
    screener = Screener(SecretFinder(), (pair for frame in frames for pair in pages.decode(frame)))
    found: list[Screened] = []
    with open(int(sys.argv[1]), "rb") as file:
        try:
            for each in screen_records(read_records(file)[1], wanted, screener):
                found.append(each)
                if len(found) == FRAME:
                    _send(found)
                    found = []
        except HalfWritten:
            pass  # what was found until there was read whole
    if found:
        _send(found)
    _send([])


def _send(found: list[Screened]) -> None:
    sys.stdout.buffer.write(encode_frame(found))
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
