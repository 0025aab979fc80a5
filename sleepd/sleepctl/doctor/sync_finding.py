"""What ``sleepctl doctor`` finds in what carries bundles to other machines; the remote itself is not asked."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from sleepd.bundles.rclone import INSTALL, config_file, refuse_open_config
from sleepd.config.schema import Config
from sleepd.errors import ConfigError
from sleepd.text.shell import command_line

from .doctor_facts import Result, SyncFacts


def sync_facts(config: Config) -> SyncFacts:
    """The directory, or the program and its configuration."""
    sync = config.sync
    facts = SyncFacts(place=sync.remote or sync.directory, policy=sync.policy)
    if not facts.place:
        return facts
    if not (config.bundle.key or config.bundle.allowed_signers):
        problem = "bundle.key and bundle.allowed_signers are empty: nothing goes, nothing comes"
        return SyncFacts(place=facts.place, problem=problem, hint="sudoedit /etc/sage-sleepd/config.toml")
    if not sync.remote:
        return facts if os.path.isdir(sync.directory) else _lacking(sync.directory, "mkdir", sync.directory)
    if shutil.which("rclone") is None:
        return SyncFacts(place=facts.place, problem="rclone is not installed", hint=INSTALL)
    file = config_file(sync, Path(config.state.directory))
    try:
        refuse_open_config(file)
    except ConfigError as error:
        return SyncFacts(place=facts.place, problem=error.message, hint=error.hint)
    is_named_there = not sync.remote.startswith(":")  # of the others all stands in sync.remote
    return _lacking(file, "rclone", "--config", file, "config") if is_named_there and not file.exists() else facts


def _lacking(path: str | Path, *command: str | Path) -> SyncFacts:
    text = f"{path} is not there"
    return SyncFacts(place=str(path), problem=text, hint=command_line("sudo", "-u", "sage-sleepd", *command))


def sync_finding(facts: SyncFacts) -> Result:
    """Can bundles go and come?"""
    if not facts.place:
        return "PASS", "adapters are not shared: sync.directory and sync.remote are empty", ""
    if facts.problem:
        return "FAIL", facts.problem, facts.hint
    text = f"adapters go and come through {facts.place}, policy {facts.policy}"
    return "PASS", f"{text}; sleepctl sync --dry-run looks there", ""
