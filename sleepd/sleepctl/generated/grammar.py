"""What a parser was given: its commands, and the options and positionals of each.

argparse has no public way to ask. shtab and other tools of this kind read the same list; it is read where the files are
made, never where the program runs.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping


def arguments(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """Every option and positional, in the order in which they were added, without the choice of a command."""
    return [action for action in parser._actions if not isinstance(action.choices, Mapping)]  # noqa: SLF001


def command_choices(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """The positional that chooses a command, where there is one; its ``choices`` are the parsers by name."""
    return [action for action in parser._actions if isinstance(action.choices, Mapping)]  # noqa: SLF001


def commands(parser: argparse.ArgumentParser, *words: str) -> Iterator[tuple[tuple[str, ...], argparse.ArgumentParser]]:
    """Every command that can be typed, with its words: ``("config", "check")``."""
    for choice in command_choices(parser):
        parsers: Mapping[str, argparse.ArgumentParser] = dict(choice.choices or {})
        for name, command in parsers.items():
            yield (*words, name), command
            yield from commands(command, *words, name)
