"""The entry of ``sleepctl``: parse, dispatch, and turn every error into a message, a hint and an exit code."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import TextIO

from sleepd.clock import SystemClock
from sleepd.errors import SleepdError

from .commands.command_table import COMMANDS
from .console import Console, Output
from .exit_codes import ExitCode
from .parser.arguments import build_parser
from .places import Places
from .session import Session


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code (argparse leaves with 2 by itself)."""
    _prepare_streams()
    try:
        try:
            return _run(argv)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:  # the reader (head, less) has seen enough
        return ExitCode.OK
    except OSError as error:
        if error is not getattr(sys.stdout, "failure", None):
            raise
        _report_unwritten(error)
        return ExitCode.FAILED
    finally:
        for stream in (sys.stdout, sys.stderr):
            _discard_pending(stream)


def _run(argv: Sequence[str] | None) -> int:
    arguments = build_parser().parse_args(argv)
    console = Console(sys.stdout, sys.stderr, os.environ, is_json=arguments.json)
    places = Places(
        socket=arguments.socket,
        state=arguments.state,
        config=arguments.config,
        environment=os.environ,
        note=console.note,
    )
    name = arguments.command
    if "subcommand" in arguments:
        name = f"{name} {arguments.subcommand}"
    try:
        return COMMANDS[name](Session(arguments, console, places, SystemClock()))
    except SleepdError as error:
        console.fail(error)
        return error.exit_code
    except KeyboardInterrupt:
        return ExitCode.DETACHED


def _prepare_streams() -> None:
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the caller (``>&-``): what nobody wants to read goes nowhere
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - for as long as the process
        elif type(stream) is io.TextIOWrapper:  # a test's or an embedder's stream may be something else
            setattr(sys, name, Output(stream))


def _discard_pending(stream: TextIO) -> None:
    """Drop what the stream could not write, or Python would complain once more at its exit."""
    try:
        stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _report_unwritten(error: OSError) -> None:
    with suppress(OSError):
        sys.stderr.write(
            f"sleepctl: the output could not be written: {error.strerror}\n"
            "hint: make space where it goes; the command may have done its work all the same: sleepctl status\n"
        )


if __name__ == "__main__":
    sys.exit(main())
