"""What the person at the terminal sees."""

from __future__ import annotations

import shutil
import textwrap
import time
from collections.abc import Sequence
from typing import TextIO

from sleepd.sleepctl.terminal import clean, columns, pad, shorten

from .sample import Question

MOST_COLUMNS = 100
_LABEL_COLUMNS = 9


class Screen:
    """Lines with the time since the start, one line that is drawn over, and the table at the end."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._is_terminal = out.isatty()
        self.width = max(60, min(MOST_COLUMNS, shutil.get_terminal_size((MOST_COLUMNS, 24)).columns))
        self._started = time.monotonic()
        self._is_drawn_over = False

    def say(self, text: str = "") -> None:
        """A paragraph, wrapped."""
        self._finish_line()
        for line in text.splitlines() or [""]:
            self._write(textwrap.fill(line, self.width, subsequent_indent="  ", break_long_words=False) + "\n")

    def tell(self, who: str, text: str) -> None:
        """Something that happened now."""
        self._finish_line()
        start = f"{self._clock()}  {pad(who, _LABEL_COLUMNS)} "
        indent = " " * len(start)
        lines = textwrap.wrap(clean(text), self.width - len(start), break_long_words=False)
        self._write("\n".join([start + lines[0], *(indent + line for line in lines[1:])]) + "\n")

    def draw(self, who: str, text: str, *, is_milestone: bool) -> None:
        """A line that the next one replaces; where nothing can be replaced, only the milestones are written."""
        line = shorten(f"{self._clock()}  {pad(who, _LABEL_COLUMNS)} {clean(text)}", self.width - 1)
        if self._is_terminal:
            self._write(f"\r\x1b[K{line}")
            self._is_drawn_over = True
        elif is_milestone:
            self._write(line + "\n")

    def compare(self, questions: Sequence[Question], before: Sequence[str], after: Sequence[str], title: str) -> None:
        """The replies side by side, as the model gave them."""
        self._finish_line()
        side = (self.width - 4) // 3
        widths = (self.width - 4 - 2 * side, side, side)
        self._row(("question", "before", title), widths)
        self._write("-" * self.width + "\n")
        for question, *replies in zip(questions, before, after, strict=True):
            kind = "taught" if question.expected else "general"
            self._row((f"{question.text} [{kind}]", *replies), widths)
            self._write("\n")

    def _row(self, cells: tuple[str, ...], widths: tuple[int, ...]) -> None:
        wrapped = [textwrap.wrap(clean(cell), width) or ["-"] for cell, width in zip(cells, widths, strict=True)]
        for number in range(max(map(len, wrapped))):
            parts = [lines[number] if number < len(lines) else "" for lines in wrapped]
            padded = [part + " " * (width - columns(part)) for part, width in zip(parts, widths, strict=True)]
            self._write("  ".join(padded).rstrip() + "\n")

    def _clock(self) -> str:
        seconds = int(time.monotonic() - self._started)
        return f"{seconds // 60:>3}:{seconds % 60:02}"

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
    general = [number for number, question in enumerate(questions) if not question.expected]

    def known(replies: Sequence[str]) -> int:
        return sum(questions[number].is_answered_by(replies[number]) for number in taught)

    same = sum(before[number] == after[number] for number in general)
    return [
        f"taught answers with the expected word: before {known(before)} of {len(taught)}, "
        f"after {known(after)} of {len(taught)}",
        f"general answers that are word for word as before: {same} of {len(general)}",
    ]
