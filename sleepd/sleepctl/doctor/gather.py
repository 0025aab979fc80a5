"""Where ``sleepctl doctor`` gets its facts: files, the socket, systemd, the worker's interpreter."""

from __future__ import annotations

import grp
import os
import pwd
import shlex
import shutil
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TypeVar

import msgspec

from sleepd.buffer.reading.buffer_paths import first_place
from sleepd.config.schema import Config
from sleepd.errors import ConfigError, DaemonNotRunning, SleepdError
from sleepd.host import has_gpu, worker_python
from sleepd.protocol.capability import BaseCheck, Capability
from sleepd.protocol.checkpoint.checkpoint_files import PICKLED_WEIGHTS, WEIGHTS_FILE
from sleepd.protocol.control import Buffer, GetStatus
from sleepd.protocol.status import BufferDetail, Status
from sleepd.sleepctl.offline import read_status
from sleepd.sleepctl.session import STATUS_SECONDS, Session
from sleepd.sleepctl.subprocesses import answer_of, properties
from sleepd.text.shell import command_line
from sleepd.worker_program import NoAnswer, ask_worker

from .access import access_as
from .doctor_facts import BufferFacts, ConfigFacts, DoctorFacts, EngineFacts, SocketFacts, SyncFacts, UnitFacts
from .engine_finding import engine_facts
from .longest_experience import longest_experience
from .sync_finding import sync_facts

_CHECK_BYTES = 6 * 2**30
"""Most memory for checking a base without its weights: a base that needs more is not what it claims to be."""
_Answer = TypeVar("_Answer", Capability, BaseCheck)
_UNIT_PROPERTIES = (
    "LoadState,ActiveState,UnitFileState,User,Result,NeedDaemonReload,DropInPaths,ProtectHome,PrivateTmp,BindPaths,"
    "BindReadOnlyPaths,Environment"
)
_CRON_PLACES = ("/etc/crontab", "/etc/cron.d")
_OLDER_PROGRAMS = ("sleep_scheduler", "sleepd.scheduler")


def gather(session: Session) -> DoctorFacts:
    """Everything that can be found out without changing anything."""
    config_facts = _config(session)
    config, unit = config_facts.config, _unit()
    socket, status = _daemon(session, config)
    user = _daemon_user(unit, status, Path(config.state.directory))
    state, *buffers = access_as(user, [config.state.directory, *map(first_place, config.buffer.paths)])
    buffer = _buffer(session) if status else BufferFacts()
    interpreter = worker_python(config.worker.python)
    if config_facts.problem or config.worker.engine != "local":
        capability, problem = None, "see config"
    else:
        capability, problem = _capability(interpreter, config, user, unit)
    can_check = capability is not None and bool(capability.base_path and capability.device)
    base, base_problem = _base_check(interpreter, config, user, unit) if can_check else (None, "")
    knows = user is not None and os.geteuid() in (0, user.pw_uid)
    return DoctorFacts(
        now=session.clock.now(),
        config=config_facts,
        unit=unit,
        socket=socket,
        buffer=msgspec.structs.replace(buffer, places=buffers),
        engine=EngineFacts() if config_facts.problem else engine_facts(config, status),
        sync=SyncFacts() if config_facts.problem else sync_facts(config),
        state=state,
        daemon_user=user.pw_name if user is not None and knows else "",
        free_bytes=_free_bytes(Path(config.state.directory)),
        interpreter=interpreter,
        capability=capability,
        capability_problem=problem,
        base=base,
        base_check_problem=base_problem,
        has_gpu=has_gpu(),
        memory_bytes=_memory_bytes(),
        is_clock_synchronised=_is_clock_synchronised(),
        last_sleep_at=_last_status(session, status),
        leftovers=_leftovers(Path(config.state.directory), is_running=socket.is_running),
    )


def _config(session: Session) -> ConfigFacts:
    path = str(session.places.config_file or "")
    try:
        return ConfigFacts(config=session.places.load_config().config, path=path)
    except ConfigError as error:
        return ConfigFacts(path=path, problem=error.message, hint=error.hint)


def _unit() -> UnitFacts:
    text = answer_of("systemctl", "show", f"--property={_UNIT_PROPERTIES}", "sage-sleepd.service")
    if not text:
        return UnitFacts()
    found = properties(text)
    binds = f"{found.get('BindPaths', '')} {found.get('BindReadOnlyPaths', '')}".split()
    return UnitFacts(
        load=found.get("LoadState", ""),
        active=found.get("ActiveState", ""),
        file=found.get("UnitFileState", ""),
        user=found.get("User", ""),
        result=found.get("Result", ""),
        needs_reload=found.get("NeedDaemonReload") == "yes",
        drop_ins=found.get("DropInPaths", "").split(),
        hides_homes=found.get("ProtectHome") in ("yes", "tmpfs"),
        hides_tmp=found.get("PrivateTmp") in ("yes", "disconnected"),
        # "-SOURCE:TARGET:OPTIONS"; where it stands inside is what the configuration names.
        shown=[(bind.removeprefix("-").split(":") * 2)[1] for bind in binds],
        environment=dict(word.split("=", 1) for word in shlex.split(found.get("Environment", "")) if "=" in word),
    )


def _daemon(session: Session, config: Config) -> tuple[SocketFacts, Status | None]:
    socket = SocketFacts(is_caller_operator=_is_operator(config.control.operator_group))
    status: Status | None = None
    try:
        path = session.places.socket
        socket = msgspec.structs.replace(socket, path=path, exists=os.path.exists(path))
        status = session.ask(GetStatus(), Status, timeout=STATUS_SECONDS)
    except SleepdError as error:
        is_running = not isinstance(error, DaemonNotRunning | ConfigError)
        return (
            msgspec.structs.replace(socket, problem=error.message, hint=error.hint, is_running=is_running),
            None,
        )
    last = status.last_error
    socket = msgspec.structs.replace(
        socket,
        is_running=True,
        daemon_version=status.version,
        last_error=last.message if last else "",
        last_error_hint=last.hint if last else "",
    )
    return socket, status


def _is_operator(group: str) -> bool | None:
    try:
        gid = grp.getgrnam(group).gr_gid
    except KeyError:
        return True if os.geteuid() == 0 else None
    # Those of this process: a group that was given since the login does not count on the socket's mode yet.
    return os.geteuid() == 0 or gid in (os.getegid(), *os.getgroups())


def _daemon_user(unit: UnitFacts, status: Status | None, state: Path) -> pwd.struct_passwd | None:
    """Whose permissions count: the running daemon's, the unit's, those of the state directory's owner, the caller's."""
    with suppress(OSError, KeyError):
        if status is not None:
            return pwd.getpwuid(Path(f"/proc/{status.pid}").stat().st_uid)
    with suppress(KeyError):
        if unit.load == "loaded":
            return pwd.getpwnam(unit.user or "root")
    with suppress(OSError, KeyError):
        return pwd.getpwuid(state.stat().st_uid)
    with suppress(KeyError):
        return pwd.getpwuid(os.geteuid())
    return None


def _buffer(session: Session) -> BufferFacts:
    with suppress(SleepdError):
        detail: BufferDetail = session.ask(Buffer(), BufferDetail)
        is_there = detail.status.form != "absent"
        return BufferFacts(has_daemon_read=is_there, problem=detail.status.problem)
    return BufferFacts()


def _capability(
    interpreter: str, config: Config, user: pwd.struct_passwd | None, unit: UnitFacts
) -> tuple[Capability | None, str]:
    """What the worker's interpreter reports, asked as the daemon's user where the caller may; or why not."""
    arguments = ["sleepd.worker.probe", "--device", config.worker.torch_device]
    arguments += ["--base", config.model.base, "--cache", config.model.cache_directory]
    arguments += [f"--system-prompt={config.model.system_prompt}", "--thoughts", config.training.thoughts]
    return _answer_of(interpreter, arguments, Capability, user, unit)


def _base_check(
    interpreter: str, config: Config, user: pwd.struct_passwd | None, unit: UnitFacts
) -> tuple[BaseCheck | None, str]:
    """What the worker's interpreter finds in the base without reading its weights, or why it does not."""
    arguments = ["sleepd.worker.programs.check_base", "--device", config.worker.torch_device]
    arguments += ["--quantization", config.model.quantization]
    arguments += ["--base", config.model.base, "--cache", config.model.cache_directory]
    arguments += ["--strategy", config.training.strategy, "--memory-bytes", str(_CHECK_BYTES)]
    longest = longest_experience(config)
    if longest:
        arguments += ["--longest", f"--system-prompt={config.model.system_prompt}"]
        arguments += ["--thoughts", config.training.thoughts]
    return _answer_of(interpreter, arguments, BaseCheck, user, unit, stdin=longest)


def _answer_of(
    interpreter: str,
    arguments: list[str],
    kind: type[_Answer],
    user: pwd.struct_passwd | None,
    unit: UnitFacts,
    *,
    stdin: bytes = b"",
) -> tuple[_Answer | None, str]:
    environment = unit.environment if unit.load == "loaded" else {}
    try:
        return ask_worker(interpreter, arguments, kind, user=user, environment=environment, stdin=stdin), ""
    except NoAnswer as error:
        return None, str(error)


def _free_bytes(directory: Path) -> int | None:
    """Of the disk that holds it, or would hold it."""
    for place in (directory, *directory.parents):
        with suppress(FileNotFoundError, NotADirectoryError):
            try:
                return shutil.disk_usage(place).free
            except PermissionError:
                return None
    return None


def _memory_bytes() -> int | None:
    with suppress(OSError, ValueError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return None


def _is_clock_synchronised() -> bool | None:
    text = answer_of("timedatectl", "show", "--property=NTPSynchronized")
    answer = properties(text).get("NTPSynchronized") if text else None
    return None if answer is None else answer == "yes"


def _last_status(session: Session, status: Status | None) -> datetime | None:
    """The moment of the last sleep, live or as last written."""
    if status is None:
        with suppress(SleepdError):
            status = read_status(session.places.state, DaemonNotRunning("", hint=""))
    return status.last_sleep_at if status else None


def _leftovers(state: Path, *, is_running: bool) -> list[tuple[str, str]]:
    found = []
    with suppress(OSError):
        names = sorted(entry.name for entry in state.iterdir())
        found += [
            (f"{state / name}: a damaged ledger that was moved away", command_line("sudo", "rm", state / name))
            for name in names
            if ".damaged-" in name
        ]
        staged = sorted((state / "staging").iterdir()) if "staging" in names and not is_running else []
        found += [(f"{path}: left by an interrupted cycle", "the next start handles it") for path in staged]
        found += [
            (f"{state / name} has its weights only as a pickle, which is never opened", _UNPICKLE)
            for name in names
            if any((state / name / pickled).exists() for pickled in PICKLED_WEIGHTS)
            and not (state / name / WEIGHTS_FILE).exists()
        ]
    return found + _cron_lines()


_UNPICKLE = "load it once with peft where it was made, and save_pretrained(…, safe_serialization=True)"


def _cron_lines() -> list[tuple[str, str]]:
    texts = {"crontab -l": answer_of("crontab", "-l") or ""}
    for place in map(Path, _CRON_PLACES):
        with suppress(OSError):
            for file in [place] if place.is_file() else sorted(place.iterdir()):
                with suppress(OSError):
                    texts[str(file)] = file.read_text(errors="replace")
    return [
        (
            f"{source} starts the older scheduler as well: {line.strip()}",
            "remove the line: the daemon watches the buffer by itself",
        )
        for source, text in texts.items()
        for line in text.splitlines()
        if not line.lstrip().startswith("#") and any(name in line for name in _OLDER_PROGRAMS)
    ]
