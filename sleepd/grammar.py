"""A parser that remembers its arguments, so that completions and manual pages come from the same words as ``--help``.

``argparse`` has no public way to ask a parser what it was given.
"""

from __future__ import annotations

import argparse
from typing import Any, TypeVar

_Action = TypeVar("_Action", bound=argparse.Action)


class RecordingParser(argparse.ArgumentParser):
    """As ``argparse.ArgumentParser``; ``arguments`` has every option and positional in the order they were added."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.arguments: list[argparse.Action] = []  # first: the base class adds --help already
        self.commands: dict[str, RecordingParser] = {}
        super().__init__(*args, **kwargs)

    def _add_action(self, action: _Action) -> _Action:
        # Not add_argument: what a mutually exclusive group is given arrives here too.
        self.arguments.append(action)
        return super()._add_action(action)

    def add_subparsers(self, **kwargs: Any) -> Any:
        """Add them; ``commands`` maps each name to its parser."""
        action = super().add_subparsers(**kwargs)
        self.commands = action.choices
        return action
