"""What was learned, on disk. The only module that renames.

    directory/
    |-- cycle_007/            the champion and its predecessors: only what was promoted
    |-- current -> cycle_007  replaced by rename; absent = the base itself. This link is the truth
    |-- retired/cycle_006/    rejected candidates and rolled-back champions
    |-- adopted/cycle_005.json  the manifest of an older trainer's cycle_005/, in which nothing is ever written
    `-- staging/cycle_008/    the worker's; work/ inside it never leaves it

A checkpoint is staged, then committed: documents written and synced, ``work/`` removed, the manifest (sha256 of every
file) written last and synced, the directory renamed, its new parent synced. A reader sees all of a checkpoint or none.
A crash at any point leaves either a staging directory (swept at start-up) or a whole checkpoint (found at start-up).
``trace`` is called with the name of each point passed, so that a test can break off exactly there.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import msgspec

from sleepd.errors import DECODE_ERRORS, CheckpointInvalid, NotFound, StateDirectoryUnusable
from sleepd.files import (
    fsync_path,
    hashed,
    is_own_directory,
    is_regular,
    make_directory,
    read_document,
    replace_file,
    replace_link,
    write_durably,
)
from sleepd.protocol.checkpoint.checkpoint_files import CONFIG_FILE, WEIGHTS_FILE

MANIFEST_VERSION = 1
ADAPTER_FILES = (WEIGHTS_FILE, CONFIG_FILE)
ADOPTED = "adopted"
"""Directory of what we record of an older trainer's checkpoints."""
ADOPTED_VERDICT = "adopted"
_NAME = re.compile(r"^cycle_(\d{3,9})$")


class FileRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One file of a checkpoint."""

    sha256: str
    bytes: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The manifest of a committed checkpoint. Unknown fields are ignored, a newer version is refused."""

    version: int = MANIFEST_VERSION
    cycle: int
    parent: int | None
    verdict: str
    reason: str
    base_fingerprint: str
    lora_shape: str
    strategy: str
    created_at: str
    files: dict[str, FileRecord] = {}
    sha256: str = ""
    """Over all else that it says."""

    def encoded(self) -> bytes:
        """As a file, with its hash."""
        complete = msgspec.structs.replace(self, sha256=self.own_hash())
        return msgspec.json.format(msgspec.json.encode(complete), indent=2)

    def own_hash(self) -> str:
        """What ``sha256`` must be."""
        return hashlib.sha256(msgspec.json.encode(msgspec.structs.replace(self, sha256=""))).hexdigest()


def directory_name(cycle: int) -> str:
    """``cycle_007``: the name that older tools search."""
    return f"cycle_{cycle:03d}"


def cycle_number(name: str) -> int:
    """The opposite of ``directory_name``; 0: it is no such name."""
    match = _NAME.match(name)
    return int(match[1]) if match else 0


class Checkpoints:
    """The checkpoints of one state directory."""

    def __init__(self, directory: Path, *, trace: Callable[[str], object] = str) -> None:
        self.directory = directory
        self._retired, self._staging = directory / "retired", directory / "staging"
        self._current = directory / "current"
        self._trace = trace
        try:
            for each in (self._retired, self._staging):
                make_directory(each)
        except OSError as error:
            raise StateDirectoryUnusable(
                f"{directory}: cannot be used as state directory: {error.strerror}",
                hint="set [state] directory to one that this user may write",
            ) from error

    def staging_path(self, cycle: int) -> Path:
        """Where the worker of that cycle writes."""
        return self._staging / directory_name(cycle)

    def promoted_path(self, cycle: int) -> Path:
        """Where the cycle stands once promoted."""
        return self.directory / directory_name(cycle)

    def retired_path(self, cycle: int) -> Path:
        """Where the cycle stands once rejected or rolled back."""
        return self._retired / directory_name(cycle)

    def find(self, cycle: int) -> Path | None:
        """Where the committed files of that cycle stand; None: nothing was kept."""
        places = self.promoted_path(cycle), self.retired_path(cycle)
        return next(filter(is_own_directory, places), None)

    def champion(self) -> int | None:
        """The cycle that ``current`` points to; None: the base itself.

        Raises:
            CheckpointInvalid: the link points to something that is no checkpoint of this directory.
        """
        try:
            target = os.readlink(self._current)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise CheckpointInvalid(
                f"{self._current} is no symbolic link ({error.strerror})", hint=f"move {self._current} away"
            ) from error
        cycle = cycle_number(target)
        if not cycle or not is_own_directory(self.directory / target):
            raise CheckpointInvalid(
                f"{self._current} points to {target!r}, which is no checkpoint here",
                hint="sleepctl rebase puts the base in use; sleepctl history shows the checkpoints",
            )
        return cycle

    def adopted(self) -> list[int]:
        """The cycles of an older trainer that were adopted, in order."""
        files = (self.directory / ADOPTED).glob("cycle_*.json")
        return sorted(cycle for file in files if (cycle := cycle_number(file.stem)))

    def numbers(self) -> list[int]:
        """The cycle numbers that directories bear, staged ones included, in order."""
        parents = (self.directory, self._retired, self._staging)
        found = {cycle_number(entry.name) for parent in parents for entry in parent.iterdir()}
        return sorted(found - {0})

    def highest_number(self) -> int:
        """The highest of them; 0: none."""
        return max(self.numbers(), default=0)

    # --- stage and commit ---

    def stage(self, cycle: int) -> Path:
        """A fresh staging directory with an empty ``work/`` in it."""
        path = self.staging_path(cycle)
        if path.exists():
            shutil.rmtree(path)
        for each in (path, path / "work"):
            make_directory(each)
        self._trace("staged")
        return path

    def commit(self, manifest: Manifest, documents: Mapping[str, bytes], *, promoted: bool) -> Path:
        """Make the staged cycle a checkpoint: of the champion's line, or in ``retired/``.

        Does not move ``current``. Blocks for as long as the disk takes; call it in a thread.

        Raises:
            CheckpointInvalid: the worker left no adapter.
            OSError: the disk did not take it; the staging directory is as good as before and may be discarded.
        """
        stage = self.staging_path(manifest.cycle)
        for name in ADAPTER_FILES:
            if not is_regular(stage / name):
                raise CheckpointInvalid(f"the worker reported, but left no {name}", hint="journalctl -u sage-sleepd")
        shutil.rmtree(stage / "work", ignore_errors=True)
        for name, content in documents.items():
            write_durably(stage / name, content)
        self._trace("documents-written")
        files = {path.name: file_record(path) for path in sorted(stage.iterdir()) if is_regular(path)}
        for name in files:
            fsync_path(stage / name)
        complete = msgspec.structs.replace(manifest, files=files)
        write_durably(stage / "manifest.json", complete.encoded())
        fsync_path(stage)
        self._trace("manifest-written")
        target = self.promoted_path(manifest.cycle) if promoted else self.retired_path(manifest.cycle)
        try:
            self._move(stage, target)
        except OSError:
            # It may stand there and be gone after a power cut: it is given up whole, not synced again.
            with contextlib.suppress(OSError):
                target.rename(stage)
            raise
        self._trace("committed")
        return target

    def promote(self, cycle: int | None) -> None:
        """Point ``current`` at a committed cycle; None: at nothing, which is the base itself."""
        if cycle is None:
            self._current.unlink(missing_ok=True)
            fsync_path(self.directory)
        else:
            replace_link(self._current, directory_name(cycle))
        self._trace("promoted")

    def retire(self, cycle: int) -> None:
        """Move a promoted cycle to ``retired/``. Where it is there already, nothing happens."""
        if is_own_directory(self.promoted_path(cycle)):
            self._move(self.promoted_path(cycle), self.retired_path(cycle))
            self._trace("retired")

    def restore(self, cycle: int) -> None:
        """Move a rolled-back champion back from ``retired/``. Where it is back already, nothing happens.

        Raises:
            NotFound: nothing was kept of it.
        """
        if is_own_directory(self.promoted_path(cycle)):
            return
        if not is_own_directory(self.retired_path(cycle)):
            raise NotFound(f"nothing was kept of cycle {cycle}", hint="sleepctl history shows what there is")
        self._move(self.retired_path(cycle), self.promoted_path(cycle))
        self._trace("restored")

    def prune(self, path: Path) -> None:
        """Remove the weights of the checkpoint at ``path``; its documents stay. Pruned already, nothing happens.

        Raises:
            CheckpointInvalid: its manifest is damaged.
            OSError: the disk did not take it; the next time goes on.
        """
        manifest = read_manifest(path)
        # First the manifest: between the two steps the checkpoint has a file too many, and is not damaged.
        files = {name: record for name, record in manifest.files.items() if name != WEIGHTS_FILE}
        replace_file(path / "manifest.json", msgspec.structs.replace(manifest, files=files).encoded())
        (path / WEIGHTS_FILE).unlink(missing_ok=True)
        fsync_path(path)
        self._trace("pruned")

    def sweep(self, *, keep: Collection[int] = ()) -> list[str]:
        """Remove every staging directory but those of the cycles ``keep``, and temporary files; names the former."""
        swept = []
        kept = {directory_name(cycle) for cycle in keep}
        for entry in self._staging.iterdir():
            if entry.name in kept:
                continue
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
            swept.append(entry.name)
        for entry in self.directory.glob(".*.tmp"):
            entry.unlink(missing_ok=True)
        return swept

    def _move(self, source: Path, target: Path) -> None:
        source.rename(target)
        fsync_path(target.parent)
        if source.parent != target.parent:
            fsync_path(source.parent)


def read_manifest(path: Path) -> Manifest:
    """The manifest of the checkpoint at ``path``; that of an adopted one stands beside it, in ``adopted/``.

    Raises:
        CheckpointInvalid: there is none, it is damaged, or a newer version wrote it.
    """
    own, adopted = path / "manifest.json", path.parent / ADOPTED / f"{path.name}.json"
    try:
        file = adopted if adopted.exists() and not own.exists() else own
        manifest = msgspec.json.decode(read_document(file), type=Manifest)
    except (OSError, *DECODE_ERRORS) as error:
        raise CheckpointInvalid(f"{path}: no readable manifest.json: {error}", hint=_REPLACE) from error
    if manifest.version > MANIFEST_VERSION:
        raise CheckpointInvalid(
            f"{path}: its manifest has version {manifest.version}, this sage-sleepd reads {MANIFEST_VERSION}",
            hint="install the version that wrote it, or a newer one",
        )
    if manifest.sha256 != manifest.own_hash() or manifest.cycle != cycle_number(path.name):
        raise CheckpointInvalid(f"{path}: its manifest is not what was written", hint=_REPLACE)
    return manifest


def has_weights(path: Path) -> bool:
    """Whether the checkpoint at ``path`` still has its weights, or was pruned."""
    return (path / WEIGHTS_FILE).exists()


def verify_usable(path: Path) -> Manifest:
    """As ``verify``, and there are weights to use.

    Raises:
        CheckpointInvalid: a file is missing, is not what was committed, or the weights were pruned.
    """
    manifest = verify(path)
    if WEIGHTS_FILE not in manifest.files:
        raise CheckpointInvalid(f"{path}: its weights were pruned", hint=_REPLACE)
    return manifest


def verify(path: Path) -> Manifest:
    """Read every file of the checkpoint and hold it against the manifest. Blocks; call it in a thread.

    Raises:
        CheckpointInvalid: a file is missing, or is not what was committed.
    """
    if not is_own_directory(path):
        raise CheckpointInvalid(f"{path}: expected a directory of its own", hint=_REPLACE)
    manifest = read_manifest(path)
    for name, expected in manifest.files.items():
        if "/" in name or "\0" in name or name in ("", ".", ".."):
            raise CheckpointInvalid(f"{path}: the manifest names a file outside it: {name!r}", hint=_REPLACE)
        try:
            found = file_record(path / name, most=expected.bytes)
        except OSError as error:
            raise CheckpointInvalid(f"{path / name}: {error.strerror}", hint=_REPLACE) from error
        if found != expected:
            raise CheckpointInvalid(
                f"{path / name}: is not what was committed ({found.bytes} bytes, sha256 {found.sha256[:12]}…; "
                f"expected {expected.bytes} bytes, {expected.sha256[:12]}…)",
                hint=_REPLACE,
            )
    return manifest


_REPLACE = "sleepctl rollback puts an earlier champion in use"


def file_record(path: Path, *, most: int | None = None) -> FileRecord:
    """Its size and hash, now; one of more than ``most`` bytes is not read. Blocks while it is read.

    Raises:
        OSError: it cannot be read; a link, a pipe or a device in its place is not followed and not waited for.
    """
    sha256, size = hashed(path, most=most)
    return FileRecord(sha256=sha256, bytes=size)
