"""Commands that are shown to be pasted into a shell: whatever is in an id or a path, it stays one word.

As :func:`shlex.quote`, and a control or invisible character is written as an escape (``$'…'``: bash, zsh, ksh), so that
what a terminal shows is what the shell gets.
"""

from __future__ import annotations

import shlex

from .display import is_shown


def quoted(word: object) -> str:
    """``word`` as one word of a shell."""
    text = str(word)
    if all(map(is_shown, text)):
        return shlex.quote(text)
    return "$'" + "".join(_escaped(character) for character in text) + "'"


def command_line(*words: object, operands: tuple[object, ...] = ()) -> str:
    """A command line; ``operands`` come from others, and stand behind ``--`` where one looks like an option."""
    parted = ("--",) if any(str(each).startswith("-") for each in operands) else ()
    return " ".join(quoted(each) for each in (*words, *parted, *operands))


def _escaped(character: str) -> str:
    number = ord(character)
    if character in "'\\":
        return "\\" + character
    if is_shown(character):
        return character
    if number < 0x80 or 0xDC80 <= number <= 0xDCFF:  # a surrogate is a byte of a path that is no UTF-8
        return f"\\x{number & 0xFF:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
