"""The grammar of ``sleepctl bundle`` and ``sleepctl sync``."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from .argument_types import Whole

BUNDLE_EPILOG = """\
A bundle is one signed file: an adapter, what was measured on it, hashes of what
it was trained on, and the fingerprint of its base. It holds no texts of the
agent unless --with-texts asks for them; those with a secret are left out then.
A bundle is a tar file, at most 2.1 GiB large.

export  sign a cycle with bundle.key and write it to a new file
import  check the signature against bundle.allowed_signers, unpack it below
        foreign/ in the state directory; it is a candidate and not in use
show    what a bundle holds and who signed it; nothing is written
judge   start a cycle that trains nothing: the daemon measures an imported
        bundle here, and the same gates promote or reject it
list    the bundles that were imported; the default
remove  delete an imported bundle

Only judge needs the daemon, and the operator group. export, show and list read
the state directory; import and remove write there, as its owner:
sudo -u sage-sleepd sleepctl bundle import FILE"""

SYNC_EPILOG = """\
Every sync.minutes: the champion goes up into sync.directory or sync.remote, if
it was trained here and did not go up before, signed with bundle.key, without
texts unless sync.with_texts is on; what an allowed signer has sent comes down
as a candidate (sleepctl bundle list). With sync.policy = "take" the daemon then
judges the newest one of each sender; with "merge" the experiences that came go
into sync.merge_directory, to be trained here. --dry-run lists what would leave,
member by member, and what would be looked at; it changes nothing. It runs as
the owner of the state directory.
Syncthing, NFS or a like program carries the directory; rclone reaches the
remote. What a cut line has brought of a bundle is kept: the rest is asked for
in the next round. Ctrl-C ends it."""

_SUMMARIES = {
    "export": "Write a cycle as a signed bundle.",
    "import": "Unpack a bundle of another machine as a candidate.",
    "show": "Show what a bundle holds.",
    "judge": "Have the daemon measure and judge an imported bundle.",
    "list": "List the imported bundles.",
    "remove": "Delete an imported bundle.",
}


AddOptions = Callable[[argparse.ArgumentParser], None]


def add_bundle_commands(bundle: argparse.ArgumentParser, add_options: AddOptions) -> None:
    """Its subcommands; ``add_options`` adds those that every command has."""
    add_options(bundle)
    commands = bundle.add_subparsers(metavar="|".join(_SUMMARIES), dest="subcommand")
    bundle.set_defaults(subcommand="list")
    for name, summary in _SUMMARIES.items():
        command = commands.add_parser(name, help=summary, description=summary)
        add_options(command)
        if name not in ("show", "judge"):
            command.add_argument(
                "--state", metavar="DIR", default=argparse.SUPPRESS, help="the state directory; default: as configured"
            )
        if name == "export":
            _add_export(command)
        elif name in ("import", "show"):
            command.add_argument("file", metavar="FILE", help="the bundle")
        elif name in ("judge", "remove"):
            command.add_argument("id", metavar="ID", help="how the bundle's id begins")


def _add_export(command: argparse.ArgumentParser) -> None:
    help_ = "the cycle's number; default: the champion"
    command.add_argument("cycle", metavar="N", nargs="?", type=Whole(1), help=help_)
    command.add_argument("--to", metavar="FILE", required=True, help="a new file; nothing is overwritten")
    help_ = "also send experiences to replay and the fingerprint, without those that hold a secret"
    command.add_argument("--with-texts", action="store_true", help=help_)


def add_sync(command: argparse.ArgumentParser) -> None:
    """Its options."""
    command.add_argument("--once", action="store_true", help="one round, then end")
    command.add_argument("--dry-run", action="store_true", help="only list what would leave, and what would come")
