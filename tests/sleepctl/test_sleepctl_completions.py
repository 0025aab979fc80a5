"""Completions: the scripts in real shells, where these are installed, and the numbers that they ask for."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from sleepd.config.strategies import STRATEGIES
from sleepd.protocol import control
from sleepd.sleepctl.generated.completion_scripts import scripts
from sleepd.sleepctl.parser.arguments import COMPLETED
from sleepd.sleepctl.parser.command_texts import GROUPS
from tests.processes import LIMIT_SECONDS
from tests.sleepctl import sleepctl_scenes as scenes
from tests.sleepctl.sleepctl_fake_daemon import FakeDaemon
from tests.sleepctl.sleepctl_ran import Ran

Sleepctl = Callable[..., Ran]

COMMANDS = {name for group in GROUPS.values() for name in group}
SCRIPTS = scripts()
HISTORY = {"schema": 1, "cycles": [scenes.REJECTED, scenes.PROMOTED, scenes.LOW_SAMPLE]}


@pytest.fixture
def shell_environment(environment: Path) -> dict[str, str]:
    """An environment in which ``sleepctl`` is this one."""
    program = environment / "sleepctl"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m sleepd.sleepctl "$@"\n')
    program.chmod(0o755)
    return {**os.environ, "PATH": f"{environment}:{os.environ['PATH']}"}


def in_bash(environment: dict[str, str], *words: str) -> list[str]:
    """What a real bash offers for the last word."""
    program = SCRIPTS["bash"] + (
        '\nCOMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _shtab_sleepctl; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    command = ["bash", "--norc", "-c", program, "bash", "sleepctl", *words]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=LIMIT_SECONDS)
    assert done.stderr == ""
    return done.stdout.split()


def test_bash_offers_every_command(shell_environment: dict[str, str]) -> None:
    """The first word is one of the commands, also after an option with its value."""
    assert set(in_bash(shell_environment, "")) == COMMANDS
    assert in_bash(shell_environment, "--socket", "/x", "hist") == ["history"]


def test_bash_offers_real_cycle_numbers(daemon: FakeDaemon, shell_environment: dict[str, str]) -> None:
    """`show` and `rollback`, and options that take a cycle, get the numbers that the daemon knows."""
    daemon.replies[control.History] = HISTORY
    assert in_bash(shell_environment, "show", "") == ["9", "8", "7"]
    assert in_bash(shell_environment, "rollback", "8") == ["8"]
    assert in_bash(shell_environment, "logs", "--cycle", "") == ["9", "8", "7"]


def test_bash_offers_options_strategies_and_subcommands(shell_environment: dict[str, str]) -> None:
    """What follows a command is its own; a value that can be anything gets no offer."""
    assert "--force" in in_bash(shell_environment, "run", "--")
    assert "--force" not in in_bash(shell_environment, "status", "--")
    assert in_bash(shell_environment, "show", "8", "--js") == ["--json"]
    assert set(in_bash(shell_environment, "run", "--strategy", "")) == set(STRATEGIES)
    assert in_bash(shell_environment, "config", "ch") == ["check"]
    assert in_bash(shell_environment, "run", "--epochs", "") == []
    assert set(in_bash(shell_environment, "completions", "")) == set(COMPLETED)


def test_bash_offers_files_and_directories(environment: Path, shell_environment: dict[str, str]) -> None:
    """A configuration is a file, a state a directory."""
    (environment / "one.toml").touch()
    (environment / "two").mkdir()
    start = f"{environment}/"
    assert f"{start}one.toml" in in_bash(shell_environment, "config", "check", start)
    assert in_bash(shell_environment, "status", "--state", start) == [f"{start}two"]


@pytest.mark.skipif(not shutil.which("fish"), reason="fish is not installed")
def test_fish_offers_commands_options_and_cycles(
    daemon: FakeDaemon, shell_environment: dict[str, str], environment: Path
) -> None:
    """A real fish, asked as its own completion asks."""
    daemon.replies[control.History] = HISTORY
    script = environment / "sleepctl.fish"
    script.write_text(SCRIPTS["fish"])

    def offered(line: str) -> list[str]:
        command = ["fish", "--no-config", "-c", f"source {script}; complete -C '{line}'"]
        done = subprocess.run(command, capture_output=True, text=True, env=shell_environment, timeout=LIMIT_SECONDS)
        assert done.stderr == ""
        return [each.split("\t")[0] for each in done.stdout.splitlines()]

    assert set(offered("sleepctl ")) == COMMANDS
    assert offered("sleepctl show ") == ["9", "8", "7"]
    assert offered("sleepctl config show ") == []
    assert offered("sleepctl config ch") == ["check"]
    assert "--force" in offered("sleepctl run --")
    assert set(offered("sleepctl run --strategy ")) == set(STRATEGIES)


_IN_ZSH = r"""
zmodload zsh/zpty
zpty shell zsh -f -i
zpty -w shell "PROMPT=; fpath=($2 \$fpath); autoload -Uz compinit; compinit -u -D; bindkey '^I' complete-word"
zpty -w shell 'compadd() {
    if [[ ${@[1,(i)(-|--)]} != *-(O|A|D)\ * ]]; then
        local -a hits; builtin compadd -O hits "$@"; print -rl -- "<<"${^hits}">>"
    fi
    builtin compadd "$@"
}'
zpty -w shell 'at-the-end() { print "<<>>"; exit }; comppostfuncs=(at-the-end); stty -echo; print -r "ready"now'
zpty -r -m shell before '*readynow*'
zpty -w -n shell "$1"$'\t'
zpty -r -m shell offered '*<<>>*'
print -r -- $offered
"""
"""Types $1 and the key in a zsh on a terminal of its own, and prints what its completion adds, each in ``<<>>``."""


@pytest.mark.skipif(not shutil.which("zsh"), reason="zsh is not installed")
def test_zsh_offers_commands_options_and_cycles(
    daemon: FakeDaemon, shell_environment: dict[str, str], environment: Path
) -> None:
    """A real zsh on a terminal, with the script where the installer puts it."""
    daemon.replies[control.History] = HISTORY
    (environment / "_sleepctl").write_text(SCRIPTS["zsh"])

    def offered(line: str) -> list[str]:
        command = ["zsh", "-f", "-c", _IN_ZSH, "zsh", line, str(environment)]
        done = subprocess.run(command, capture_output=True, text=True, env=shell_environment, timeout=LIMIT_SECONDS)
        assert done.stderr == ""
        return re.findall(r"<<([^>]+)>>", done.stdout)

    assert set(offered("sleepctl ")) == COMMANDS
    assert offered("sleepctl show ") == ["9", "8", "7"]
    assert offered("sleepctl logs --cycle 8") == ["8"]
    assert offered("sleepctl config ch") == ["check"]
    assert "--force" in offered("sleepctl run --")
    assert set(offered("sleepctl run --strategy ")) == set(STRATEGIES)


def test_numbers_come_from_disk_offline(environment: Path, sleepctl: Sleepctl) -> None:
    """Its last word is good enough to complete with."""
    state = environment / "state"
    state.mkdir()
    written = {**HISTORY, "written_at": scenes.NOW}
    (state / "history.json").write_bytes(msgspec.json.encode(written))
    (environment / "c.toml").write_text(f'[state]\ndirectory = "{state}"\n')
    ran = sleepctl("completions", "cycles", "--config", str(environment / "c.toml"))
    assert (ran.code, ran.err) == (0, "")
    assert [line.split("\t")[0] for line in ran.out.splitlines()] == ["9", "8", "7"]
    assert ran.out.splitlines()[1] == "8\tpromoted 2026-07-05"


def test_nothing_offered_without_daemon_and_files(environment: Path, sleepctl: Sleepctl) -> None:
    """A key was pressed; an error in the middle of a command line helps nobody."""
    (environment / "c.toml").write_text(f'[state]\ndirectory = "{environment}/none"\n')
    assert sleepctl("completions", "cycles", "--config", str(environment / "c.toml")) == Ran(0, "", "")
    assert sleepctl("completions", "cycles", "--config", str(environment / "absent.toml")) == Ran(0, "", "")


@pytest.mark.parametrize("shell", sorted(SCRIPTS))
def test_the_command_prints_the_script(sleepctl: Sleepctl, shell: str) -> None:
    """By hand as by the install script."""
    assert sleepctl("completions", shell) == Ran(0, SCRIPTS[shell], "")
