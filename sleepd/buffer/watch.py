"""The inotify watch on the buffer: a shortcut, never the truth. The periodic check finds what it does not report.

The *directory* is watched: a rewrite by rename would end a watch on the file. Reading the file does not wake us. The
watch may be impossible (no directory yet, no inotify instances left) or end silently (directory replaced, queue
overflow); ``ensure`` is called by the periodic check and sets it up again.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers.inotify import InotifyObserver

_CHANGES = ("created", "modified", "moved", "deleted", "closed")


class _Place(NamedTuple):
    """What is watched: directories with device and inode, so that a replaced one is noticed, and names in them."""

    directories: frozenset[tuple[str, int, int]]
    names: frozenset[str]


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
        self._watched: _Place | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.problem = ""
        """Why there is no watch; empty: there is one."""

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Set the watch up; where that fails, ``problem`` has the reason."""
        self._loop = loop
        self._arm()

    def ensure(self) -> bool:
        """Set the watch up again if it is not on the directories as they are now; returns whether it was not."""
        if self._is_hearing() and self._watched == self._place():
            return False
        self._disarm()
        self._arm()
        return True

    def stop(self) -> None:
        """End the watch and its threads."""
        self._disarm()
        self._loop = None

    def _is_hearing(self) -> bool:
        # A thread of its own reads each directory and ends with it. The inode proves nothing: it is used again at once.
        observer = self._observer
        return observer is not None and observer.is_alive() and all(one.is_alive() for one in observer.emitters)

    def _arm(self) -> None:
        place = self._place()
        if not place.directories:
            self.problem = f"{self._path.parent} does not exist yet"
            return
        observer = None
        try:
            observer = InotifyObserver(generate_full_events=False)
            handler = _Handler(place.names, self._wake)
            for directory, _, _ in place.directories:
                observer.schedule(handler, directory, recursive=False)
            observer.start()
        except (OSError, RuntimeError) as error:  # RuntimeError: no thread could be started
            self.problem = f"{self._path.parent} cannot be watched: {getattr(error, 'strerror', None) or error}"
            if observer is not None:
                observer.stop()  # a new observer holds descriptors and a thread already, and we try again for ever
            return
        self._observer, self._watched, self.problem = observer, place, ""

    def _disarm(self) -> None:
        if self._observer is not None:
            self._observer.stop()
            self._observer.join()
        self._observer, self._watched = None, None

    def _place(self) -> _Place:
        """Where the file and, if it is a symbolic link, its target are now."""
        # Resolved: the library does not follow a directory that is a link itself.
        link = os.path.join(os.path.realpath(self._path.parent), self._path.name)
        target = os.path.realpath(self._path)
        found = set()
        for directory in {os.path.dirname(link), os.path.dirname(target)}:
            try:
                status = os.stat(directory)
            except OSError:
                continue  # it comes back, or the periodic check reports what is wrong with it
            found.add((directory, status.st_dev, status.st_ino))
        return _Place(frozenset(found), frozenset({os.path.basename(link), os.path.basename(target)}))

    def _wake(self) -> None:
        """From the observer's thread: notify the loop, unless it is closing."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._on_change)


class _Handler(FileSystemEventHandler):  # type: ignore[misc]  # the library ships no types to mypy here
    """Tells changes of the named files from everything else in the directory."""

    def __init__(self, names: frozenset[str], wake: Callable[[], None]) -> None:
        self._names = names
        self._wake = wake

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Called by the library for each event; opening and reading are no changes."""
        if event.event_type not in _CHANGES:
            return
        paths = (event.src_path, getattr(event, "dest_path", ""))
        if any(os.path.basename(os.fsdecode(path)) in self._names for path in paths if path):
            self._wake()
