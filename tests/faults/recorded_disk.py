"""File operations recorded by strace, and the disk states that a loss of power after each of them may leave.

The model, which is stricter than journaling file systems are and looser than none: what was changed in directories
(create, rename, link, unlink, mkdir) is kept in order, so that a loss of power leaves a prefix of it, and at least all
up to the last change of a directory that was synced since. What was written into a file is kept as of its last sync; of
what came later, anything from nothing to all may be there, also cut off in the middle. A new file that was never synced
may be empty under its final name. SQLite's shared memory (``-shm``) is never kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

TRACED = (
    "openat,write,writev,pwrite64,ftruncate,fsync,fdatasync,rename,renameat,renameat2,link,linkat,symlink,symlinkat,"
    "unlink,unlinkat,mkdir,mkdirat,rmdir"
)
_LINE = re.compile(r"^(\d+) +(\w+)\((.*)\) += (-?\d+)")
_UNFINISHED = " <unfinished ...>"
_RESUMED = re.compile(r"^(\d+) +<\.\.\. \w+ resumed>(.*)$")
_FIRST_PATH = re.compile(r'^(?:AT_FDCWD(?:<[^>]*>)?|\d+<([^>]*)>), "([^"]*)"')
_DESCRIPTOR = re.compile(r"^(\d+)<([^>]*)>")
_QUOTED = re.compile(r'"([^"]*)"')


def recording(trace: Path) -> list[str]:
    """The start of a command whose file operations are written to ``trace``, those of its children too."""
    return [
        "strace",
        "-f",
        "-qq",
        "-y",
        "-xx",
        "-s",
        "100000000",
        "-o",
        str(trace),
        "-e",
        "signal=none",
        "-e",
        f"trace={TRACED}",
    ]


@dataclass(eq=False)
class Inode:
    """One file: what is in it, and what of that is promised."""

    data: bytearray = field(default_factory=bytearray)
    durable: bytes = b""


@dataclass
class Change:
    """One change of directories: ``path`` is ``what`` now (None: gone), and in a rename ``old`` is gone too."""

    path: str
    what: Inode | str | None
    is_directory: bool = False
    old: str = ""

    @property
    def parents(self) -> set[str]:
        return {str(Path(path).parent) for path in (self.path, self.old) if path}


class Disk:
    """What one directory holds, operation by operation. Paths are relative to it."""

    def __init__(self, root: str) -> None:
        self._root = root
        self.changes: list[Change] = []
        self.promised = 0
        """So many changes survive."""
        self._offsets: dict[tuple[str, str], int] = {}

    def replay(self, trace: Path) -> Iterator[str]:
        """Apply the recorded operations one by one; yields the name of each that changed or promised something."""
        begun: dict[str, str] = {}
        for text in trace.read_text().splitlines():
            line = text
            if line.endswith(_UNFINISHED):
                # Another process came in between; the rest of the call follows further down.
                begun[line.split(" ", 1)[0]] = line.removesuffix(_UNFINISHED)
                continue
            if resumed := _RESUMED.match(line):
                line = begun.pop(resumed[1], "") + resumed[2]
            match = _LINE.match(line)
            if match and int(match[4]) >= 0 and self._apply(match[1], match[2], match[3], int(match[4])):
                yield match[2]

    # --- one operation ---

    def _apply(self, process: str, name: str, arguments: str, result: int) -> bool:
        quoted = [_text(text) for text in _QUOTED.findall(arguments)]
        if name == "openat":
            return self._open(process, arguments, result)
        if name in ("write", "pwrite64", "ftruncate", "fsync", "fdatasync"):
            return self._on_descriptor(process, name, arguments, result)
        if name in ("rename", "renameat", "renameat2"):
            return self._rename(quoted[0], quoted[1])
        if name in ("link", "linkat"):
            old, new = self._inside(quoted[0]), self._inside(quoted[1])
            return bool(old and new) and self._change(Change(new, self.now()[old]))
        if name in ("symlink", "symlinkat"):
            return self._change(Change(self._inside(quoted[1]), quoted[0]))
        if name in ("mkdir", "mkdirat"):
            return self._change(Change(self._inside(quoted[0]), None, is_directory=True))
        if name in ("unlink", "unlinkat", "rmdir"):
            match = _FIRST_PATH.match(arguments)
            within = f"{_text(match[1])}/" if match and match[1] and not quoted[0].startswith("/") else ""
            return self._change(Change(self._inside(within + quoted[0]), None))
        raise AssertionError(f"{name} is not understood")

    def _open(self, process: str, arguments: str, descriptor: int) -> bool:
        match = _FIRST_PATH.match(arguments)
        if match is None or not ("O_WRONLY" in arguments or "O_RDWR" in arguments):
            return False
        within = f"{_text(match[1])}/" if match[1] and not _text(match[2]).startswith("/") else ""
        path = self._inside(within + _text(match[2]))
        if not path:
            return False
        there = self.now().get(path)
        is_new = there is None and "O_CREAT" in arguments
        if is_new:
            self._change(Change(path, Inode()))
        elif isinstance(there, Inode) and "O_TRUNC" in arguments:
            there.data.clear()
        self._offsets[process, str(descriptor)] = 0
        return is_new or "O_TRUNC" in arguments

    def _on_descriptor(self, process: str, name: str, arguments: str, result: int) -> bool:
        match = _DESCRIPTOR.match(arguments)
        path = self._inside(_text(match[2])) if match else ""
        if match is None or not (path or _text(match[2]) == self._root):
            return False
        inode = self.now().get(path)
        if name in ("fsync", "fdatasync"):
            if isinstance(inode, Inode):
                inode.durable = bytes(inode.data)
            else:
                self._promise(path or ".")
            return True
        if not isinstance(inode, Inode):
            return False
        if name == "ftruncate":
            size = int(arguments.rsplit(", ", 1)[1])
            inode.data[size:] = b"\0" * max(0, size - len(inode.data))
            return True
        content = _bytes(_QUOTED.findall(arguments)[0])[:result]
        key = (process, match[1])
        at = int(arguments.rsplit(", ", 1)[1]) if name == "pwrite64" else self._offsets.get(key, 0)
        if name == "write":
            self._offsets[key] = at + result
        if len(inode.data) < at:
            inode.data.extend(b"\0" * (at - len(inode.data)))
        inode.data[at : at + len(content)] = content
        return True

    def _rename(self, old: str, new: str) -> bool:
        inside = self._inside(old), self._inside(new)
        if not all(inside):
            return False
        now = self.now()
        source, target = inside
        for path in [path for path in now if path.startswith(f"{source}/")]:
            moved = f"{target}{path.removeprefix(source)}"
            what = now[path]
            # Not a change of its own: it moves with its directory.
            self.changes.append(Change(moved, what, is_directory=what is None, old=path))
        what = now[source]
        return self._change(Change(target, what, is_directory=what is None, old=source))

    def _change(self, change: Change) -> bool:
        if not change.path:
            return False
        self.changes.append(change)
        return True

    def _promise(self, directory: str) -> None:
        for number, change in enumerate(self.changes, start=1):
            if directory in change.parents:
                self.promised = max(self.promised, number)

    def _inside(self, path: str) -> str:
        """Relative to the root; empty: it lies outside."""
        return path.removeprefix(f"{self._root}/") if path.startswith(f"{self._root}/") else ""

    # --- what is there ---

    def now(self) -> dict[str, Inode | str | None]:
        """Every path with its file, its link's target, or None for a directory."""
        return self._after(len(self.changes))

    def _after(self, count: int) -> dict[str, Inode | str | None]:
        there: dict[str, Inode | str | None] = {}
        for change in self.changes[:count]:
            if change.old:
                there.pop(change.old, None)
            if change.what is not None or change.is_directory:
                there[change.path] = change.what
            else:
                there.pop(change.path, None)
        return there

    def write_state(self, target: Path, *, kind: str, random: Random) -> None:
        """Make in ``target`` what a loss of power may leave now.

        ``kind``: ``all`` is there; ``least``, only what was promised; ``names``, all changes of directories and only
        the promised content; ``mixed``, anything between.
        """
        last = len(self.changes)
        count = {"least": self.promised, "mixed": random.randint(self.promised, last)}.get(kind, last)
        while 0 < count < last and self._is_within_a_move(count):
            count += 1
        target.mkdir()
        for path, what in sorted(self._after(count).items()):
            if path.endswith("-shm"):
                continue
            place = target / path
            if what is None:
                place.mkdir(exist_ok=True)
            elif isinstance(what, str):
                place.symlink_to(what)
            else:
                place.write_bytes(_content(what, kind, random))

    def _is_within_a_move(self, count: int) -> bool:
        """What lies in a directory moves with it: the changes before the directory's own are part of it."""
        following = self.changes[count]
        return bool(following.old) and any(
            change.old and self.changes[count - 1].old.startswith(f"{change.old}/")
            for change in self.changes[count : count + 1000]
        )


def _content(inode: Inode, kind: str, random: Random) -> bytes:
    if kind == "all":
        return bytes(inode.data)
    if kind in ("least", "names"):
        return inode.durable
    if inode.data.startswith(inode.durable):
        # Only added to since its last sync: anything between is possible.
        return bytes(inode.data[: random.randint(len(inode.durable), len(inode.data))])
    return random.choice([inode.durable, bytes(inode.data)])


def _bytes(hexadecimal: str) -> bytes:
    return bytes.fromhex(hexadecimal.replace("\\x", ""))


def _text(hexadecimal: str | None) -> str:
    return (
        _bytes(hexadecimal or "").decode(errors="surrogateescape")
        if hexadecimal and hexadecimal.startswith("\\x")
        else hexadecimal or ""
    )
