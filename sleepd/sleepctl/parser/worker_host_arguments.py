"""The grammar of ``sleepctl worker-host``."""

from __future__ import annotations

import argparse
from collections.abc import Callable

WORKER_HOST_EPILOG = """\
With worker.engine = "ssh" a cycle runs on worker.host: a machine with a GPU,
the same version of sage-sleepd and the same base.

check  what is missing for that, each with the next step: the way by ssh, a key
       that may do this alone, version and code, the base's fingerprint, the
       GPU, disk; the default. Exits with 1 when anything fails
serve  be such a machine for one connection, on standard input and output. On
       the host, in ~/.ssh/authorized_keys of the user that trains there:
       restrict,command="sleepctl worker-host serve" ssh-ed25519 AAAA…

The host's own configuration names its base, its device and its interpreter."""

_SUMMARIES = {
    "check": "Show what a cycle on that machine would lack.",
    "serve": "Train for another machine, over standard input and output.",
}


def add_worker_host(command: argparse.ArgumentParser, add_options: Callable[[argparse.ArgumentParser], None]) -> None:
    """Its subcommands; ``add_options`` adds those that every command has."""
    add_options(command)
    commands = command.add_subparsers(metavar="|".join(_SUMMARIES), dest="subcommand")
    command.set_defaults(subcommand="check", host="")
    for name, summary in _SUMMARIES.items():
        each = commands.add_parser(name, help=summary, description=summary)
        add_options(each)
        if name == "check":
            each.add_argument("host", metavar="HOST", nargs="?", default="", help="default: worker.host")
