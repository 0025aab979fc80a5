"""The grammar of ``sleepctl quarantine``."""

from __future__ import annotations

import argparse

ACTIONS = ("list", "show", "release", "drop", "reset")

QUARANTINE_EPILOG = """\
Kept from training are: replies that run in a loop or ask one question after the
other, near-duplicates of what came before, secrets, what was said under an
adapter that was rolled back, and personal data where the configuration has
quarantine.personal_data = "set_aside".

list     who is in, why and since when; the default
show     one of them with its whole text
release  it may be trained, whatever was found in this text
drop     it is never trained or replayed again; not only one that is in
reset    take a release or a drop back

All but list need the operator group. What was trained before stays trained:
sleepctl rollback."""


def add_quarantine(command: argparse.ArgumentParser) -> None:
    """Its positionals."""
    help_ = f"{', '.join(ACTIONS)} (default: list)"
    command.add_argument("action", metavar="ACTION", nargs="?", choices=ACTIONS, default="list", help=help_)
    command.add_argument("ids", metavar="ID", nargs="*", help="of experiences; show takes one, list none")
