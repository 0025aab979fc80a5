"""The program rclone: it reaches Dropbox, S3, WebDAV and many others, one call for each step.

Rule 1: its configuration is the operator's file alone, and it asks nobody for a password.
Rule 2: every call ends: by its own limits on a line that is silent, and by a limit on the whole call.
Rule 3: what it says is passed on in its own words; which step failed is said before them.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path
from typing import IO, Final

import msgspec

from sleepd.config.bundle_config import SyncConfig
from sleepd.errors import DECODE_ERRORS, ConfigError, RemoteFailed
from sleepd.text.shell import command_line, quoted

CONFIG_FILE: Final = "rclone.conf"
"""In the state directory, where no other is named: rclone renews tokens in it."""
INSTALL: Final = "sudo apt install rclone"
_SMALL_SECONDS: Final = 180.0
"""For a call that moves next to nothing."""
_LARGE_SECONDS: Final = 6 * 3600.0
"""For a call that moves a bundle. What has come by then stays, and the next round goes on from there."""
_NOT_THERE: Final = (3, 4)
"""rclone's exit codes for a folder and for a file that does not exist."""
_MOST_LISTED_BYTES: Final = 8 * 2**20
_SAID_BYTES: Final = 4096
_LIMITS: Final = ("--contimeout=20s", "--timeout=60s", "--retries=3", "--low-level-retries=3", "--log-level=ERROR")


class Listed(msgspec.Struct, frozen=True):
    """A file, as ``rclone lsjson`` lists it."""

    name: str = msgspec.field(name="Name")
    size: int = msgspec.field(name="Size", default=-1)
    changed: str = msgspec.field(name="ModTime", default="")


def config_file(sync: SyncConfig, state: Path) -> Path:
    """Where rclone's own configuration stands."""
    return Path(sync.rclone_config) if sync.rclone_config else state / CONFIG_FILE


class Rclone:
    """One folder of one remote.

    Args:
        sync: the remote, its configuration, and how fast bundles may move.
        state: the state directory.
    """

    def __init__(self, sync: SyncConfig, state: Path) -> None:
        self.folder = sync.remote
        self._config = config_file(sync, state)
        self._speed = f"--bwlimit={sync.mib_per_second:g}M" if sync.mib_per_second else "--bwlimit=off"

    def place(self, name: str) -> str:
        """A file of the folder, as rclone is told it."""
        return f"{self.folder}{'' if self.folder.endswith((':', '/')) else '/'}{name}"

    def listed(self) -> list[Listed]:
        """All files of the folder; none where it is not there yet.

        Raises:
            RemoteFailed: rclone could not list it.
            ConfigError: rclone cannot be used.
        """
        with tempfile.TemporaryFile() as answer:
            flags = ["--files-only", "--no-mimetype", "--use-server-modtime"]
            if not self._run("list", self.folder, ["lsjson", *flags, "--", self.folder], into=answer, may_lack=True):
                return []
            answer.seek(0)
            content = answer.read(_MOST_LISTED_BYTES + 1)
        try:
            if len(content) <= _MOST_LISTED_BYTES:
                return msgspec.json.decode(content, type=list[Listed])
            problem = f"more than {_MOST_LISTED_BYTES} bytes"
        except DECODE_ERRORS as error:
            problem = str(error)
        text = f"{self.folder}: rclone's list of the files is not understood: {problem}"
        raise RemoteFailed(text, hint=f"{self._by_hand()}; use a folder for bundles alone")

    def beginning(self, name: str, most: int) -> bytes:
        """The first bytes of a file.

        Raises:
            RemoteFailed, ConfigError: as ``listed``.
        """
        with tempfile.TemporaryFile() as answer:
            self._run("read", name, ["cat", f"--head={most}", "--", self.place(name)], into=answer)
            answer.seek(0)
            return answer.read(most)

    def append(self, name: str, target: IO[bytes], *, offset: int, most: int) -> None:
        """Append to ``target`` what the file holds behind ``offset``.

        Raises:
            RemoteFailed, ConfigError: as ``listed``; what has come by then stays in ``target``.
        """
        flags = [f"--offset={offset}", f"--count={most}"]
        self._run("read", name, ["cat", *flags, "--", self.place(name)], into=target, seconds=_LARGE_SECONDS)

    def upload(self, file: Path, name: str) -> None:
        """Copy a file of this machine.

        Raises:
            RemoteFailed, ConfigError: as ``listed``.
        """
        self._run("write", name, ["copyto", "--", str(file), self.place(name)], seconds=_LARGE_SECONDS)

    def rename(self, name: str, new: str) -> None:
        """Give a file another name.

        Raises:
            RemoteFailed, ConfigError: as ``listed``.
        """
        self._run("rename", name, ["moveto", "--", self.place(name), self.place(new)], seconds=_LARGE_SECONDS)

    def delete(self, name: str) -> None:
        """Remove a file; one that is gone is no error.

        Raises:
            RemoteFailed, ConfigError: as ``listed``.
        """
        if any(each.name == name for each in self.listed()):
            self._run("remove", name, ["deletefile", "--", self.place(name)], may_lack=True)

    def _run(
        self,
        verb: str,
        name: str,
        arguments: list[str],
        *,
        into: IO[bytes] | int = subprocess.DEVNULL,
        seconds: float = _SMALL_SECONDS,
        may_lack: bool = False,
    ) -> bool:
        """One call; False: what was asked about is not there, where that is no error."""
        program = shutil.which("rclone")
        if program is None:
            raise ConfigError("rclone is not installed: it carries bundles to sync.remote", hint=INSTALL)
        refuse_open_config(self._config)
        place = name if name == self.folder else self.place(name)
        own = [f"--config={self._config}", "--ask-password=false", self._speed, *_LIMITS]
        with tempfile.TemporaryFile() as said:
            try:
                done = subprocess.run(
                    [program, arguments[0], *own, *arguments[1:]],
                    stdin=subprocess.DEVNULL,
                    stdout=into,
                    stderr=said,
                    timeout=seconds,
                    check=False,
                )
            except subprocess.TimeoutExpired as error:
                text = f"rclone could not {verb} {place}: it did not end within {seconds:g} s"
                raise RemoteFailed(text, hint=self._by_hand()) from error
            if done.returncode and not (may_lack and done.returncode in _NOT_THERE):
                why = _last_line(said) or f"exit status {done.returncode}"
                raise RemoteFailed(f"rclone could not {verb} {place}: {why}", hint=self._by_hand())
        return done.returncode == 0

    def _by_hand(self) -> str:
        return command_line("rclone", "--config", self._config, "lsf", self.folder)


def refuse_open_config(path: Path) -> None:
    """Refuse a file with the keys of a remote that others may read; one that is not there is none.

    Raises:
        ConfigError: others may read it, or it cannot be looked at.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        text = f"{path}: cannot be looked at: {error.strerror}"
        raise ConfigError(text, hint="sync.rclone_config names rclone's own configuration") from error
    if not stat.S_ISREG(mode) or mode & 0o077:
        text = f"{path}: expected a file that only its owner may read, found mode {stat.S_IMODE(mode):o}"
        raise ConfigError(text, hint=f"sudo chmod 600 {quoted(str(path))}: it holds the keys of the remote")


def _last_line(said: IO[bytes]) -> str:
    """What it said last, without the date that rclone puts before it."""
    said.seek(max(0, said.seek(0, os.SEEK_END) - _SAID_BYTES))
    lines = [line.strip() for line in said.read().decode("utf-8", "replace").splitlines() if line.strip()]
    last = "".join(sign if sign.isprintable() else "?" for sign in lines[-1]) if lines else ""
    words = last.split(" ", 2)
    return words[2] if len(words) == 3 and words[0].count("/") == 2 else last
