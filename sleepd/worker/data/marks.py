"""How the place of each text is found in what a template wrote.

A template sees each text with a private-use character at either end (inside its outer white space, which templates
strip) and with every control word in it replaced by such a character. So the place of each text is known afterwards,
and no text can steer the template: what looks like a header, or like the end of a thought, is not seen as one. JSON
keeps these characters, so a string in the arguments of a call is found too, however the template escapes it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .control_tokens import ControlWords, Refused, Span
from .messages import REPLY, THOUGHT, THOUGHT_TAGS

ARGUMENT = "argument"
"""What a string in the arguments of the reply's calls is called, with its number."""
_PRIVATE_USE = range(0xF0000, 0x10E000)
_BEYOND_UNICODE = (0xFFFE, 0xFFFF)
_PRIVATE = re.compile(f"([{chr(_PRIVATE_USE.start)}-{chr(_PRIVATE_USE.stop - 1)}])")


@dataclass(frozen=True)
class Rendering:
    """What a template wrote."""

    text: str
    places: Mapping[str, Span]
    """Where each text stands, without its outer white space. What the template left out is not in here."""
    texts: tuple[Span, ...]
    """Every place of a text, also of one that is written more than once."""
    lost: tuple[str, ...] = ()
    """The texts that the template left out."""


class Marks:
    """The private-use characters of one rendering, none of which is in any of its texts."""

    def __init__(self, texts: Iterable[str], words: ControlWords) -> None:
        used = {char for text in texts for char in _PRIVATE.findall(text)}
        self._free: Iterator[str] = (
            chr(code) for code in _PRIVATE_USE if code & 0xFFFF not in _BEYOND_UNICODE and chr(code) not in used
        )
        self._words = words
        self._opening: dict[str, list[str]] = {}
        """What the texts within these marks are called, in their order."""
        self._closing: dict[str, str] = {}
        """By the mark at a text's end, that at its start."""
        self._known: dict[tuple[str, str], str] = {}
        self._stand_ins: dict[str, str] = {}

    def around(self, label: str, text: str, role: str = "") -> str:
        """``text`` as a template is to see it. Of white space alone there is nothing to mark.

        Equal texts of one role have the same marks, for some templates compare messages; a text of the reply has its
        own.
        """
        core = text.strip()
        if not core:
            return text
        at = text.index(core)
        marked = None if _is_of_reply(label) else self._known.get((role, core))
        if marked is None:
            opening, closing = self._next(), self._next()
            self._opening[opening], self._closing[closing] = [], opening
            marked = f"{opening}{self.escaped(core)}{closing}"
            if not _is_of_reply(label):
                self._known[role, core] = marked
        self._opening[marked[0]].append(label)
        return f"{text[:at]}{marked}{text[at + len(core) :]}"

    def within(self, label: str, value: Any) -> Any:
        """A JSON value with marks around each string in it; keys, by which a template may sort, have none."""
        numbers = iter(range(1, 10**9))

        def marked(part: Any) -> Any:
            if isinstance(part, str):
                return self.around(f"{label}.{next(numbers)}", part)
            if isinstance(part, dict):
                return {self.escaped(key): marked(each) for key, each in part.items()}
            return [marked(each) for each in part] if isinstance(part, list) else part

        return marked(value)

    def without_words(self, value: Any) -> Any:
        """A JSON value in which no string holds a control word."""
        if isinstance(value, str):
            return self.escaped(value)
        if isinstance(value, dict):
            return {self.escaped(key): self.without_words(each) for key, each in value.items()}
        return [self.without_words(each) for each in value] if isinstance(value, list) else value

    def escaped(self, text: str) -> str:
        """``text`` with a private-use character in the place of each control word and each tag of a thought."""
        found = {match.group() for match in self._words.found_in(text)}
        found |= {tag for pair in THOUGHT_TAGS for tag in pair if tag in text}
        for word in found:
            if word not in self._stand_ins:
                self._stand_ins[word] = self._next()
        for word in sorted(found, key=len, reverse=True):
            text = text.replace(word, self._stand_ins[word])
        return text

    def _next(self) -> str:
        char = next(self._free, None)
        if char is None:
            raise Refused(f"it has more than {len(_PRIVATE_USE) // 2} texts")
        return char

    def read(self, written: str) -> Rendering:
        """What was written, without the marks.

        Raises:
            Refused: a text was torn, or of the reply something was written more than once.
        """
        words = {char: word for word, char in self._stand_ins.items()}
        coming = {opening: [*labels] for opening, labels in self._opening.items()}
        out: list[str] = []
        at, places, open_at, texts = 0, dict[str, Span](), dict[str, int](), list[Span]()
        for piece in _PRIVATE.split(written):
            if piece in coming:
                open_at[piece] = at
            elif piece in self._closing:
                opening = self._closing[piece]
                # One that is written more often than it was said stands where it is written last.
                label = coming[opening].pop(0) if len(coming[opening]) > 1 else coming[opening][0]
                if opening not in open_at:
                    raise Refused(f"the chat template tears the text of the {label}")
                if label in places and _is_of_reply(label):
                    raise Refused(f"the chat template writes the {label} twice")
                places[label] = (open_at.pop(opening), at)
                texts.append(places[label])
            else:
                out.append(words.get(piece, piece))
                if piece in words and not open_at:
                    texts.append((at, at + len(out[-1])))
                at += len(out[-1])
        if open_at:
            raise Refused(f"the chat template tears the text of the {coming[next(iter(open_at))][0]}")
        lost = tuple(label for labels in self._opening.values() for label in labels if label not in places)
        return Rendering("".join(out), places, tuple(texts), lost)


def _is_of_reply(label: str) -> bool:
    return label in (REPLY, THOUGHT) or label.startswith(ARGUMENT)


class NoMarks(Marks):
    """Leaves every text as it is."""

    def __init__(self, words: ControlWords) -> None:
        super().__init__((), words)

    def around(self, _label: str, text: str, _role: str = "") -> str:
        """``text``."""
        return text

    def escaped(self, text: str) -> str:
        """``text``."""
        return text
