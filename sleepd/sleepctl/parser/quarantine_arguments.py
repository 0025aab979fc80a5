"""The grammar of ``sleepctl quarantine``."""

from __future__ import annotations

import argparse

ACTIONS = ("list", "show", "release", "drop", "reset")

QUARANTINE_EPILOG = """\
Excluded from training are: replies that run in a loop or ask one question after
the other, near-duplicates of earlier replies, secrets, what was recorded under
an adapter that was rolled back, and personal data if the configuration has
quarantine.personal_data = "set_aside".

list     which experiences, why and since when; the default
show     one of them with its whole text
release  allow training, whatever was found in this text
drop     never train or replay it again; also for one not in quarantine
reset    undo a release or a drop

All but list need the operator group. An experience that was already trained
stays trained until: sleepctl rollback."""


def add_quarantine(command: argparse.ArgumentParser) -> None:
    """Its positionals."""
    help_ = f"{', '.join(ACTIONS)} (default: list)"
    command.add_argument("action", metavar="ACTION", nargs="?", choices=ACTIONS, default="list", help=help_)
    command.add_argument("ids", metavar="ID", nargs="*", help="of experiences; show takes one, list none")
