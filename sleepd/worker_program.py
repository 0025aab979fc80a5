"""The worker's interpreter, asked something: as the daemon's user where the caller may, never longer than it should."""

from __future__ import annotations

import os
import pwd
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import msgspec

TOO_SLOW = "no answer within"
"""How the message begins where the interpreter was started and did not end in time."""
_SECONDS = 180.0
"""torch takes half a minute to import from a cold disk, and longer on a small board."""

_T = TypeVar("_T")


class NoAnswer(Exception):
    """It gave none; the message says why."""


def ask_worker(
    interpreter: str,
    arguments: Sequence[str],
    kind: type[_T],
    *,
    user: pwd.struct_passwd | None = None,
    environment: Mapping[str, str] | None = None,
    stdin: bytes = b"",
    seconds: float = _SECONDS,
) -> _T:
    """The answer of ``python -m ARGUMENTS``, its last line on standard output, as a ``kind``.

    Args:
        interpreter: the worker's.
        arguments: the module and what it gets.
        kind: of structure.
        user: the daemon's. Who is not root asks as who they are.
        environment: of the service, beside the caller's own.
        stdin: what it reads.
        seconds: it may take.

    Raises:
        NoAnswer: it cannot be started, hangs, or answers something else.
    """
    become = _identity(user)
    try:
        command, variables = [interpreter, "-P", "-m", *arguments], {**os.environ, **(environment or {})}
        done = subprocess.run(
            command, input=stdin, capture_output=True, timeout=seconds, check=False, env=variables, **become
        )
        return msgspec.json.decode(done.stdout.splitlines()[-1], type=kind)
    except subprocess.TimeoutExpired as error:
        raise NoAnswer(f"{TOO_SLOW} {seconds:g} s") from error
    except OSError as error:
        as_whom = f", asked as {user.pw_name}" if user is not None and become else ""
        raise NoAnswer(f"{error.strerror or error}{as_whom}") from error
    except (IndexError, msgspec.MsgspecError) as error:
        last = done.stderr.decode(errors="replace").strip().splitlines()
        raise NoAnswer(last[-1] if last else f"exit status {done.returncode}") from error


def _identity(user: pwd.struct_passwd | None) -> dict[str, Any]:
    """What makes a process that user's; nothing where the caller is not root, or the user is."""
    if user is None or os.geteuid() != 0 or user.pw_uid == 0:
        return {}
    groups = os.getgrouplist(user.pw_name, user.pw_gid)
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": groups, "cwd": "/"}
