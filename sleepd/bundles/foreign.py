"""Bundles that came from other machines, on disk: ``foreign/ID/`` in the state directory.

What stands here is a candidate. Nothing here is in use, and nothing that loads an adapter looks here.

    foreign/ID/            ID: the bundle's sha256. The members as they came, bundle.json and its signature,
                           received.json (who signed it, when it came)
    foreign/.ID.PID.tmp/   a bundle that is being unpacked; removed by the next import

A bundle appears by a rename, once its signature is checked, every member is compared with its sha256, and all of it is
on the disk. The same bundle under another name, or a second time, has the same ID and changes nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from sleepd.clock import Moment
from sleepd.errors import DECODE_ERRORS, BundleInvalid, Busy, NotFound, NothingToDo, StateDirectoryUnusable
from sleepd.files import (
    FILE_MODE,
    fsync_path,
    is_own_directory,
    make_directory,
    open_lock,
    open_regular,
    read_document,
    replace_file,
    write_durably,
)
from sleepd.protocol.checkpoint.checkpoint_files import WEIGHTS_FILE
from sleepd.protocol.checkpoint.origin import Origin
from sleepd.text.shell import quoted

from .archive import BundleReader, Front
from .contents import (
    EVIDENCE_FILE,
    HEADER_FILE,
    MAX_BUNDLE_BYTES,
    MEMBERS,
    SIGNATURE_FILE,
    BundleHeader,
    SentEvidence,
    decode_header,
)
from .signature import signer_of

DIRECTORY: Final = "foreign"
RECEIVED_FILE: Final = "received.json"
JUDGED_FILE: Final = "judged.json"
MOST_KEPT: Final = 20
_RESERVE_BYTES: Final = 256 * 2**20
"""What an import leaves free on the disk."""


class Received(msgspec.Struct, frozen=True, kw_only=True):
    """``received.json``."""

    signer: str
    """As the operator's file of allowed signers calls the key."""
    received_at: Moment


class BundleOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """``judged.json``: what became of it here."""

    cycle: int
    """The one that judged it."""
    outcome: str


class ForeignBundle(msgspec.Struct, frozen=True, kw_only=True):
    """A bundle as it is known before, or after, it was unpacked."""

    id: str
    signer: str
    header: BundleHeader
    evidence: SentEvidence | None
    """What the sender measured; None: it is not understood."""
    received_at: Moment | None = None
    """None: it was only looked at."""
    judged: BundleOutcome | None = None
    """None: nothing was measured on it here."""


def look_at(path: Path, allowed_signers: str) -> ForeignBundle:
    """Read the bundle in the file ``path`` from its beginning to its end; nothing is written.

    Raises:
        BundleInvalid: it is damaged, or not signed by an allowed signer.
        ConfigError: nobody is allowed to sign.
        OSError: it cannot be read.
    """
    with _opened(path) as file:
        reader = BundleReader(file, str(path))
        front = reader.front()
        signer = signer_of(front.signed, front.signature, allowed_signers, str(path))
        evidence = bytearray()
        for member in front.header.members:
            reader.member(member, evidence.extend if member.name == EVIDENCE_FILE else len)
        reader.end()
    return ForeignBundle(id=front.id, signer=signer, header=front.header, evidence=_evidence(bytes(evidence)))


def import_bundle(path: Path, state: Path, allowed_signers: str, *, at: datetime, name: str = "") -> ForeignBundle:
    """Unpack the bundle in the file ``path`` below ``foreign/``, after its signature was checked.

    Args:
        path: the file.
        state: the state directory.
        allowed_signers: the operator's file.
        at: when it came.
        name: of the bundle in messages; empty: its path.

    Raises:
        BundleInvalid: as ``look_at``; nothing is left.
        NothingToDo: it is here already.
        Busy: another import is under way.
        StateDirectoryUnusable: too many are kept, or the disk has too little room.
        ConfigError: nobody is allowed to sign.
        OSError: it cannot be read or written; nothing is left.
    """
    with _opened(path) as file:
        reader = BundleReader(file, name or str(path))
        front = reader.front()
        signer = signer_of(front.signed, front.signature, allowed_signers, name or str(path))
        directory = state / DIRECTORY
        make_directory(directory)
        with _alone(directory):
            target = directory / front.id
            if target.exists():
                raise NothingToDo(f"{path}: bundle {front.id[:12]} is here already", hint="sleepctl bundle list")
            _sweep(directory)
            refuse_overflow(directory, front.header)
            _unpack(front, reader, target, Received(signer=signer, received_at=at))
    return read_foreign(target)


@contextlib.contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """In this context no other import writes there."""
    descriptor = open_lock(directory / ".lock")
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Busy(f"{directory}: another import is under way", hint="try again when it has ended") from error
        yield
    finally:
        os.close(descriptor)


def _sweep(directory: Path) -> None:
    """Remove what an import left that was killed."""
    for entry in directory.glob(".*.tmp"):
        shutil.rmtree(entry)


def refuse_overflow(directory: Path, header: BundleHeader) -> None:
    """Refuse a bundle for which there is no room below ``foreign/``.

    Raises:
        StateDirectoryUnusable: too many are kept, or the disk has too little room.
    """
    kept = sum((entry / WEIGHTS_FILE).exists() for entry in directory.iterdir() if not entry.name.startswith("."))
    if kept >= MOST_KEPT:
        text = f"{directory}: {kept} bundles are kept, at most {MOST_KEPT} are"
        raise StateDirectoryUnusable(text, hint="sleepctl bundle list; sleepctl bundle remove ID")
    free, needed = shutil.disk_usage(directory).free, header.total_bytes + _RESERVE_BYTES
    if free < needed:
        text = f"{directory}: {needed} bytes are needed, {free} are free"
        raise StateDirectoryUnusable(text, hint="make space: df -h; sleepctl bundle remove ID")


def _unpack(front: Front, reader: BundleReader, target: Path, received: Received) -> None:
    """Everything beside, then one rename; where anything is wrong nothing is left."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    make_directory(temporary)
    try:
        for member in front.header.members:
            with _new_file(temporary / member.name) as file:
                reader.member(member, file.write)
        reader.end()
        small = {HEADER_FILE: front.signed, SIGNATURE_FILE: front.signature}
        for name, content in (small | {RECEIVED_FILE: msgspec.json.encode(received)}).items():
            write_durably(temporary / name, content)
        fsync_path(temporary)
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    fsync_path(target.parent)


@contextlib.contextmanager
def _new_file(path: Path) -> Iterator[BinaryIO]:
    """A file to be written, on the disk when the context ends."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    with open(os.open(path, flags, FILE_MODE), "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def foreign_bundles(state: Path) -> list[ForeignBundle]:
    """All that are kept, the newest first; what cannot be understood is left out."""
    found = []
    with contextlib.suppress(FileNotFoundError):
        for entry in (state / DIRECTORY).iterdir():
            if not entry.name.startswith(".") and is_own_directory(entry):
                with contextlib.suppress(BundleInvalid):
                    found.append(read_foreign(entry))
    return sorted(found, key=lambda each: (each.received_at, each.id), reverse=True)


def read_foreign(directory: Path) -> ForeignBundle:
    """What ``import_bundle`` wrote there.

    Raises:
        BundleInvalid: it is damaged.
    """
    try:
        received = msgspec.json.decode(read_document(directory / RECEIVED_FILE), type=Received)
        header = decode_header(read_document(directory / HEADER_FILE), str(directory))
        evidence = _evidence(read_document(directory / EVIDENCE_FILE))
    except (OSError, *DECODE_ERRORS) as error:
        raise BundleInvalid(
            f"{directory}: {error}", hint=f"sleepctl bundle remove {quoted(directory.name[:12])}"
        ) from error
    return ForeignBundle(
        id=directory.name,
        signer=received.signer,
        header=header,
        evidence=evidence,
        received_at=received.received_at,
        judged=outcome_of(directory),
    )


def outcome_of(directory: Path) -> BundleOutcome | None:
    """What became of the bundle there; None: it was not judged.

    Raises:
        BundleInvalid: the record is damaged.
    """
    try:
        return msgspec.json.decode(read_document(directory / JUDGED_FILE), type=BundleOutcome)
    except FileNotFoundError:
        return None
    except (OSError, *DECODE_ERRORS) as error:
        raise BundleInvalid(f"{directory / JUDGED_FILE}: {error}", hint=f"remove {directory / JUDGED_FILE}") from error


def note_outcome(directory: Path, judged: BundleOutcome) -> None:
    """Record what became of it. The cycle that judged it has its weights now: here its figures and signature stay.

    Raises:
        OSError: the disk did not take it; the bundle can be judged again.
    """
    replace_file(directory / JUDGED_FILE, msgspec.json.encode(judged))
    for name in MEMBERS:
        if name != EVIDENCE_FILE:
            (directory / name).unlink(missing_ok=True)


def origin_of(directory: Path) -> Origin:
    """What a checkpoint of the adapter keeps of the bundle there.

    Raises:
        BundleInvalid: it is damaged.
    """
    bundle = read_foreign(directory)
    if bundle.evidence is None or bundle.received_at is None:
        raise BundleInvalid(f"{directory}: what the sender measured is not understood", hint="have it sent again")
    evidence = bundle.evidence
    return Origin(
        signer=bundle.signer,
        bundle=bundle.id,
        cycle=bundle.header.cycle,
        received_at=bundle.received_at,
        outcome=evidence.outcome,
        gain=evidence.gain,
        held_out=evidence.held_out,
        holdout_before=evidence.holdout_before,
        holdout_after=evidence.holdout_after,
        device=evidence.device,
    )


def find_foreign(state: Path, beginning: str) -> Path:
    """The directory of the one bundle whose id begins so.

    Raises:
        NotFound: none does, or several do.
    """
    found = []
    with contextlib.suppress(FileNotFoundError):
        found = [each for each in (state / DIRECTORY).iterdir() if not each.name.startswith(".")]
    matches = [each for each in found if beginning and each.name.startswith(beginning) and is_own_directory(each)]
    if len(matches) != 1:
        how = "several bundles have an id that begins" if matches else "no bundle has an id that begins"
        raise NotFound(f"{how} with {beginning!r}", hint="sleepctl bundle list")
    return matches[0]


def remove_foreign(directory: Path) -> None:
    """Remove a bundle that is kept; what a power cut leaves of it, the next import removes."""
    aside = directory.with_name(f".{directory.name}.{os.getpid()}.tmp")
    directory.rename(aside)
    shutil.rmtree(aside)
    fsync_path(directory.parent)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    with open_regular(path, follows_links=True) as file:
        size = os.fstat(file.fileno()).st_size
        if size > MAX_BUNDLE_BYTES:
            text = f"{path}: expected a bundle of at most {MAX_BUNDLE_BYTES} bytes, found {size}"
            raise BundleInvalid(text, hint="this is no bundle of sage-sleepd")
        yield file


def _evidence(content: bytes) -> SentEvidence | None:
    try:
        return msgspec.json.decode(content, type=SentEvidence)
    except DECODE_ERRORS:
        return None
