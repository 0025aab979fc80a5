"""Where output goes: data on stdout, as a screen or as JSON; talk on stderr."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, TextIO

import msgspec

from sleepd.errors import SleepdError
from sleepd.protocol.status import SCHEMA
from sleepd.text.display import clean

from .pages.terminal import Page, is_coloured, render, width_of


class Output(io.TextIOWrapper):
    """A standard stream that remembers why it could not be written, so that no other failure is taken for it.

    A path or a reply may hold what the terminal's encoding lacks: a "?" is better than a traceback.
    """

    def __init__(self, beneath: io.TextIOWrapper) -> None:
        super().__init__(beneath.buffer, beneath.encoding, "replace", line_buffering=beneath.line_buffering)
        self._beneath = beneath  # dropped, it would close what both write on
        self.failure: OSError | None = None

    def write(self, text: str, /) -> int:
        """As the class above, remembering a failure."""
        with self._remembered():
            return super().write(text)

    def flush(self) -> None:
        """As the class above, remembering a failure."""
        with self._remembered():
            super().flush()

    @contextmanager
    def _remembered(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.failure = error
            raise


class Console:
    """The two streams and how to write on them.

    Args:
        out: for data.
        err: for talk.
        environment: ``NO_COLOR`` and ``TERM`` are looked up here.
        is_json: data as JSON instead of as a screen.
    """

    def __init__(self, out: TextIO, err: TextIO, environment: Mapping[str, str], *, is_json: bool) -> None:
        self._out = out
        self._err = err
        self._environment = environment
        self._is_json = is_json

    def show(self, data: Any, page: Page) -> None:
        """The answer: ``data`` (a structure or a mapping with a ``schema``) as JSON, or ``page`` as a screen."""
        if self._is_json:
            self._show_json(data)
        else:
            coloured = is_coloured(self._out, self._environment)
            self._out.write(render(page, width=width_of(self._out), is_coloured=coloured))

    def show_text(self, data: Any, text: str) -> None:
        """The answer, where it is a document of its own: ``text`` as it stands."""
        if self._is_json:
            self._show_json(data)
        else:
            self._out.write(text)

    def _show_json(self, data: Any) -> None:
        import json

        # ASCII only: what is not would reach a terminal as it came from a prompt or a reply.
        self._out.write(json.dumps(msgspec.to_builtins(data), indent=2) + "\n")

    def show_one_of_many(self, data: Any, page: Page) -> None:
        """One of a stream of answers, at once: ``data`` as JSON on a line of its own, or ``page``."""
        if self._is_json:
            import json

            self._out.write(json.dumps(msgspec.to_builtins(data)) + "\n")
        else:
            self.show(data, page)
        self._out.flush()

    def note(self, text: str) -> None:
        """One sentence for the operator; where it cannot be written, the command goes on without."""
        with suppress(OSError):
            self._err.write(clean(text) + "\n")
            self._err.flush()

    def note_undo(self, command: str) -> None:
        """The command that takes back what was just done."""
        if command:
            self.note(f"undo: {command}")

    def fail(self, error: SleepdError) -> None:
        """What went wrong and what to do; for a program too, where it asked for JSON."""
        self.note(f"sleepctl: {error.message}")
        if error.hint:
            self.note(f"hint: {error.hint}")
        if self._is_json:
            problem = {"kind": error.kind, "message": error.message, "hint": error.hint, "exit_code": error.exit_code}
            self._show_json({"schema": SCHEMA, "error": problem})

    @property
    def is_json(self) -> bool:
        """Whether data goes out as JSON."""
        return self._is_json

    @property
    def out(self) -> TextIO:
        """For a screen that is drawn again and again."""
        return self._out

    @property
    def environment(self) -> Mapping[str, str]:
        """Of the process."""
        return self._environment

    @property
    def err(self) -> TextIO:
        """For a line that is drawn again and again."""
        return self._err

    @property
    def can_redraw(self) -> bool:
        """Whether stderr is a terminal that can go back to the start of a line."""
        return self._err.isatty() and self._environment.get("TERM") != "dumb"
