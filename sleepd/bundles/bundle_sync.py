"""Bundles between machines: through a directory that several of them see, or through a remote of rclone (``shelf``).

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
from sleepd.errors import DECODE_ERRORS, BundleInvalid, CheckpointInvalid, NothingToDo, RemoteFailed
from sleepd.files import make_directory, read_document, replace_file
from sleepd.protocol.checkpoint.origin import ORIGIN_FILE

from .archive import Front
from .exporting import FindCycle, Outgoing, gather, write_bundle
from .foreign import DIRECTORY, ForeignBundle, foreign_bundles, import_bundle, refuse_overflow
from .rclone import Rclone
from .received_texts import write_received
from .remote_shelf import RemoteShelf
from .shelf import DirectoryShelf, Shelf, ShelfFile
from .signature import signer_of

MEMORY_FILE: Final = "sync.json"
SUFFIX: Final = ".sagebundle"
_REMEMBERED: Final = 10_000
_MOST_FAILURES: Final = 3
"""Of files in one round that cannot be read; then the line is taken to be cut."""


class SyncMemory(msgspec.Struct, frozen=True, kw_only=True):
    """``sync.json``."""

    sent: dict[int, str] = {}
    """The bundle of each cycle that went up."""
    taken: tuple[str, ...] = ()
    """Bundles that came, the newest last."""
    merged: tuple[str, ...] = ()
    """Bundles whose experiences were written into ``sync.merge_directory``."""
    asked: dict[str, int] = {}
    """The cycle that was to judge a bundle which came, of those that are kept: nobody is asked twice."""
    uploading: str = ""
    """The file that was going up last: a cut may have left a part of it."""


class Arrival(NamedTuple):
    """A file that looks like a bundle that is not known here."""

    entry: ShelfFile
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
        self._sync = sync
        self._shelf = _shelf_of(sync, state)
        self._bundle = bundle
        self._find = find
        self._note = note
        self._refused: dict[str, ShelfFile] = {}
        """What a refused file looked like, by its name: it is looked at again once it has changed."""
        self._failures = 0

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
        return gather(champion, self._find, with_texts=self._sync.with_texts)

    def target(self, outgoing: Outgoing) -> str:
        """The file that it becomes."""
        return self._shelf.place(self._name(outgoing))

    def send(self, outgoing: Outgoing) -> str:
        """Put it up under its name.

        Raises:
            ConfigError: the key cannot sign, or rclone cannot be used.
            RemoteFailed: the remote does not take it; the next round begins anew.
            OSError: the directory cannot be written.
        """
        name, memory = self._name(outgoing), self.memory()
        if memory.uploading not in ("", name):
            self._shelf.abandon(memory.uploading)
        self._remember(msgspec.structs.replace(memory, uploading=name))
        self._shelf.put(name, lambda path: write_bundle(outgoing, path, key=self._bundle.key))
        sent = {**memory.sent, outgoing.header.cycle: outgoing.id}
        self._remember(msgspec.structs.replace(memory, sent=sent, uploading=""))
        return self._shelf.place(name)

    def remove_old(self) -> None:
        """Remove this machine's oldest bundles beyond ``sync.keep``.

        Raises:
            RemoteFailed: as ``arrivals``, or a file cannot be removed.
            OSError: the same of the directory.
        """
        sent = self.memory().sent
        kept = {sent[cycle] for cycle in sorted(sent)[-self._sync.keep :]}
        for entry, identifier in self._bundles():
            if identifier in sent.values() and identifier not in kept:
                self._shelf.remove(entry.name)

    def _name(self, outgoing: Outgoing) -> str:
        machine = self._sync.name or os.uname().nodename
        return f"{machine}-cycle_{outgoing.header.cycle:03d}-{outgoing.id[:12]}{SUFFIX}"

    # What comes down

    def arrivals(self) -> list[Arrival]:
        """Files of other machines whose bundles are not known here; none where no signer is allowed.

        Which of them are signed is not looked at yet. Two files may begin as one bundle does, and one of them be cut.

        Raises:
            RemoteFailed: the remote cannot be listed, or several files cannot be read.
            ConfigError: rclone cannot be used.
            OSError: the directory cannot be listed.
        """
        memory = self.memory()
        known = {*memory.sent.values(), *memory.taken}
        found = self._bundles() if self._bundle.allowed_signers else ()
        return [each for each in found if each.id not in known and not self._is_here(each.id)]

    def place(self, arrival: Arrival) -> str:
        """The whole name of its file."""
        return self._shelf.place(arrival.entry.name)

    def receive(self, *, at: datetime) -> list[ForeignBundle]:
        """Import every arrival that is whole and signed; what is not is noted once.

        Raises:
            ConfigError: the file of allowed signers cannot be used.
            StateDirectoryUnusable: there is no room for more.
            Busy: another import is under way.
            RemoteFailed: as ``arrivals``.
            OSError: the directory or the state directory cannot be read or written.
        """
        received = []
        for entry, identifier in self.arrivals():
            if self._refused.get(entry.name) == entry or self._is_here(identifier):
                continue
            try:
                received.append(self._take(entry, at))
            except BundleInvalid as error:
                self._refuse(entry, f"not taken: {error.message}")
            except NothingToDo:
                continue  # it came another way meanwhile
            except RemoteFailed as error:
                self._fail(error)
            else:
                memory = self.memory()
                taken = (*memory.taken, identifier)[-_REMEMBERED:]
                self._remember(msgspec.structs.replace(memory, taken=taken))
        return received

    def _take(self, entry: ShelfFile, at: datetime) -> ForeignBundle:
        place = self._shelf.place(entry.name)

        def accept(front: Front) -> None:
            signer_of(front.signed, front.signature, self._bundle.allowed_signers, place)
            make_directory(self._state / DIRECTORY)
            refuse_overflow(self._state / DIRECTORY, front.header)

        with self._shelf.fetched(entry, accept) as path:
            return import_bundle(path, self._state, self._bundle.allowed_signers, at=at, name=place)

    def _refuse(self, entry: ShelfFile, text: str) -> None:
        """Note it, once for each content that the file has."""
        if self._refused.get(entry.name) != entry:
            self._refused[entry.name] = entry
            self._note(text)

    def _fail(self, error: RemoteFailed) -> None:
        """Note a file that cannot be read now, and go on with the next; after several of them the round ends."""
        self._failures += 1
        if self._failures >= _MOST_FAILURES:
            raise error
        self._note(error.message)

    def _is_here(self, identifier: str) -> bool:
        return (self._state / DIRECTORY / identifier).exists()

    def _bundles(self) -> Iterator[Arrival]:
        """Whatever begins as a bundle, by its first files alone."""
        self._failures = 0
        for entry in self._shelf.entries():
            try:
                identifier = self._shelf.identify(entry)
            except BundleInvalid:
                continue  # its beginning has not come yet, or a newer version wrote it
            except OSError as error:
                self._refuse(entry, f"not read: {self._shelf.place(entry.name)}: {error.strerror}")
            except RemoteFailed as error:
                self._fail(error)
            else:
                yield Arrival(entry, identifier)

    def merge(self) -> list[Path]:
        """Write the experiences of bundles that are kept here into ``sync.merge_directory``, those of each bundle once.

        Raises:
            OSError: they cannot be read or written.
        """
        written = []
        for bundle in foreign_bundles(self._state):
            memory = self.memory()
            if bundle.id in memory.merged:
                continue
            try:
                path = write_received(bundle, self._state / DIRECTORY / bundle.id, Path(self._sync.merge_directory))
            except BundleInvalid as error:
                self._note(f"not merged: {error.message}")
            else:
                written += [path] if path else []
            self._remember(msgspec.structs.replace(memory, merged=(*memory.merged, bundle.id)[-_REMEMBERED:]))
        return written

    def note_asked(self, identifier: str, cycle: int) -> None:
        """Remember that the daemon judges it, and forget those that are gone."""
        memory = self.memory()
        asked = {each: begun for each, begun in memory.asked.items() if self._is_here(each)}
        self._remember(msgspec.structs.replace(memory, asked={**asked, identifier: cycle}))

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


def _shelf_of(sync: SyncConfig, state: Path) -> Shelf:
    return RemoteShelf(Rclone(sync, state), state) if sync.remote else DirectoryShelf(Path(sync.directory))
