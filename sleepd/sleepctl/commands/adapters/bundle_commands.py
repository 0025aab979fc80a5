"""``sleepctl bundle``: adapters to other machines, and from them."""

from __future__ import annotations

import errno
import os
import pwd
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from sleepd.bundles.exporting import gather, write_bundle
from sleepd.bundles.foreign import find_foreign, foreign_bundles, import_bundle, look_at, remove_foreign
from sleepd.errors import ConversionFailed, NotFound, PermissionDenied, StateDirectoryUnusable, UsageError
from sleepd.protocol.control import Judge
from sleepd.protocol.status import SCHEMA, RunResult
from sleepd.sleepctl.exit_codes import ExitCode
from sleepd.sleepctl.offline_cycle import champion_in, cycle_directory
from sleepd.sleepctl.pages.bundle_page import ID_DIGITS, foreign_page, list_page, written_page
from sleepd.sleepctl.pages.decision_page import line, run_page
from sleepd.sleepctl.session import Session
from sleepd.text.shell import command_line


def export(session: Session) -> ExitCode:
    """One cycle as a signed file."""
    arguments, state = session.arguments, session.places.state
    target = Path(arguments.to).absolute()
    if target.exists() or target.is_symlink():
        raise UsageError(f"{target} is there already, and nothing is overwritten", hint="name a new one with --to")
    cycle = arguments.cycle or champion_in(state)
    if cycle is None:
        raise NotFound(f"{state}: no adapter is in use", hint="name a cycle: sleepctl bundle export N --to FILE")
    key = session.places.load_config().config.bundle.key
    with files_may_fail(target):
        outgoing = gather(cycle, partial(cycle_directory, state), with_texts=arguments.with_texts)
        written = write_bundle(outgoing, target, key=key)
    session.console.show({"schema": SCHEMA, "bundle": written, "file": str(target)}, written_page(written, str(target)))
    return ExitCode.OK


def import_(session: Session) -> ExitCode:
    """One file as a candidate below ``foreign/``."""
    arguments, state = session.arguments, session.places.state
    require_owner(state, "bundle", "import", operand=arguments.file)
    signers = session.places.load_config().config.bundle.allowed_signers
    file = Path(arguments.file)
    with files_may_fail(file):
        bundle = import_bundle(file, state, signers, at=session.clock.now())
    short = bundle.id[:ID_DIGITS]
    next_step = (
        f"it is a candidate and not in use; have it judged: {command_line('sleepctl', 'bundle', 'judge', short)}"
    )
    page = [*foreign_page(bundle), line(next_step, "green")]
    session.console.show({"schema": SCHEMA, "bundle": bundle}, page)
    session.console.note_undo(command_line("sleepctl", "bundle", "remove", short))
    return ExitCode.OK


def show(session: Session) -> ExitCode:
    """What a file holds."""
    signers = session.places.load_config().config.bundle.allowed_signers
    file = Path(session.arguments.file)
    with files_may_fail(file):
        bundle = look_at(file, signers)
    session.console.show({"schema": SCHEMA, "bundle": bundle}, foreign_page(bundle))
    return ExitCode.OK


def judge(session: Session) -> ExitCode:
    """A cycle of the daemon that measures what was imported."""
    result: RunResult = session.ask(Judge(bundle=session.arguments.id), RunResult)
    session.console.show(result, run_page(result))
    session.console.note("watch the cycle: sleepctl status")
    session.console.note_undo(result.undo)
    return ExitCode.OK


def list_(session: Session) -> ExitCode:
    """What was imported."""
    state = session.places.state
    with files_may_fail(state):
        bundles = foreign_bundles(state)
    session.console.show({"schema": SCHEMA, "bundles": bundles}, list_page(bundles, session.clock.now()))
    return ExitCode.OK


def remove(session: Session) -> ExitCode:
    """Delete what was imported."""
    state, beginning = session.places.state, session.arguments.id
    require_owner(state, "bundle", "remove", operand=beginning)
    with files_may_fail(state):
        directory = find_foreign(state, beginning)
        remove_foreign(directory)
    session.console.show({"schema": SCHEMA, "removed": directory.name}, [line(f"bundle {directory.name} is removed")])
    return ExitCode.OK


def require_owner(state: Path, *command: str, operand: str = "") -> None:
    """Files of another user in the state directory would keep the service from its work: only its owner writes there.

    Raises:
        StateDirectoryUnusable: it is not there.
        PermissionDenied: it belongs to somebody else.
    """
    try:
        owner = state.stat().st_uid
    except OSError as error:
        text = f"{state}: the state directory cannot be found: {error.strerror}"
        raise StateDirectoryUnusable(text, hint="name it with --state") from error
    if owner != os.geteuid():
        raise PermissionDenied(
            f"{state} belongs to user {_user(owner)}, and what is written there must too",
            hint=command_line("sudo", "-u", _user(owner), "sleepctl", *command, operands=(operand,) if operand else ()),
        )


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"#{number}"


@contextmanager
def files_may_fail(path: Path) -> Iterator[None]:
    """In this context an error of the operating system becomes one of ours, which names the file and what to do."""
    try:
        yield
    except PermissionError as error:
        hint = "sudo usermod -aG sage-sleepd $USER, then log in again (or once: sudo sleepctl …)"
        raise PermissionDenied(f"{error.filename or path}: this user may not open it", hint=hint) from error
    except (FileNotFoundError, NotADirectoryError) as error:
        place = path if os.path.isdir(path.parent) else path.parent
        text = f"{place}: {error.strerror}"
        raise NotFound(text, hint=f"check the name: {command_line('ls', '-l', place.parent)}") from error
    except OSError as error:
        text = f"{error.filename or path}: {error.strerror or error}"
        is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        hint = f"make space: {command_line('df', '-h', path.parent)}" if is_full else command_line("ls", "-ld", path)
        raise ConversionFailed(text, hint=hint) from error
