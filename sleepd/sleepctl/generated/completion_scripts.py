"""Completions for bash, zsh and fish, written from the grammar of the command line."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable, Iterator

from sleepd.config.strategies import STRATEGIES
from sleepd.grammar import RecordingParser

_FILTER = r"2>/dev/null | LC_ALL=C sed -n '/^{word}\t[a-z0-9_ -]*$/p'"
"""Whatever answers: a shell sees nothing but words that mean nothing to it."""
_ASK = "sleepctl completions cycles " + _FILTER.format(word=r"[0-9]\{1,9\}")
_ASK_QUARANTINE = "sleepctl completions quarantine " + _FILTER.format(word=r"[A-Za-z0-9][A-Za-z0-9_.-]\{0,63\}")
_NOTE = "# Written by `sleepctl completions {}`: change nothing here."


def leaves(parser: RecordingParser) -> Iterator[tuple[tuple[str, ...], RecordingParser]]:
    """Every command that can be typed, with its words: ``("config", "check")``."""
    for name, command in parser.commands.items():
        yield (name,), command
        for inner, leaf in command.commands.items():
            yield (name, inner), leaf


def value_kind(action: argparse.Action) -> str:
    """What an option's value or a positional can be: words, or ``@files``, ``@directories``, ``@cycles``,
    ``@quarantine``; or empty.
    """
    if action.nargs == 0:
        return ""
    if action.choices is not None:
        return " ".join(str(choice) for choice in action.choices)
    if action.dest == "strategy":
        return " ".join(STRATEGIES)
    if action.dest in ("cycle", "ids"):
        return {"cycle": "@cycles", "ids": "@quarantine"}[action.dest]
    return {"FILE": "@files", "PATH": "@files", "DIR": "@directories"}.get(str(action.metavar), "")


def _options(parser: RecordingParser) -> list[argparse.Action]:
    return [action for action in parser.arguments if action.option_strings]


def _positionals(parser: RecordingParser) -> list[argparse.Action]:
    return [action for action in parser.arguments if not action.option_strings]


def _takes_value(action: argparse.Action) -> bool:
    return action.nargs is None  # with "?" the next word may well be something else


# --- bash ---

_BASH = """\
{note}
# `compgen -W` would expand what it is given: known numbers and ids are compared here.
_sleepctl_known() {{
    local known _
    while IFS=$'\t' read -r known _; do
        [[ $known == "$cur"* ]] && COMPREPLY+=("$known")
    done
}}

_sleepctl() {{
    local cur=${{COMP_WORDS[COMP_CWORD]}} prev=${{COMP_WORDS[COMP_CWORD - 1]}} command="" words="" word i
    COMPREPLY=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        word=${{COMP_WORDS[i]}}
        case $word in
            {with_value}) ((i++)) ;;
            -*) ;;
            *) command+=${{command:+ }}$word ;;
        esac
    done
    case $command in
{positionals}
    esac
    case $prev in
{values}
    esac
    if [[ $cur == -* ]]; then
        case $command in
{options}
        esac
    fi
    case $words in
        @files) mapfile -t COMPREPLY < <(compgen -f -- "$cur"); compopt -o filenames 2>/dev/null ;;
        @directories) mapfile -t COMPREPLY < <(compgen -d -- "$cur"); compopt -o filenames 2>/dev/null ;;
        @cycles) _sleepctl_known < <({ask}) ;;
        @quarantine) _sleepctl_known < <({ask_quarantine}) ;;
        *) mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur") ;;
    esac
}}
complete -F _sleepctl sleepctl
"""


def bash(parser: RecordingParser) -> str:
    """For bash 4 and newer; needs nothing of the package bash-completion."""
    commands = {(): parser, **dict(leaves(parser))}
    values: dict[str, str] = {}
    for command in commands.values():
        for action in _options(command):
            if _takes_value(action):
                values.update(dict.fromkeys(action.option_strings, value_kind(action)))
    positionals = []
    for words, command in commands.items():
        offered = " ".join(command.commands) or " ".join(value_kind(each) for each in _positionals(command)[:1])
        if offered:
            positionals.append(_case(" ".join(words), offered))
        positionals += [_case(" ".join(words), value_kind(each), "*") for each in _positionals(command)[1:2]]
    options = [
        # A command's own words may follow it: `show 8 --<TAB>`.
        _case(" ".join(words), " ".join(name for action in _options(command) for name in action.option_strings), "*")
        for words, command in sorted(commands.items(), key=lambda item: -len(item[0]))
    ]
    return _BASH.format(
        note=_NOTE.format("bash"),
        with_value=" | ".join(values),
        positionals="\n".join(positionals),
        values="\n".join(_case(name, words) for name, words in values.items()),
        options="\n".join(options),
        ask=_ASK,
        ask_quarantine=_ASK_QUARANTINE,
    )


def _case(pattern: str, words: str, tail: str = "") -> str:
    quoted = f'"{pattern}"' + (f' | "{pattern} "{tail}' if tail and pattern else tail)
    return f"        {quoted}) words={shlex.quote(words)} ;;"


# --- zsh ---

_ZSH = """\
#compdef sleepctl
{note}
_sleepctl_cycles() {{
    local -a cycles
    cycles=(${{(f)"$({ask} | tr '\\t' :)"}})
    _describe -V cycle cycles
}}

_sleepctl_quarantine() {{
    local -a ids
    ids=(${{(f)"$({ask_quarantine} | tr '\\t' :)"}})
    _describe -V experience ids
}}

_sleepctl() {{
    local context state state_descr line command
    typeset -A opt_args
    _arguments -C {own} '1:command:->command' '*::argument:->argument' && return
    case $state in
        command)
            local -a commands
            commands=(
{commands}
            )
            _describe command commands
            ;;
        argument)
            case $line[1] in
{cases}
            esac
            ;;
    esac
}}

_sleepctl "$@"
"""
_ZSH_KINDS = {
    "@files": "_files",
    "@directories": "_files -/",
    "@cycles": "_sleepctl_cycles",
    "@quarantine": "_sleepctl_quarantine",
    "": " ",
}


def zsh(parser: RecordingParser) -> str:
    """For zsh's completion system; to stand as ``_sleepctl`` in a directory of ``$fpath``."""
    summaries = {name: _summary(command) for name, command in parser.commands.items()}
    commands = [f"                {_quoted(name + ':' + text)}" for name, text in summaries.items()]
    cases = []
    for name, command in parser.commands.items():
        specs = _zsh_specs(command)
        if command.commands:
            specs.append(_quoted(f"1:command:({' '.join(command.commands)})"))
            specs.append("'2:file:_files'")
        cases.append(f"                {name}) _arguments {' '.join(specs)} ;;")
    return _ZSH.format(
        note=_NOTE.format("zsh"),
        own=" ".join(_zsh_specs(parser)),
        commands="\n".join(commands),
        cases="\n".join(cases),
        ask=_ASK,
        ask_quarantine=_ASK_QUARANTINE,
    )


def _zsh_specs(parser: RecordingParser) -> list[str]:
    specs = []
    for action in _options(parser):
        text = _text(action).replace("[", r"\[").replace("]", r"\]").replace(":", r"\:")
        value = "" if action.nargs == 0 else f"{':' if action.nargs is None else '::'}{_label(action)}:{_zsh(action)}"
        specs += [_quoted(f"{name}[{text}]{value}") for name in action.option_strings]
    for number, action in enumerate(_positionals(parser), 1):
        if action.nargs == "*":
            specs.append(_quoted(f"*:{_label(action)}:{_zsh(action)}"))
            continue
        colons = "::" if action.nargs == "?" else ":"
        specs.append(_quoted(f"{number}{colons}{_label(action)}:{_zsh(action)}"))
    return specs


def _zsh(action: argparse.Action) -> str:
    kind = value_kind(action)
    return _ZSH_KINDS.get(kind, f"({kind})")


def _label(action: argparse.Action) -> str:
    return str(action.metavar or action.dest).lower()


# --- fish ---


def fish(parser: RecordingParser) -> str:
    """For fish 3 and newer."""
    lines = [_NOTE.format("fish"), "complete -c sleepctl -f"]
    first = "__fish_use_subcommand"
    for name, command in parser.commands.items():
        lines.append(f"complete -c sleepctl -n {first} -a {name} -d {_quoted(_summary(command))}")
    lines += [_fish_option(action, first) for action in _options(parser)]
    homes = {inner: name for name, command in parser.commands.items() for inner in command.commands}
    for words, command in leaves(parser):
        seen = "; and ".join(f"__fish_seen_subcommand_from {word}" for word in words)
        if len(words) == 1 and words[0] in homes:  # `config show` is not `show`
            seen += f"; and not __fish_seen_subcommand_from {homes[words[0]]}"
        if command.commands:
            unseen = _quoted(f"{seen}; and not __fish_seen_subcommand_from {' '.join(command.commands)}")
            lines.append(f"complete -c sleepctl -n {unseen} -a {_quoted(' '.join(command.commands))}")
        lines += [_fish_option(action, _quoted(seen)) for action in _options(command)]
        for action in _positionals(command):
            offered = _fish_values(action)
            if offered:
                lines.append(f"complete -c sleepctl -n {_quoted(seen)} {offered}")
    return "\n".join(lines) + "\n"


def _fish_option(action: argparse.Action, condition: str) -> str:
    names = " ".join(f"-l {n[2:]}" if n.startswith("--") else f"-s {n[1:]}" for n in action.option_strings)
    value = f" -r {_fish_values(action)}".rstrip() if _takes_value(action) else ""
    return f"complete -c sleepctl -n {condition} {names}{value} -d {_quoted(_text(action))}"


def _fish_values(action: argparse.Action) -> str:
    kind = value_kind(action)
    if kind in ("@files", "@directories"):
        return "-F"
    asked = {"@cycles": _ASK, "@quarantine": _ASK_QUARANTINE}.get(kind)
    return f"-k -a {_quoted(f'({asked})')}" if asked else f"-a {_quoted(kind)}" if kind else ""


def _summary(parser: argparse.ArgumentParser) -> str:
    return (parser.description or "").rstrip(".")


def _text(action: argparse.Action) -> str:
    return (action.help or "").replace("%%", "%")


def _quoted(text: str) -> str:
    return "'" + text.replace("'", r"'\''") + "'"


SCRIPTS: dict[str, Callable[[RecordingParser], str]] = {"bash": bash, "zsh": zsh, "fish": fish}
