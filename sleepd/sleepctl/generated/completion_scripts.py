"""Completions for bash, zsh and fish: shtab writes them from the grammar, and functions of ours ask for what changes.

shtab is needed where the files are made, never where they are used. Its own way to ask a program (``shtab.cmd``) is not
taken: in bash it hands the answer to ``compgen -W``, which expands it, and agents choose the ids of experiences.
"""

from __future__ import annotations

import argparse

import shtab

from sleepd.config.strategies import STRATEGIES
from sleepd.sleepctl.parser.arguments import build_parser

from .grammar import arguments, command_choices, commands

_FILTER = r"2>/dev/null | LC_ALL=C sed -n '/^{word}\t[a-z0-9_ -]*$/p'"
"""Whatever answers: a shell sees nothing but words that mean nothing to it."""
_ASK = "sleepctl completions cycles " + _FILTER.format(word=r"[0-9]\{1,9\}")
_ASK_QUARANTINE = "sleepctl completions quarantine " + _FILTER.format(word=r"[A-Za-z0-9][A-Za-z0-9_.-]\{0,63\}")

_BASH = f"""\
# Prints each word of the answer that starts with $1.
_sleepctl_starting() {{
    local known _
    while IFS=$'\\t' read -r known _; do
        [[ $known == "$1"* ]] && printf '%s\\n' "$known"
    done
}}
_sleepctl_cycles() {{ {_ASK} | _sleepctl_starting "$1"; }}
_sleepctl_quarantine() {{ {_ASK_QUARANTINE} | _sleepctl_starting "$1"; }}"""

_ZSH = f"""\
_sleepctl_cycles() {{
    local -a cycles
    cycles=(${{(f)"$({_ASK} | tr '\\t' :)"}})
    _describe -V cycle cycles
}}
_sleepctl_quarantine() {{
    local -a ids
    ids=(${{(f)"$({_ASK_QUARANTINE} | tr '\\t' :)"}})
    _describe -V experience ids
}}"""

_FISH = f"""\
function _sleepctl_cycles
    {_ASK}
end
function _sleepctl_quarantine
    {_ASK_QUARANTINE}
end"""

FUNCTIONS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}
"""By shell: what asks for numbers of cycles and for ids of experiences in quarantine."""


def scripts() -> dict[str, str]:
    """The script for each shell."""
    parser = build_parser()
    for choice in command_choices(parser):
        choice.help = None  # --help has a table of its own instead, and shtab passes over what is suppressed
    for command in (parser, *(command for _, command in commands(parser))):
        for action in arguments(command):
            _offer_values(action)
    return {shell: shtab.complete(parser, shell, preamble=own).rstrip() + "\n" for shell, own in FUNCTIONS.items()}


def _offer_values(action: argparse.Action) -> None:
    """Say what the argument's value can be, as shtab wants to be told: in attributes of the action."""
    if action.dest == "strategy":
        action.choices = tuple(STRATEGIES)
    files = {"FILE": "file", "PATH": "file", "DIR": "directory"}.get(str(action.metavar))
    functions = {"cycle": "_sleepctl_cycles", "ids": "_sleepctl_quarantine"}.get(action.dest)
    if files:
        vars(action)["complete"] = files
    elif functions:
        vars(action)["complete"] = {"bash": functions, "zsh": functions, "fish": f"({functions})"}
