"""Tests of a file that several processes append to and rotate: no line is lost, torn, or there twice."""

from __future__ import annotations

import errno
import fcntl
import multiprocessing
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sleepd.appended_file import AppendedFile
from tests.faults.crash_sweep import strace, writes
from tests.test_crash_sweep import needs_strace
from tests.test_disk_faults import fill

ROOT = Path(__file__).parents[1]
MANY = 10_000
"""Rotated files that are kept: none is removed."""
WRITERS, THREADS, LINES = 3, 2, 60
WRITER = f"""
import sys
from pathlib import Path
from threading import Thread
from sleepd.appended_file import AppendedFile

path, name, max_bytes = sys.argv[1:]
file = AppendedFile(Path(path), mode=0o640, max_bytes=int(max_bytes), backups={MANY}, is_durable=False)

def write(thread):
    for number in range({LINES}):
        file.append(f"{{name}}-{{thread}}-{{number}} ".encode() + b"x" * (number * 997 % 40_000))

threads = [Thread(target=write, args=(each,)) for each in range({THREADS})]
for each in threads:
    each.start()
for each in threads:
    each.join()
"""
KILLED = f"""
import sys
from pathlib import Path
from sleepd.appended_file import AppendedFile

file = AppendedFile(Path(sys.argv[1]), mode=0o640, max_bytes=70, backups={MANY}, is_durable=True)
for number in range(6):
    file.append(b"line %d " % number + b"x" * 20)
"""
"""Every third line rotates the file."""


def make(
    path: Path, *, max_bytes: int = 0, backups: int = MANY, mode: int = 0o640, durable: bool = False
) -> AppendedFile:
    return AppendedFile(path, mode=mode, max_bytes=max_bytes, backups=backups, is_durable=durable)


def files_of(path: Path) -> list[Path]:
    """The file, and what it was before, newest first."""
    rotated = [each for each in path.parent.iterdir() if each.name.startswith(f"{path.name}.")]
    return [path, *sorted(rotated, key=lambda each: int(each.suffix[1:]))]


def lines_of(path: Path) -> list[str]:
    """All lines, oldest first."""
    return [line for each in reversed(files_of(path)) for line in each.read_text().splitlines()]


# --- one after another ---


def test_line_is_appended(tmp_path: Path) -> None:
    """Each line stands behind those before it, and ends with a line end."""
    file = make(tmp_path / "log")
    file.append(b"one")
    file.append(b"two")
    assert (tmp_path / "log").read_bytes() == b"one\ntwo\n"


def test_torn_line_is_ended(tmp_path: Path) -> None:
    """What a killed writer left of its line spoils no line but its own."""
    path = tmp_path / "log"
    path.write_bytes(b"one\ntw")
    make(path).append(b"three")
    assert path.read_bytes() == b"one\ntw\nthree\n"


@pytest.mark.parametrize(
    "content", [b"[]", b' [\n{"id": 1}]\n', b'{"experiences": []}\n', b'{\n  "version": 1', b"\xef\xbb\xbf[", b"\n ["]
)
def test_other_form_is_refused(tmp_path: Path, content: bytes) -> None:
    """No line is appended to an array or an object of experiences: it would make the whole file unreadable."""
    path = tmp_path / "log"
    path.write_bytes(content)
    with pytest.raises(OSError, match="expected JSON lines"):
        make(path).append(b"{}")
    assert path.read_bytes() == content


def test_no_regular_file_is_refused(tmp_path: Path) -> None:
    """A pipe in the file's place is refused at once, without waiting for who reads it."""
    os.mkfifo(tmp_path / "log")
    with pytest.raises(OSError, match="expected a regular file"):
        make(tmp_path / "log").append(b"one")


def test_link_leads_to_its_file(tmp_path: Path) -> None:
    """A link is followed, also to a file that does not exist yet; with a rotation it is refused."""
    (tmp_path / "log").symlink_to(tmp_path / "elsewhere")
    make(tmp_path / "log").append(b"one")
    assert (tmp_path / "elsewhere").read_bytes() == b"one\n"
    with pytest.raises(OSError, match=os.strerror(errno.ELOOP)):
        make(tmp_path / "log", max_bytes=100).append(b"two")


def test_modes_are_kept(tmp_path: Path) -> None:
    """A new file has its mode whatever the umask; one that is there keeps its own, and a rotation hands it on."""
    path = tmp_path / "log"
    before = os.umask(0o077)
    try:
        make(path).append(b"one")
        assert path.stat().st_mode & 0o777 == 0o640
        path.chmod(0o664)
        make(path, max_bytes=5).append(b"two")
    finally:
        os.umask(before)
    assert [each.stat().st_mode & 0o777 for each in files_of(path)] == [0o664, 0o664]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a directory any group")
def test_group_of_the_directory_is_taken(tmp_path: Path) -> None:
    """In a directory with the group of the service, the service may read new files, also those of a rotation."""
    service = 65_432
    os.chown(tmp_path, -1, service)
    tmp_path.chmod(0o2750)
    file = make(tmp_path / "log", max_bytes=4)
    file.append(b"one")
    file.append(b"two")
    assert {(each.stat().st_gid, each.stat().st_mode & 0o777) for each in files_of(tmp_path / "log")} == {
        (service, 0o640)
    }


def test_line_is_synced_when_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With ``is_durable`` each line is synced, and a new file's name too; without it nothing is."""
    synced = list[str]()
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.readlink(f"/proc/self/fd/{descriptor}")))
    make(tmp_path / "fast").append(b"one")
    assert synced == []
    file = make(tmp_path / "log", durable=True)
    file.append(b"one")
    file.append(b"two")
    assert synced == [str(tmp_path), str(tmp_path / "log"), str(tmp_path / "log")]


# --- full disk ---


def test_full_disk_leaves_no_half(small_disk: Path) -> None:
    """A line for which there is too little space raises and leaves nothing; the next one stands behind the last."""
    path = small_disk / "log"
    file = make(path)
    file.append(b"one")
    filler = fill(small_disk)
    os.truncate(filler, filler.stat().st_size - 8192)
    with pytest.raises(OSError, match="No space"):
        file.append(b"x" * 100_000)
    assert path.read_bytes() == b"one\n"
    filler.unlink()
    file.append(b"two")
    assert path.read_bytes() == b"one\ntwo\n"


def test_full_disk_spares_others_line(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where another program has appended meanwhile, without the lock, its line is not cut off with the torn one."""
    path = small_disk / "log"
    file = make(path)
    file.append(b"one")
    write = os.write

    def torn_write(descriptor: int, data: bytes) -> int:
        monkeypatch.setattr(os, "write", no_space)
        return write(descriptor, data[:2])

    def no_space(descriptor: int, data: bytes) -> int:
        monkeypatch.undo()
        with path.open("ab") as other:
            other.write(b"\nother\n")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", torn_write)
    with pytest.raises(OSError, match="No space"):
        file.append(b"two")
    file.append(b"three")
    assert path.read_bytes() == b"one\ntw\nother\nthree\n"


# --- rotation ---


def test_rotation_keeps_the_newest(tmp_path: Path) -> None:
    """No file grows beyond the limit unless one line alone does; of the rotated files the newest stay."""
    path = tmp_path / "log"
    file = make(path, max_bytes=8, backups=2)
    for line in (b"one", b"two", b"three", b"a long line of its own", b"four", b"five"):
        file.append(line)
    assert [each.name for each in files_of(path)] == ["log", "log.1", "log.2"]
    assert [each.read_bytes() for each in files_of(path)] == [b"five\n", b"four\n", b"a long line of its own\n"]
    assert len(list(tmp_path.iterdir())) == 3


def test_failing_rotation_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a rotation fails again and again, the line is refused and no rotated file is pushed out."""
    path = tmp_path / "log"
    file = make(path, max_bytes=4, backups=3)
    for line in (b"one", b"two", b"six", b"ten"):
        file.append(line)

    def refuse(*_: Any) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)
    for _ in range(5):
        with pytest.raises(PermissionError):
            file.append(b"new")
    monkeypatch.undo()
    assert sorted(lines_of(path))[-2:] == ["ten", "two"]
    file.append(b"new")
    assert lines_of(path) == ["two", "six", "ten", "new"]


def test_reader_always_finds_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At no step of a rotation is the file's name without a file."""
    path = tmp_path / "log"
    file = make(path, max_bytes=4)
    steps = list[bool]()

    def watched(step: Callable[..., Any]) -> Callable[..., Any]:
        def done(*arguments: Any) -> Any:
            result = step(*arguments)
            steps.append(path.exists())
            return result

        return done

    file.append(b"one")
    file.append(b"two")
    monkeypatch.setattr(os, "link", watched(os.link))
    monkeypatch.setattr(Path, "replace", watched(Path.replace))
    file.append(b"six")
    assert steps == [True, True, True]


@pytest.mark.parametrize("is_replaced", [True, False])
def test_rotated_by_somebody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_replaced: bool) -> None:
    """Who waits for the lock while the file is renamed writes to the file that has its name then, or to a new one."""
    path = tmp_path / "log"
    file = make(path)
    file.append(b"one")
    lock = fcntl.flock

    def renamed_meanwhile(descriptor: int, operation: int) -> None:
        monkeypatch.setattr(fcntl, "flock", lock)
        path.rename(tmp_path / "log.1")
        if is_replaced:
            path.write_bytes(b"two\n")
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", renamed_meanwhile)
    file.append(b"three")
    assert (tmp_path / "log.1").read_bytes() == b"one\n"
    assert path.read_bytes() == (b"two\nthree\n" if is_replaced else b"three\n")


# --- several at once ---


@pytest.mark.parametrize("max_bytes", [0, 200_000])
def test_processes_append_at_once(tmp_path: Path, max_bytes: int) -> None:
    """Of several processes with several threads each line is there once and whole, also while they rotate the file."""
    path = tmp_path / "log"
    command = [sys.executable, "-c", WRITER, str(path)]
    running = [subprocess.Popen([*command, f"w{number}", str(max_bytes)], cwd=ROOT) for number in range(WRITERS)]
    assert [each.wait() for each in running] == [0] * WRITERS
    expected = {
        f"w{writer}-{thread}-{number} " + "x" * (number * 997 % 40_000)
        for writer in range(WRITERS)
        for thread in range(THREADS)
        for number in range(LINES)
    }
    lines = lines_of(path)
    assert len(lines) == len(expected)
    assert set(lines) == expected
    assert (len(files_of(path)) > 10) == bool(max_bytes)
    assert not max_bytes or max(each.stat().st_size for each in files_of(path)) <= max_bytes


def _append_many(file: AppendedFile, name: str) -> None:
    for number in range(LINES):
        file.append(f"{name}-{number} ".encode() + b"x" * 5000)


def test_forked_processes_share_one(tmp_path: Path) -> None:
    """An object that was made before a fork excludes parent and child from each other."""
    file = make(tmp_path / "log", max_bytes=100_000)
    file.append(b"first")
    child = multiprocessing.get_context("fork").Process(target=_append_many, args=(file, "child"))
    child.start()
    _append_many(file, "parent")
    child.join()
    lines = lines_of(tmp_path / "log")
    assert len(lines) == 1 + 2 * LINES
    assert {len(line.partition(" ")[2]) for line in lines[1:]} == {5000}


# --- killed ---


def killed_at(path: Path, number: int, names: list[str]) -> list[str]:
    """Append six lines, and be killed at the n-th write-like call; 0: at none. Returns the names of these calls."""
    trace = path.parent / f"{path.name}-trace"
    program = [sys.executable, "-B", "-c", KILLED, str(path)]
    subprocess.run([*strace(number, names, trace), *program], cwd=ROOT, check=not number)
    return writes(trace)


@needs_strace
def test_killed_writer_loses_no_line(tmp_path: Path) -> None:
    """Killed at any write, a writer leaves whole lines in their order; the next one goes on behind them."""
    names = killed_at(tmp_path / "whole", 0, [])
    assert {"write", "fsync", "link", "rename"} <= set(names)
    for number in range(1, len(names) + 1, 3):
        path = tmp_path / str(number) / "log"
        path.parent.mkdir()
        killed_at(path, number, names)
        is_named_twice = path.exists() and any(each.samefile(path) for each in files_of(path)[1:])
        before = [line.split()[1] for line in lines_of(path)] if path.exists() else []
        if is_named_twice:
            before = before[: -path.read_bytes().count(b"\n")]
        assert before == [str(each) for each in range(len(before))], (number, names[number - 1])
        make(path, max_bytes=70).append(b"line next " + b"x" * 20)
        after = [line.split()[1] for line in lines_of(path)]
        assert after == [*before, "next"], (number, names[number - 1])
        shutil.rmtree(path.parent)
