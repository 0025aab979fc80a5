"""The inotify watch on the buffer: a shortcut, never the truth. The periodic check finds what it does not tell.

The *directory* is watched: a rewrite by rename would end a watch on the file. Reading the file does not wake us. The
watch may be impossible (no directory yet, no inotify instances left) or end silently (directory replaced, queue
overflow); ``ensure`` is called by the periodic check and sets it up again.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers.inotify import InotifyObserver

_CHANGES = ("created", "modified", "moved", "deleted", "closed")


class BufferWatch:
    """Watches one file by its directory, and that of its target if it is a symbolic link.

    Args:
        path: the file; neither it nor its directory need exist.
        on_change: called in the event loop after each change.
    """

    def __init__(self, path: Path, on_change: Callable[[], None]) -> None:
        self._path = path
        self._on_change = on_change
        self._observer: InotifyObserver | None = None
        self._watched: set[tuple[str, int, int]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.problem = ""
        """Why there is no watch; empty: there is one."""

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Set the watch up; where that fails, ``problem`` says why."""
        self._loop = loop
        self._arm()

    def ensure(self) -> bool:
        """Set the watch up again if it is not on the directories as they are now; returns whether it was not."""
        if self._observer is not None and self._observer.is_alive() and self._watched == self._directories():
            return False
        self._disarm()
        self._arm()
        return True

    def stop(self) -> None:
        """End the watch and its threads."""
        self._disarm()
        self._loop = None

    def _arm(self) -> None:
        names = {self._path.name, os.path.basename(os.path.realpath(self._path))}
        directories = self._directories()
        if not directories:
            self.problem = f"{self._path.parent} does not exist yet"
            return
        observer = InotifyObserver(generate_full_events=False)
        handler = _Handler(names, self._wake)
        try:
            for directory, _, _ in directories:
                observer.schedule(handler, directory, recursive=False)
            observer.start()
        except OSError as error:
            self.problem = f"{self._path.parent} cannot be watched: {error.strerror or error}"
            observer.unschedule_all()
            return
        self._observer, self._watched, self.problem = observer, directories, ""

    def _disarm(self) -> None:
        if self._observer is not None:
            self._observer.stop()
            self._observer.join()
        self._observer, self._watched = None, set()

    def _directories(self) -> set[tuple[str, int, int]]:
        """The directories to watch, with device and inode, so that a replaced one is noticed."""
        found = set()
        for directory in {os.path.dirname(self._path), os.path.dirname(os.path.realpath(self._path))}:
            try:
                status = os.stat(directory)
            except OSError:
                continue  # it comes back, or the periodic check says what is wrong with it
            found.add((directory, status.st_dev, status.st_ino))
        return found

    def _wake(self) -> None:
        """From the observer's thread: tell the loop, unless it is closing."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._on_change)


class _Handler(FileSystemEventHandler):  # type: ignore[misc]  # the library ships no types to mypy here
    """Tells changes of the named files from everything else in the directory."""

    def __init__(self, names: set[str], wake: Callable[[], None]) -> None:
        self._names = names
        self._wake = wake

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Called by the library for each event; opening and reading are no changes."""
        if event.event_type not in _CHANGES:
            return
        paths = (event.src_path, getattr(event, "dest_path", ""))
        if any(os.path.basename(os.fsdecode(path)) in self._names for path in paths if path):
            self._wake()
