"""Tests of the directory watch, on real inotify."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from sleepd.buffer.reading.watch import BufferWatch
from tests.agents import changed, config_for, experiences, write_buffer
from tests.processes import DaemonProcess

QUIET_SECONDS = 0.2


class Ear:
    """Hears changes."""

    def __init__(self) -> None:
        self.changed = asyncio.Event()

    async def hears(self) -> bool:
        """Whether a change is told; waits for as long as it takes."""
        await asyncio.wait_for(self.changed.wait(), 30)
        await asyncio.sleep(QUIET_SECONDS)  # a change is several events; the next test begins with silence
        self.changed.clear()
        return True

    async def hears_nothing(self) -> bool:
        try:
            await asyncio.wait_for(self.changed.wait(), QUIET_SECONDS)
        except TimeoutError:
            return True
        return False


def watched(path: Path, test: Callable[[BufferWatch, Ear], Awaitable[None]]) -> None:
    async def life() -> None:
        ear = Ear()
        watch = BufferWatch((str(path),), ear.changed.set)
        watch.start(asyncio.get_running_loop())
        try:
            await test(watch, ear)
        finally:
            watch.stop()

    asyncio.run(life())


def test_every_way_of_writing_is_told(tmp_path: Path) -> None:
    """Created, appended, rewritten in place, replaced by rename (again and again), deleted."""
    path = tmp_path / "buffer.json"

    async def test(_: BufferWatch, ear: Ear) -> None:
        path.write_text("[]")
        assert await ear.hears()
        with path.open("a") as file:
            file.write(" ")
        assert await ear.hears()
        for _again in range(2):
            (tmp_path / "new").write_text("[]")
            (tmp_path / "new").rename(path)
            assert await ear.hears()
        path.unlink()
        assert await ear.hears()

    watched(path, test)


def test_stopping_leaves_no_thread(tmp_path: Path) -> None:
    """After stop the process has as many threads as before."""

    async def test(watch: BufferWatch, _: Ear) -> None:
        assert threading.active_count() > before

    before = threading.active_count()
    watched(tmp_path / "buffer.json", test)
    assert threading.active_count() == before


def test_reading_and_other_files_are_ignored(tmp_path: Path) -> None:
    """Our own reads do not wake us, nor does the agent's other business in the directory."""
    path = tmp_path / "buffer.json"
    path.write_text("[]")

    async def test(_: BufferWatch, ear: Ear) -> None:
        path.read_text()
        (tmp_path / "other.json").write_text("[]")
        assert await ear.hears_nothing()

    watched(path, test)


def test_link_target_is_watched(tmp_path: Path) -> None:
    """A buffer behind a symbolic link is told when its target changes in another directory."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "real.json").write_text("[]")
    path = tmp_path / "buffer.json"
    path.symlink_to("elsewhere/real.json")

    async def test(_: BufferWatch, ear: Ear) -> None:
        (tmp_path / "elsewhere" / "real.json").write_text("[1]")
        assert await ear.hears()

    watched(path, test)


def test_replaced_directory_is_rewatched(tmp_path: Path) -> None:
    """The watch ends with its directory; ``ensure`` notices that another one stands there."""
    home = tmp_path / "home"
    home.mkdir()

    async def test(watch: BufferWatch, ear: Ear) -> None:
        assert not watch.ensure()
        home.rename(tmp_path / "old")
        home.mkdir()
        assert watch.ensure()
        ear.changed.clear()
        (home / "buffer.json").write_text("[]")
        assert await ear.hears()

    watched(home / "buffer.json", test)


def test_later_directory_is_rewatched(tmp_path: Path) -> None:
    """Without a directory there is no watch and a sentence that says why."""
    home = tmp_path / "home"

    async def test(watch: BufferWatch, ear: Ear) -> None:
        assert "does not exist yet" in watch.problem
        home.mkdir()
        assert watch.ensure()
        assert watch.problem == ""
        (home / "buffer.json").write_text("[]")
        assert await ear.hears()

    watched(home / "buffer.json", test)


def test_reused_inode_is_rewatched(tmp_path: Path) -> None:
    """File systems give a free inode away at once, so the watch itself is asked whether it lives."""
    home = tmp_path / "home"
    home.mkdir()

    async def test(watch: BufferWatch, ear: Ear) -> None:
        home.rmdir()
        home.mkdir()
        async with asyncio.timeout(30):
            while not watch.ensure():  # until the library has seen its directory go
                await asyncio.sleep(0.01)
        ear.changed.clear()
        (home / "buffer.json").write_text("[]")
        assert await ear.hears()

    watched(home / "buffer.json", test)


def test_moved_link_is_rewatched(tmp_path: Path) -> None:
    """A link turned to another file of the same directory is a new name to listen for."""
    path = tmp_path / "buffer.json"
    (tmp_path / "one.json").write_text("[]")
    (tmp_path / "two.json").write_text("[]")
    path.symlink_to("one.json")

    async def test(watch: BufferWatch, ear: Ear) -> None:
        (tmp_path / "link").symlink_to("two.json")
        (tmp_path / "link").rename(path)
        assert await ear.hears()
        assert watch.ensure()
        assert await ear.hears_nothing()
        (tmp_path / "two.json").write_text("[1]")
        assert await ear.hears()

    watched(path, test)


def test_linked_directory_is_watched(tmp_path: Path) -> None:
    """The library follows no links, so the directory behind one is named to it."""
    (tmp_path / "releases").mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "real.json").write_text("[]")
    (tmp_path / "releases" / "buffer.json").symlink_to("../data/real.json")
    (tmp_path / "current").symlink_to("releases")

    async def test(_: BufferWatch, ear: Ear) -> None:
        (tmp_path / "data" / "real.json").write_text("[1]")
        assert await ear.hears()
        (tmp_path / "releases" / "buffer.json").unlink()
        assert await ear.hears()

    watched(tmp_path / "current" / "buffer.json", test)


@pytest.mark.parametrize("name", ["inotify_init", "inotify_add_watch"])
def test_missing_inotify_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """At either limit the watch says so, and trying again at each check leaves no thread and no descriptor behind."""

    def refuse(*_: object) -> int:
        ctypes.set_errno(errno.ENOSPC if name == "inotify_add_watch" else errno.EMFILE)
        return -1

    monkeypatch.setattr(f"watchdog.observers.inotify_c.{name}", refuse)

    async def test(watch: BufferWatch, _: Ear) -> None:
        assert "cannot be watched: inotify" in watch.problem
        before = (threading.active_count(), len(os.listdir("/proc/self/fd")))
        for _try in range(5):
            assert watch.ensure()
        assert (threading.active_count(), len(os.listdir("/proc/self/fd"))) == before
        monkeypatch.undo()
        assert watch.ensure()
        assert watch.problem == ""

    watched(tmp_path / "buffer.json", test)


OTHER_USER = 64_321
"""Nobody's, so that nobody else has taken of its instances."""

TAKE_ALL_INSTANCES = f"""
import ctypes, os, resource, sys
limit = int(open("/proc/sys/fs/inotify/max_user_instances").read())
resource.setrlimit(resource.RLIMIT_NOFILE, (limit + 100, limit + 100))
os.setgroups([]); os.setgid({OTHER_USER}); os.setuid({OTHER_USER})
libc = ctypes.CDLL(None, use_errno=True)
held = 0
while libc.inotify_init() >= 0:
    held += 1
print(held >= limit, flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(os.getuid() != 0, reason="NOT TESTED: another user's daemon needs root")
def test_exhausted_inotify_leaves_the_check(open_directory: Path) -> None:
    """The kernel's own limit for a user, reached by another of its programs: a warning until that program ends."""
    config = config_for(open_directory, min_experiences=1000, check_interval_seconds=1.0)
    config = changed(config, "control", socket=str(open_directory / "run/sleepd.sock"))
    for name in ("state", "run"):
        (open_directory / name).mkdir(exist_ok=True)
        os.chown(open_directory / name, OTHER_USER, OTHER_USER)
    path = open_directory / "buffer.json"
    write_buffer(path, experiences(3))
    taker = subprocess.Popen(
        [sys.executable, "-c", TAKE_ALL_INSTANCES], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert taker.stdout is not None
    assert taker.stdout.readline() == "True\n"
    with DaemonProcess(open_directory, config, user=OTHER_USER) as daemon:
        texts = {each.name: each.text for each in daemon.status().alarms}
        assert "inotify instance limit" in texts["watch_unavailable"]
        write_buffer(path, experiences(5))
        daemon.await_true(lambda: daemon.status().buffer.total == 5, "the periodic check")
        taker.communicate()
        daemon.await_event("watch_unavailable_ended")
        assert "watch_unavailable" not in {each.name for each in daemon.status().alarms}
        assert "Traceback" not in daemon.log()


def test_overflowing_queue_costs_one_check(tmp_path: Path) -> None:
    """A daemon that was stopped while 20,000 events came, of which the kernel keeps 16,384, finds the last state."""
    config = config_for(tmp_path, min_experiences=1000, check_interval_seconds=1.0)
    write_buffer(tmp_path / "buffer.json", experiences(3))
    with DaemonProcess(tmp_path, config) as daemon:
        daemon.await_true(lambda: daemon.status().buffer.total == 3, "the first state")
        daemon.process.send_signal(signal.SIGSTOP)
        for number in range(10_000):
            noise = tmp_path / f"noise{number % 100}"
            noise.touch()
            noise.unlink()
        write_buffer(tmp_path / "buffer.json", experiences(7))
        daemon.process.send_signal(signal.SIGCONT)
        daemon.await_true(lambda: daemon.status().buffer.total == 7, "the last state")
        write_buffer(tmp_path / "buffer.json", experiences(9))
        daemon.await_true(lambda: daemon.status().buffer.total == 9, "a change after that")
        assert "Traceback" not in daemon.log()


def test_impossible_watch_warns_in_status(tmp_path: Path) -> None:
    """Without the directory the periodic check goes on alone, and says so; once it is there the warning ends."""
    config = config_for(tmp_path, min_experiences=1000, check_interval_seconds=1.0)
    config = changed(config, "buffer", path=str(tmp_path / "later" / "buffer.json"))
    with DaemonProcess(tmp_path, config) as daemon:
        (alarm,) = daemon.status().alarms
        assert alarm.name == "watch_unavailable"
        assert "does not exist yet; " in alarm.text
        assert "the periodic check alone" in alarm.text
        (tmp_path / "later").mkdir()
        write_buffer(tmp_path / "later" / "buffer.json", experiences(3))
        daemon.await_true(lambda: daemon.status().buffer.total == 3, "the buffer")
        daemon.await_true(lambda: daemon.status().alarms == [], "the end of the warning")
