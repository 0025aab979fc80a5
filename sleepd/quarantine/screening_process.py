"""The short-lived process that screens experiences: it has the texts and the library for secrets, the daemon neither.

Its command is ``python -m sleepd.quarantine.screening_process SECONDS FD …``. The buffer is the inherited descriptors.
Standard input is a sequence of frames: a :class:`ReadRequest` with the wanted keys, :class:`Terms`, then pages of keys
and signatures of earlier experiences: all of them, or, where the terms say so, one page for each question. Standard
output is a sequence of frames, each a :class:`Frame`; an empty one is the end. While it reads, there is one every ten
seconds as a heartbeat. A frame is its length in four bytes, the largest first, and MessagePack. A buffer that is
half-written ends early: what is missing is asked for again.

The kernel ends the process where one experience takes more than SECONDS of processor time, whatever code it is in. The
last frame then names it, and the daemon starts another process for the rest.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from hashlib import blake2b
from io import BytesIO
from typing import Any, BinaryIO, Final, Generic, TypeVar

import msgspec

from sleepd.buffer.experience import Experience, group_of, id_hash
from sleepd.buffer.learnables import HalfWritten, Learnable
from sleepd.buffer.reading.line_cutter import HEAD_BYTES, FirstBytes
from sleepd.buffer.reading.reader_process import ReadRequest, bound_process, read_learnables
from sleepd.buffer.reading.screening_starts import Start
from sleepd.errors import DECODE_ERRORS
from sleepd.protocol.chat_example import Message
from sleepd.text.personal_data import find_personal
from sleepd.text.secret_scan import SecretFinder

from .near_duplicates import (
    MAX_CHARACTERS,
    Ask,
    Neighbours,
    Screened,
    TextFinding,
    find_repeated,
    is_bare_question,
    sketch,
)

NICENESS: Final = 10
BEAT_SECONDS: Final = 10.0
KEPT_SEARCHES: Final = 4096
_NAMES: Final = {"system": "system message", "user": "prompt", "assistant": "earlier reply", "tool": "tool's result"}


class Frame(msgspec.Struct, frozen=True, omit_defaults=True):
    """One piece of the answer."""

    begun: Screened | None = None
    """What is screened from now on, with nothing found yet."""
    found: Screened | None = None
    """What came of it."""
    asks: list[bytes] = []
    """Bands; the answer is a page with the earlier experiences that share one of them."""
    reads: bool = False
    """A piece of the buffer was read, or of what is known of it; a large one may lie on a slow disk."""


class Terms(msgspec.Struct, frozen=True):
    """How it is worked."""

    starts: list[Start]
    """Where each file is read from on."""
    asks: bool
    """Earlier experiences are asked for, a few at a time, for there are few new ones; else all are given."""


_Piece = TypeVar("_Piece")
_Found = TypeVar("_Found")
Guard = Callable[[Screened], AbstractContextManager[object]]
"""Given an experience with nothing found yet; holds while it is screened."""


def encode_frame(content: Any) -> bytes:
    """One frame."""
    packed = msgspec.msgpack.encode(content)
    return len(packed).to_bytes(4, "big") + packed


def _frames(file: BinaryIO) -> Iterator[bytes]:
    while length := file.read(4):
        yield file.read(int.from_bytes(length, "big"))


class _Searched(Generic[_Found]):
    """Searches a text once: it stands in the context of many replies.

    Args:
        search: what searches it.
    """

    def __init__(self, search: Callable[[str], _Found]) -> None:
        self._search = search
        self._found: dict[bytes, _Found] = {}
        """By the hash of the text."""

    def find(self, text: str) -> _Found:
        """What was found in it."""
        key = blake2b(text.encode(), digest_size=16).digest()
        if key not in self._found:
            if len(self._found) >= KEPT_SEARCHES:
                self._found.clear()
            self._found[key] = self._search(text)
        return self._found[key]


class Screener:
    """Screens one experience after the other, each against those before it.

    Args:
        secrets: what finds secrets.
        earlier: key and signature of all that was screened before.
        ask: tells these instead; see ``Neighbours``.
    """

    def __init__(
        self, secrets: SecretFinder, earlier: Iterable[tuple[int, bytes]] = (), *, ask: Ask | None = None
    ) -> None:
        self._secrets = _Searched(secrets.find)
        self._personal = _Searched(find_personal)
        self._neighbours = Neighbours(ask)
        for key, signature in earlier:
            self._neighbours.add(key, signature)

    def screen(self, experience: Experience, guard: Guard = nullcontext) -> Screened:
        """What speaks against training it. Only what nothing speaks against is an original for later ones."""
        begun = Screened(
            key=id_hash(experience.id),
            group=group_of(experience),
            id=experience.id,
            said_under=experience.said_under,
            said_at=experience.said_at,
            reason="",
            detail="",
        )
        try:
            with guard(begun):
                return self._screen(begun, experience)
        except (MemoryError, RecursionError) as error:
            return unscreenable(begun, f"{type(error).__name__} while it was screened")

    def _screen(self, begun: Screened, experience: Experience) -> Screened:
        key, original, signature = begun.key, None, b""
        length = experience.characters
        if length > MAX_CHARACTERS:
            too_long = f"{length} characters, at most {MAX_CHARACTERS} are screened"
            return msgspec.structs.replace(begun, reason="too_long", detail=too_long)
        texts = [(name, text) for name, text in _all_texts(experience) if text]
        found = self._find_in_text(experience, texts)
        if not found.reason:
            signature = sketch(experience)
            twin = self._neighbours.find(key, signature)
            if twin is None:
                self._neighbours.add(key, signature)
                found = TextFinding("bare_question") if is_bare_question(experience.whole_response) else found
            else:
                original, share = twin
                found, signature = TextFinding("near_duplicate", f"{share:.2f}"), b""
        return msgspec.structs.replace(
            begun,
            reason=found.reason,
            detail=found.detail,
            original=original,
            signature=signature,
            personal=self._personal_in(texts),
        )

    def _find_in_text(self, experience: Experience, texts: Iterable[tuple[str, str]]) -> TextFinding:
        for name, text in texts:
            if kind := self._secrets.find(text):
                return TextFinding("secret", f"{kind} in the {name}")
        return find_repeated(experience)

    def _personal_in(self, texts: Iterable[tuple[str, str]]) -> dict[str, int]:
        counts = Counter[str]()
        for _, text in texts:
            if found := self._personal.find(text):
                counts.update(found)
        return dict(counts)


def _all_texts(experience: Experience) -> Iterator[tuple[str, str]]:
    """Everything that is trained on or stands in the context, and what it is called."""
    if not experience.context:
        yield "prompt", experience.prompt
    reply = Message(role="assistant", text=experience.response, calls=experience.calls)
    for message in (*experience.context, reply):
        name = "reply" if message is reply else _NAMES[message.role]
        yield name, message.whole_text
        yield name, "\n".join([message.name, message.call_id, *(call.id for call in message.calls)]).strip()
        for text in (*(call.arguments for call in message.calls), message.text if message.role == "tool" else ""):
            yield name, _strings_of(text)
    yield "tools", experience.tools
    yield "tools", _strings_of(experience.tools)


def _strings_of(text: str) -> str:
    """The strings of a JSON text, a line each, as they are without JSON's escapes; empty: it is no JSON."""
    found: list[str] = []
    try:
        left = [msgspec.json.decode(text)] if text[:1] in ("{", "[", '"') else []
    except DECODE_ERRORS:
        return ""
    while left:
        value = left.pop()
        if isinstance(value, str):
            found.append(value)
        elif isinstance(value, dict):
            left.extend([*value.values(), *value][::-1])
        elif isinstance(value, list):
            left.extend(value[::-1])
    return "\n".join(found)


def unscreenable(begun: Screened, why: str) -> Screened:
    """The finding on an experience that could not be screened: it is excluded, and not tried again."""
    return msgspec.structs.replace(begun, reason="unscreenable", detail=why)


def screen_wanted(
    found: Iterable[tuple[str, Learnable | str]], wanted: Iterable[int], screener: Screener, guard: Guard = nullcontext
) -> Iterator[Screened]:
    """The wanted experiences among what can be learned, in order, each id once as ``Digest`` has it."""
    left = set(wanted)
    for _, each in found:
        if isinstance(each, str):
            continue
        if each.key in left:
            left.remove(each.key)
            yield screener.screen(each.experience(), guard)
        if not left:
            return


@contextmanager
def _bounded(seconds: int, begun: Screened) -> Iterator[None]:
    """Report what is begun, and have the kernel end this process should it take longer than so much processor time."""
    _send(Frame(begun=begun))
    # The limit counts from the start of the process, and in whole seconds.
    _limit_processor(int(time.process_time()) + 1 + seconds)
    try:
        yield
    finally:
        _limit_processor(resource.RLIM_INFINITY)


class _Beat:
    """Reports progress, every ten seconds at most."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def __call__(self) -> None:
        if time.monotonic() - self._last >= BEAT_SECONDS:
            self._last = time.monotonic()
            _send(Frame(reads=True))

    def at_each(self, pieces: Iterable[_Piece]) -> Iterator[_Piece]:
        """The pieces, with a step forward at each."""
        for piece in pieces:
            self()
            yield piece


class _BeatingFile(FirstBytes):
    """A file of which each piece that was read is a step forward."""

    def __init__(self, file: BinaryIO, size: int, beat: _Beat) -> None:
        super().__init__(file, size)
        self._beat = beat

    def read(self, most: int = -1) -> bytes:
        """As a file's; the whole in pieces."""
        if most >= 0:
            self._beat()
            return super().read(most)
        whole = BytesIO()  # gives its bytes away without a copy
        while piece := self.read(HEAD_BYTES):
            whole.write(piece)
        return whole.getvalue()


def _limit_processor(seconds: int) -> None:
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, (seconds if hard == resource.RLIM_INFINITY else hard, hard))


def main() -> None:
    """Read standard input, answer on standard output."""
    seconds, *descriptors = map(int, sys.argv[1:])
    bound_process()
    os.nice(NICENESS)
    frames = _frames(sys.stdin.buffer)
    request = msgspec.msgpack.decode(next(frames), type=ReadRequest)
    terms = msgspec.msgpack.decode(next(frames), type=Terms)
    beat = _Beat()
    screener = _screener(frames, beat, asks=terms.asks)
    left = set(array("Q", request.wanted or b""))
    for descriptor, start in zip(descriptors, terms.starts, strict=True):
        with open(descriptor, "rb") as whole:
            file = _BeatingFile(whole, os.fstat(descriptor).st_size, beat)
            try:
                learnables = beat.at_each(read_learnables(file, request.settings, start)[1])
                for found in screen_wanted(learnables, left, screener, partial(_bounded, seconds)):
                    left.discard(found.key)
                    _send(Frame(found=found), at_once=False)
            except HalfWritten:
                pass  # what was found until there was read whole
    _send(Frame())


def _screener(frames: Iterator[bytes], beat: _Beat, *, asks: bool) -> Screener:
    pages = msgspec.msgpack.Decoder(list[tuple[int, bytes]])
    if not asks:
        return Screener(SecretFinder(), (pair for frame in beat.at_each(frames) for pair in pages.decode(frame)))

    def ask(bands: list[bytes]) -> list[tuple[int, bytes]]:
        _send(Frame(asks=bands))
        return pages.decode(next(frames))

    return Screener(SecretFinder(), ask=ask)


def _send(frame: Frame, *, at_once: bool = True) -> None:
    """``at_once``: not together with the next one."""
    sys.stdout.buffer.write(encode_frame(frame))
    if at_once:
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
