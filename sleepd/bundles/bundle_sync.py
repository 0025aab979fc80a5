"""Bundles through a directory that several machines see: Syncthing, NFS, or any program that keeps it the same.

Rule 1: a file is known by its content. Its name, its time and who owns it decide nothing.
Rule 2: only a cycle that was trained here goes up, each one once; what somebody removes is not sent again.
Rule 3: a file that is not whole, or not signed by an allowed signer, is left where it is, and looked at again once it
has changed. Nothing of another machine is ever removed.
Rule 4: what came once does not come again, also under another name, and also after it was removed here.

What is remembered stands in ``sync.json`` in the state directory. It is written after what it speaks of: a cut between
the two sends the same bytes again under the same name, or finds the bundle below ``foreign/``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from sleepd.config.bundle_config import BundleConfig, SyncConfig
from sleepd.errors import DECODE_ERRORS, BundleInvalid, CheckpointInvalid, NothingToDo
from sleepd.files import is_regular, open_regular, read_document, replace_file
from sleepd.protocol.checkpoint.origin import ORIGIN_FILE

from .archive import BundleReader
from .exporting import FindCycle, Outgoing, gather, write_bundle
from .foreign import DIRECTORY, ForeignBundle, import_bundle

MEMORY_FILE: Final = "sync.json"
SUFFIX: Final = ".sagebundle"
MOST_FILES: Final = 1000
"""Entries of the directory that are looked at."""
_REMEMBERED: Final = 10_000
_Stamp = tuple[int, int, int]


class SyncMemory(msgspec.Struct, frozen=True, kw_only=True):
    """``sync.json``."""

    sent: dict[int, str] = {}
    """The bundle of each cycle that went up."""
    taken: tuple[str, ...] = ()
    """Bundles that came, the newest last."""


class Arrival(NamedTuple):
    """A file that looks like a bundle that is not known here."""

    path: Path
    id: str


class BundleSync:
    """What one machine sends and takes.

    Args:
        state: the state directory, whose owner this process is.
        sync: what is configured.
        bundle: the keys.
        find: where a cycle's checkpoint stands.
        note: gets a sentence for the journal.
    """

    def __init__(
        self, state: Path, sync: SyncConfig, bundle: BundleConfig, *, find: FindCycle, note: Callable[[str], None]
    ) -> None:
        self._state = state
        self._directory = Path(sync.directory)
        self._sync = sync
        self._bundle = bundle
        self._find = find
        self._note = note
        self._refused: dict[str, _Stamp] = {}
        """What a refused file looked like, by its name: it is looked at again once it has changed."""

    # What goes up

    def outgoing(self, champion: int | None) -> Outgoing | None:
        """The bundle that is to go up; None: the champion went up already, was not trained here, or no key signs.

        Raises:
            CheckpointInvalid: the champion is damaged, or its lineage is not known.
        """
        if champion is None or not self._bundle.key or champion in self.memory().sent:
            return None
        checkpoint = self._find(champion)
        if checkpoint is None or (checkpoint / ORIGIN_FILE).exists():
            return None
        return gather(champion, self._find, with_texts=False)

    def target(self, outgoing: Outgoing) -> Path:
        """The file that it becomes."""
        name = f"{self._sync.name or os.uname().nodename}-cycle_{outgoing.header.cycle:03d}-{outgoing.id[:12]}{SUFFIX}"
        return self._directory / name

    def send(self, outgoing: Outgoing) -> Path:
        """Write it into the directory under its name, and remove this machine's oldest beyond ``sync.keep``.

        Raises:
            ConfigError: the key cannot sign.
            OSError: the directory cannot be written.
        """
        target = self.target(outgoing)
        write_bundle(outgoing, target, key=self._bundle.key)
        memory = self.memory()
        sent = {**memory.sent, outgoing.header.cycle: outgoing.id}
        self._remember(msgspec.structs.replace(memory, sent=sent))
        kept = {sent[cycle] for cycle in sorted(sent)[-self._sync.keep :]}
        for path, identifier in self._bundles():
            if identifier in sent.values() and identifier not in kept:
                path.unlink(missing_ok=True)
        return target

    # What comes down

    def arrivals(self) -> list[Arrival]:
        """Files of other machines whose bundles are not known here; none where no signer is allowed.

        Which of them are signed is not looked at yet. Two files may begin as one bundle does, and one of them be cut.
        """
        memory = self.memory()
        known = {*memory.sent.values(), *memory.taken}
        found = self._bundles() if self._bundle.allowed_signers else ()
        return [each for each in found if each.id not in known and not self._is_here(each.id)]

    def receive(self, *, at: datetime) -> list[ForeignBundle]:
        """Import every arrival that is whole and signed; what is not is noted once.

        Raises:
            ConfigError: the file of allowed signers cannot be used.
            StateDirectoryUnusable: there is no room for more.
            Busy: another import is under way.
            OSError: a file or the state directory cannot be read or written.
        """
        received = []
        for arrival in self.arrivals():
            if self._refused.get(arrival.path.name) == _stamp(arrival.path) or self._is_here(arrival.id):
                continue
            try:
                received.append(import_bundle(arrival.path, self._state, self._bundle.allowed_signers, at=at))
            except BundleInvalid as error:
                self._refuse(arrival.path, f"not taken: {error.message}")
            except NothingToDo:
                continue  # it came another way meanwhile
            else:
                memory = self.memory()
                taken = (*memory.taken, arrival.id)[-_REMEMBERED:]
                self._remember(msgspec.structs.replace(memory, taken=taken))
        return received

    def _refuse(self, path: Path, text: str) -> None:
        """Note it, once for each content that the file has."""
        stamp = _stamp(path)
        if self._refused.get(path.name) != stamp:
            self._refused[path.name] = stamp
            self._note(text)

    def _is_here(self, identifier: str) -> bool:
        return (self._state / DIRECTORY / identifier).exists()

    def _bundles(self) -> Iterator[Arrival]:
        """Whatever begins as a bundle, by its first files alone. A link, a pipe or a hidden file is none."""
        names = sorted(os.listdir(self._directory))[:MOST_FILES]
        for path in (self._directory / name for name in names if not name.startswith(".")):
            if not is_regular(path):
                continue
            try:
                with open_regular(path) as file:
                    identifier = BundleReader(file, str(path)).front().id
            except BundleInvalid:
                continue  # its beginning has not come yet, or a newer version wrote it
            except OSError as error:
                self._refuse(path, f"not read: {path}: {error.strerror}")
                continue
            yield Arrival(path, identifier)

    # What is remembered

    def memory(self) -> SyncMemory:
        """What went and what came.

        Raises:
            CheckpointInvalid: the file is damaged.
        """
        path = self._state / MEMORY_FILE
        try:
            return msgspec.json.decode(read_document(path), type=SyncMemory)
        except FileNotFoundError:
            return SyncMemory()
        except (OSError, *DECODE_ERRORS) as error:
            hint = f"move {path} away: what is in the directory is then compared anew"
            raise CheckpointInvalid(f"{path}: not understood: {error}", hint=hint) from error

    def _remember(self, memory: SyncMemory) -> None:
        replace_file(self._state / MEMORY_FILE, msgspec.json.encode(memory))


def _stamp(path: Path) -> _Stamp:
    status = path.lstat()
    return status.st_ino, status.st_size, status.st_mtime_ns
