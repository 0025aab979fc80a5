"""The entry of ``sleepctl``: parse, dispatch, and turn every error into a message, a hint and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress

from sleepd.clock import SystemClock
from sleepd.errors import SleepdError

from .arguments import build_parser
from .commands import COMMANDS
from .console import Console
from .exit_codes import ExitCode
from .places import Places
from .session import Session


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code (argparse leaves with 2 by itself)."""
    # A path or a reply may hold what the terminal's encoding lacks: better a "?" than a traceback.
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError):  # a test's or an embedder's stream may not be a TextIOWrapper
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    arguments = build_parser().parse_args(argv)
    console = Console(sys.stdout, sys.stderr, os.environ, is_json=arguments.json)
    places = Places(
        socket=arguments.socket,
        state=arguments.state,
        config=arguments.config,
        environment=os.environ,
        say=console.say,
    )
    name = arguments.command
    if "subcommand" in arguments:
        name = f"{name} {arguments.subcommand}"
    try:
        code = COMMANDS[name](Session(arguments, console, places, SystemClock()))
        sys.stdout.flush()
    except SleepdError as error:
        console.fail(error)
        return error.exit_code
    except KeyboardInterrupt:
        return ExitCode.DETACHED
    except BrokenPipeError:
        # The reader (head, less) has seen enough. Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.OK
    return code


if __name__ == "__main__":
    sys.exit(main())
