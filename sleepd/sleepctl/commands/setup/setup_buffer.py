"""``sleepctl setup-buffer``: names the agent's buffer in the configuration, and shows its directory to the service.

Two files, both the operator's from then on: a drop-in of the configuration with ``buffer.path``, and, for the system's
service and a buffer in a home, a drop-in of the unit. Neither is ever written by an upgrade.
"""

from __future__ import annotations

import os
import pwd
import re
from pathlib import Path

import msgspec

from sleepd.buffer.reading.buffer_paths import first_place, is_pattern, roots
from sleepd.errors import NotFound, PermissionDenied, UsageError
from sleepd.files import replace_file
from sleepd.protocol.status import SCHEMA
from sleepd.sleepctl.doctor.access import access_within
from sleepd.sleepctl.exit_codes import ExitCode
from sleepd.sleepctl.pages.decision_page import line
from sleepd.sleepctl.places import checked_instance
from sleepd.sleepctl.session import Session
from sleepd.sleepctl.subprocesses import answer_of
from sleepd.text.display import is_shown
from sleepd.text.shell import command_line, quoted

SERVICE_USER = "sage-sleepd"
HOMES = ("/home", "/root", "/run/user")
"""What ``ProtectHome=tmpfs`` empties."""
PRIVATE = ("/tmp", "/var/tmp")  # noqa: S108 (named, not written to)
_DROP_IN = "50-buffer"


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """Which service, and where its files lie."""

    unit: str
    config: Path
    unit_drop_ins: Path | None
    """None: a service of the user's own, which sees what the user sees."""
    instance: str = ""


def setup_buffer(session: Session) -> ExitCode:
    """Write both files, and show the next command."""
    given = session.arguments
    path = Path(os.path.abspath(given.path))
    if not all(map(is_shown, str(path))):
        raise UsageError(
            f"{path}: expected a path that can stand in a line of a file, found control or invisible characters",
            hint="let the agent write to a file with another name",
        )
    target = _target(session, given.instance)
    shown = _to_be_shown(path) if target.unit_drop_ins else []
    notes = _examine(path, shown) if target.unit_drop_ins else []
    written = _write(target, path, shown)
    reload = ["systemctl", *([] if target.unit_drop_ins else ["--user"]), "daemon-reload"]
    answer_of(*reload)
    following = _next_commands(target)
    page = [line(f"wrote {file}") for file in written]
    page += [line(f"note: {note}") for note in notes]
    page += [line(""), line("next:"), *(line(f"  {command}") for command in following)]
    data = {"schema": SCHEMA, "written": [str(file) for file in written], "notes": notes, "next": following}
    session.console.show(data, page)
    return ExitCode.OK


def _target(session: Session, instance: str) -> Target:
    if instance:
        checked_instance(instance)
    if os.geteuid() == 0:
        unit = f"sage-sleepd@{instance}.service" if instance else "sage-sleepd.service"
        directory = Path("/etc/sage-sleepd") / instance
        drop_ins = Path("/etc/systemd/system") / f"{unit}.d"
        return Target(unit=unit, config=directory / "config.toml", unit_drop_ins=drop_ins, instance=instance)
    config = session.places.config_file
    if instance or config is None or not config.is_relative_to(Path.home()):
        raise PermissionDenied(
            "writing the service's configuration needs root",
            hint=command_line("sudo", "sleepctl", "setup-buffer", operands=(session.arguments.path,)),
        )
    return Target(unit="sage-sleepd.service", config=config, unit_drop_ins=None)


def _to_be_shown(path: Path) -> list[Path]:
    """The directories that the service must be shown; of a file a link's own and its target's."""
    directories = dict.fromkeys(root.directory for root in roots(str(path)))
    directories |= {} if is_many(path) else {path.parent: None}
    for directory in directories:
        if any(directory.is_relative_to(private) for private in PRIVATE):
            raise UsageError(
                f"the service cannot see {directory}: it has its own /tmp",
                hint="let the agent write to a directory in its home, or below /srv",
            )
        if not directory.is_dir():
            raise NotFound(
                f"{directory} is no directory", hint=f"mkdir -p {quoted(directory)}, as the user who runs the agent"
            )
    return [each for each in directories if any(each.is_relative_to(home) for home in HOMES)]


def is_many(path: Path) -> bool:
    """Whether it is a directory or a pattern."""
    return path.is_dir() or is_pattern(str(path))


def _examine(path: Path, shown: list[Path]) -> list[str]:
    """What the operator should know; refuses what the service could not read.

    Raises:
        PermissionDenied: the service's user may not read it, however it is shown.
    """
    try:
        user = pwd.getpwnam(SERVICE_USER)
    except KeyError:
        raise NotFound(f"there is no user {SERVICE_USER}", hint="sudo ./install.sh makes it") from None
    place = Path(first_place(str(path)))
    found = access_within(user, place, ".") if is_many(path) else access_within(user, place.parent, place.name)
    if found.blocked_at or (found.kind != "absent" and not found.may_read):
        what = place.parent if found.blocked_at else place
        raise PermissionDenied(
            f"the user {SERVICE_USER} may not read {what}",
            hint=f"chmod o+x {quoted(place.parent)}; chmod o+r {quoted(place)}; "
            "and run the agent with umask 022, so that the file stays readable "
            "(the modes of the directories above it do not matter)",
        )
    notes = [
        f"{each} is a whole home: the service can read all of it; better use a separate directory for the buffer"
        for each in shown
        if each.parent == Path("/home") or each == Path("/root")
    ]
    if found.kind == "absent":
        notes.append(f"{path} does not exist yet; the service reads it as soon as it exists")
    return notes


def _write(target: Target, path: Path, shown: list[Path]) -> list[Path]:
    files: dict[Path, str] = {}
    if target.instance and not target.config.exists():
        from sleepd.sleepctl.first_config import of_instance

        files[target.config] = of_instance(target.instance)
    files[target.config.parent / "conf.d" / f"{_DROP_IN}.toml"] = (
        f"# Written by sleepctl setup-buffer.\n[buffer]\npath = {msgspec.json.encode(str(path)).decode()}\n"
    )
    if shown:
        assert target.unit_drop_ins is not None
        binds = "".join(f"BindReadOnlyPaths=-{_quoted(each)}\n" for each in shown)
        files[target.unit_drop_ins / f"{_DROP_IN}.conf"] = f"# Written by sleepctl setup-buffer.\n[Service]\n{binds}"
    for file, text in files.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        replace_file(file, text.encode(), mode=0o644)
    return list(files)


def _quoted(path: Path) -> str:
    """A path as systemd's unit files take it, whatever is in it (systemd.syntax(7), systemd.exec(5))."""
    text = str(path).replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace(":", "\\:")
    return f'"{text}"' if re.search(r"[\s\"'\\]", text) else text


def _next_commands(target: Target) -> list[str]:
    manager = "sudo systemctl" if target.unit_drop_ins else "systemctl --user"
    is_active = answer_of("systemctl", *([] if target.unit_drop_ins else ["--user"]), "is-active", target.unit)
    unit = target.unit.removesuffix(".service")
    start = f"{manager} restart {unit}" if is_active else f"{manager} enable --now {unit}"
    return [start, command_line("sleepctl", "status", *(["--config", target.config] if target.instance else []))]
