"""What the person at the terminal sees."""

from __future__ import annotations

import shutil
import textwrap
import time
from collections.abc import Sequence
from typing import TextIO

from sleepd.sleepctl.pages.terminal import columns, pad, shorten
from sleepd.text.display import clean

from .sample import Question

MOST_COLUMNS = 100
MOST_REPLY_CHARACTERS = 240
SECONDS_BETWEEN_LINES = 10.0
"""Where a line cannot be drawn over, one is written so often."""
_LABEL_COLUMNS = 9


class Screen:
    """Lines with the time since the start, one line that is drawn over, and the table at the end."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._is_terminal = out.isatty()
        self.width = max(60, min(MOST_COLUMNS, shutil.get_terminal_size((MOST_COLUMNS, 24)).columns))
        self._started = time.monotonic()
        self._drawn_at = -SECONDS_BETWEEN_LINES
        self._is_drawn_over = False

    @property
    def seconds(self) -> int:
        """Since the start."""
        return int(time.monotonic() - self._started)

    def write(self, text: str = "") -> None:
        """A paragraph, wrapped."""
        self._finish_line()
        for line in text.splitlines() or [""]:
            self._write("\n".join(self._wrapped(line, self.width) or [""]) + "\n")

    def show(self, command: str) -> None:
        """A command to copy: on one line, however long."""
        self._finish_line()
        self._write(f"  {command}\n")

    def report(self, who: str, text: str) -> None:
        """Something that happened now."""
        self._finish_line()
        start = f"{self._clock()}  {pad(who, _LABEL_COLUMNS)} "
        first, *rest = self._wrapped(clean(text), self.width - len(start))
        self._write("\n".join([start + first, *(" " * len(start) + line for line in rest)]) + "\n")

    def draw(self, who: str, text: str) -> None:
        """A line that the next one replaces; where nothing can be replaced, one is written now and then."""
        line = shorten(f"{self._clock()}  {pad(who, _LABEL_COLUMNS)} {text}", self.width - 1)
        if self._is_terminal:
            self._write(f"\r\x1b[K{line}")
            self._is_drawn_over = True
        elif time.monotonic() - self._drawn_at >= SECONDS_BETWEEN_LINES:
            self._drawn_at = time.monotonic()
            self._write(line + "\n")

    def compare(self, questions: Sequence[Question], before: Sequence[str], after: Sequence[str], title: str) -> None:
        """The replies side by side, as the model gave them; the end of a long one is left out."""
        self._finish_line()
        side = (self.width - 4) // 3
        widths = (self.width - 4 - 2 * side, side, side)
        self._row(("question", "before", title), widths)
        self._write("-" * self.width + "\n")
        for question, *replies in zip(questions, before, after, strict=True):
            kind = "taught" if question.expected else "untrained"
            shown = [shorten(reply, MOST_REPLY_CHARACTERS) for reply in replies]
            self._row((f"{question.text} [{kind}]", *shown), widths)
            self._write("\n")

    def _row(self, cells: tuple[str, ...], widths: tuple[int, ...]) -> None:
        wrapped = [
            textwrap.wrap(clean(cell), width, break_on_hyphens=False) or ["-"]
            for cell, width in zip(cells, widths, strict=True)
        ]
        for number in range(max(map(len, wrapped))):
            parts = [lines[number] if number < len(lines) else "" for lines in wrapped]
            padded = [part + " " * (width - columns(part)) for part, width in zip(parts, widths, strict=True)]
            self._write("  ".join(padded).rstrip() + "\n")

    def _clock(self) -> str:
        return f"{self.seconds // 60:>3}:{self.seconds % 60:02}"

    @staticmethod
    def _wrapped(text: str, width: int) -> list[str]:
        # Paths and commands stay whole: they are there to be copied.
        return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)

    def _finish_line(self) -> None:
        if self._is_drawn_over:
            self._write("\n")
            self._is_drawn_over = False

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()


def score(questions: Sequence[Question], before: Sequence[str], after: Sequence[str]) -> list[str]:
    """The facts about the replies, counted from them."""
    taught = [number for number, question in enumerate(questions) if question.expected]
    untrained = [number for number, question in enumerate(questions) if not question.expected]

    def known(replies: Sequence[str]) -> int:
        return sum(questions[number].is_answered_by(replies[number]) for number in taught)

    same = sum(before[number] == after[number] for number in untrained)
    return [
        f"taught questions answered with the expected word: before {known(before)} of {len(taught)}, "
        f"after {known(after)} of {len(taught)}",
        f"untrained questions answered word for word as before: {same} of {len(untrained)}",
    ]
