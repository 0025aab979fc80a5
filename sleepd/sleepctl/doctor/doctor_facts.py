"""The facts that ``sleepctl doctor`` judges. None means "could not be found out here", never "no"."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec

from sleepd.config.schema import Config
from sleepd.protocol.capability import BaseCheck, Capability
from sleepd.protocol.deployment.live_request import LiveAnswer

Mark = Literal["PASS", "WARN", "FAIL"]
Result = tuple[Mark, str, str]
"""What a check comes to: mark, text, and the command that fixes it."""


class ConfigFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The operator's configuration."""

    config: Config = Config()
    """Built-in, where there is none or it is wrong."""
    path: str = ""
    """Empty: there is no file."""
    problem: str = ""
    hint: str = ""


class UnitFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What systemd reports about sage-sleepd.service."""

    load: str = ""
    """``loaded``, ``not-found``, ``masked``, …; empty: systemd does not answer here."""
    active: str = ""
    file: str = ""
    """``enabled``, ``disabled``, …"""
    user: str = ""
    result: str = ""
    needs_reload: bool = False
    drop_ins: list[str] = []
    hides_homes: bool = False
    hides_tmp: bool = False
    shown: list[str] = []
    """Paths that are shown to it in spite of that."""
    environment: dict[str, str] = {}


class SocketFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The control socket, and the daemon behind it."""

    path: str = ""
    exists: bool = False
    problem: str = ""
    """Why the daemon could not be asked; empty: it answered."""
    hint: str = ""
    is_running: bool = False
    """False where nobody answers; a daemon that refuses or hangs is running."""
    is_caller_operator: bool | None = None
    """Whether the caller may also control it; None: the operators' group does not exist."""
    daemon_version: str = ""
    last_error: str = ""
    last_error_hint: str = ""


class PathFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A path as the daemon's user finds it."""

    path: str
    kind: str = ""
    """``file``, ``directory``, ``absent``, ``other``; empty: not to be seen."""
    blocked_at: str = ""
    """The directory that does not let it pass; empty: none."""
    may_read: bool | None = None
    may_write: bool | None = None


class BufferFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The buffer: as the running daemon reports it, else as its user would find it."""

    has_daemon_read: bool | None = None
    """None: no daemon was there to ask."""
    problem: str = ""
    places: list[PathFacts] = []
    """Each of its paths; of a pattern the directory in which it begins."""


class EngineFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The engine of ``[serve]``, as the caller finds it."""

    kind: str = ""
    """Empty: none is configured."""
    url: str = ""
    key_file: str = ""
    key_mode: int | None = None
    """Permissions of the key file; None: there is none, or the caller may not see it."""
    answer: LiveAnswer | None = None
    """None: it was not asked, or did not answer as it should."""
    problem: str = ""
    hint: str = ""
    was_asked: bool = True
    """False: the problem is the caller's, and says nothing of the engine."""


class SyncFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What carries bundles to other machines."""

    place: str = ""
    """Empty: none is configured."""
    policy: str = ""
    problem: str = ""
    hint: str = ""


class DoctorFacts(msgspec.Struct, frozen=True, kw_only=True):
    """All of them."""

    now: datetime
    config: ConfigFacts = ConfigFacts()
    unit: UnitFacts = UnitFacts()
    socket: SocketFacts = SocketFacts()
    buffer: BufferFacts = BufferFacts()
    engine: EngineFacts = EngineFacts()
    sync: SyncFacts = SyncFacts()
    state: PathFacts
    daemon_user: str = ""
    """Whose permissions ``state`` and ``buffer.places`` describe; empty: nobody's, because only root can find out."""
    free_bytes: int | None = None
    """On the disk of the state directory."""
    interpreter: str = ""
    capability: Capability | None = None
    capability_problem: str = ""
    base: BaseCheck | None = None
    """What was found in the base; None: it was not checked, see ``base_check_problem`` and ``capability``."""
    base_check_problem: str = ""
    has_gpu: bool = False
    """Whether the system has a GPU's device file, whatever torch reports."""
    memory_bytes: int | None = None
    """Available without swapping."""
    is_clock_synchronised: bool | None = None
    last_sleep_at: datetime | None = None
    leftovers: list[tuple[str, str]] = []
    """What is left from before: what it is, and the command that deals with it."""
