"""The inotify watch on the buffer: a shortcut, never the truth. The periodic check finds what it does not report.

Of a file the *directory* is watched: a rewrite by rename would end a watch on the file. Of a directory or a pattern
everything below it is. Reading a file does not wake us. The watch may be impossible (no directory yet, no inotify
instances left) or end silently (directory replaced, queue overflow); ``ensure`` is called by the periodic check and
sets it up again.
"""

from __future__ import annotations

import asyncio
import os
import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers.inotify import InotifyObserver

from .buffer_paths import is_rating, roots

_CHANGES = ("created", "modified", "moved", "deleted", "closed")


class _Watched(NamedTuple):
    """A directory that is watched, with device and inode, so that a replaced one is noticed."""

    directory: str
    device: int
    inode: int
    names: frozenset[str]
    """Files in it; empty: whatever is in it and below it."""


class BufferWatch:
    """Watches the files of a buffer by their directories.

    Args:
        paths: see ``buffer_paths``; none of them need exist, nor its directory.
        on_change: called in the event loop after each change.
    """

    def __init__(self, paths: Sequence[str], on_change: Callable[[], None]) -> None:
        self._paths = paths
        self._on_change = on_change
        self._observer: InotifyObserver | None = None
        self._watched: frozenset[_Watched] | None = None
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
        if not place:
            self.problem = f"{self._where()} does not exist yet"
            return
        observer = None
        # A directory that is made inside a new one is reported twice, and watched once: no fault.
        warnings.filterwarnings("ignore", message="Callback with id", category=RuntimeWarning)
        try:
            observer = InotifyObserver(generate_full_events=False)
            for each in place:
                observer.schedule(_Handler(each.names, self._wake), each.directory, recursive=not each.names)
            observer.start()
        except (OSError, RuntimeError) as error:  # RuntimeError: no thread could be started
            self.problem = f"{self._where()} cannot be watched: {getattr(error, 'strerror', None) or error}"
            if observer is not None:
                observer.stop()  # a new observer holds descriptors and a thread already, and we try again for ever
            return
        self._observer, self._watched, self.problem = observer, place, ""

    def _disarm(self) -> None:
        if self._observer is not None:
            self._observer.stop()
            self._observer.join()
        self._observer, self._watched = None, None

    def _where(self) -> str:
        return ", ".join(dict.fromkeys(str(root.directory) for path in self._paths for root in roots(path)))

    def _place(self) -> frozenset[_Watched]:
        """Where the files are now; of a symbolic link its target too."""
        found: dict[str, _Watched] = {}
        for root in (root for path in self._paths for root in roots(path)):
            directory = str(root.directory)
            try:
                status = os.stat(directory)
            except OSError:
                continue  # it comes back, or the periodic check reports what is wrong with it
            before = found.get(directory)
            names = root.names | before.names if before and before.names and root.names else root.names
            if before is None or before.names:
                found[directory] = _Watched(directory, status.st_dev, status.st_ino, names)
        return frozenset(found.values())

    def _wake(self) -> None:
        """From the observer's thread: notify the loop, unless it is closing."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._on_change)


class _Handler(FileSystemEventHandler):  # type: ignore[misc]  # the library ships no types to mypy here
    """Tells changes of the named files from everything else in the directory; without names all are changes."""

    def __init__(self, names: frozenset[str], wake: Callable[[], None]) -> None:
        self._names = names
        self._wake = wake

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Called by the library for each event; opening and reading are no changes."""
        if event.event_type not in _CHANGES:
            return
        paths = (event.src_path, getattr(event, "dest_path", ""))
        names = {os.path.basename(os.fsdecode(path)) for path in paths if path}
        if not self._names or not names.isdisjoint(self._names) or any(map(is_rating, names)):
            self._wake()
