"""From a checkpoint to a bundle: only what was measured, only figures and hashes, unless texts are asked for."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Final, TypeVar

import msgspec
from msgspec import Meta

from sleepd.buffer.experience import hash_text, id_hash
from sleepd.errors import DECODE_ERRORS, BundleInvalid, CheckpointInvalid, NotFound
from sleepd.files import FILE_MODE, fsync_path, hashed, open_regular, read_document
from sleepd.protocol.checkpoint.checkpoint_files import (
    CONFIG_FILE,
    EVALUATION_FILE,
    FINGERPRINT_FILE,
    LINEAGE_FILE,
    RESERVOIR_FILE,
    WEIGHTS_FILE,
    AssignedExperience,
    Evaluation,
    Lineage,
)
from sleepd.version import VERSION

from .archive import END, description, padding, write_small
from .contents import (
    EVIDENCE_FILE,
    HASHES_FILE,
    HEADER_FILE,
    MANIFEST_FILE,
    MEMBERS,
    SIGNATURE_FILE,
    BundleHeader,
    LineageHashes,
    Member,
    SentEvidence,
    SentFigure,
    bundle_id,
    decode_header,
    encoded,
)
from .signature import sign
from .texts import has_secret, without_secrets

FindCycle = Callable[[int], Path | None]
"""Where the checkpoint of a cycle stands; None: nowhere."""
_PIECE: Final = 2**20
_DOCTOR: Final = "sleepctl doctor"

_T = TypeVar("_T")


class _Record(msgspec.Struct, frozen=True):
    sha256: str
    bytes: int


class _Manifest(msgspec.Struct, frozen=True):
    """What is read of ``manifest.json``."""

    cycle: Annotated[int, Meta(ge=1, le=10**9)]
    parent: int | None
    base_fingerprint: str
    lora_shape: str
    strategy: str
    created_at: str
    files: dict[str, _Record]


class BundleWritten(msgspec.Struct, frozen=True, kw_only=True):
    """What was written."""

    id: str
    header: BundleHeader
    bytes: int
    secrets: int
    """Texts that were left out because they hold a secret."""


class Outgoing(msgspec.Struct, frozen=True, kw_only=True):
    """A bundle before it is written: what leaves the machine, and nothing else does."""

    checkpoint: Path
    header: BundleHeader
    contents: dict[str, bytes]
    """Of the members that are not copied from the checkpoint."""
    secrets: int

    @property
    def signed(self) -> bytes:
        """``bundle.json``."""
        return encoded(self.header)

    @property
    def id(self) -> str:
        """The bundle's id."""
        return bundle_id(self.signed)


def gather(cycle: int, find: FindCycle, *, with_texts: bool) -> Outgoing:
    """All that a bundle of ``cycle`` would hold.

    Raises:
        NotFound: the cycle or its weights are not there.
        CheckpointInvalid: a file is damaged, or what the lineage was trained on is not known.
    """
    checkpoint = find(cycle)
    if checkpoint is None or not (checkpoint / WEIGHTS_FILE).exists():
        why = "has no weights any more" if checkpoint else "is not in the state directory"
        raise NotFound(f"cycle {cycle} {why}", hint="sleepctl history lists the cycles")
    manifest = _read(checkpoint / MANIFEST_FILE, _Manifest)
    contents = {
        MANIFEST_FILE: _bytes_of(checkpoint / MANIFEST_FILE),
        EVIDENCE_FILE: encoded(_evidence(_read(checkpoint / EVALUATION_FILE, Evaluation))),
        HASHES_FILE: encoded(_hashes(cycle, find)),
    }
    texts, secrets = _texts(checkpoint) if with_texts else ({}, 0)
    contents |= texts
    header = BundleHeader(
        written_by=VERSION,
        cycle=manifest.cycle,
        created_at=manifest.created_at,
        base_fingerprint=manifest.base_fingerprint,
        lora_shape=manifest.lora_shape,
        strategy=manifest.strategy,
        members=tuple(_members(checkpoint, manifest, contents)),
    )
    return _checked(Outgoing(checkpoint=checkpoint, header=header, contents=contents, secrets=secrets))


def _checked(outgoing: Outgoing) -> Outgoing:
    """As every receiver would check it."""
    try:
        decode_header(outgoing.signed, str(outgoing.checkpoint))
    except BundleInvalid as error:
        raise CheckpointInvalid(f"it cannot be sent: {error.message}", hint=_DOCTOR) from error
    return outgoing


def write_bundle(outgoing: Outgoing, target: Path, *, key: str) -> BundleWritten:
    """Sign and write it; ``target`` appears when all of it is on the disk.

    Raises:
        ConfigError: the key cannot sign.
        CheckpointInvalid: the checkpoint changed meanwhile.
        OSError: it cannot be written; nothing is left.
    """
    signature = sign(outgoing.signed, key)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        with open(os.open(temporary, flags, FILE_MODE), "wb") as file:
            write_small(file, HEADER_FILE, outgoing.signed)
            write_small(file, SIGNATURE_FILE, signature)
            for member in outgoing.header.members:
                _copy(outgoing, member, file)
            file.write(END)
            file.flush()
            os.fsync(file.fileno())
            size = file.tell()
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    fsync_path(target.parent)
    return BundleWritten(id=outgoing.id, header=outgoing.header, bytes=size, secrets=outgoing.secrets)


def _copy(outgoing: Outgoing, member: Member, target: io.BufferedWriter) -> None:
    target.write(description(member.name, member.bytes))
    left, content = member.bytes, outgoing.contents.get(member.name)
    source = open_regular(outgoing.checkpoint / member.name) if content is None else io.BytesIO(content)
    with contextlib.closing(source):
        while left and (piece := source.read(min(left, _PIECE))):
            target.write(piece)
            left -= len(piece)
    if left:
        raise CheckpointInvalid(f"{outgoing.checkpoint / member.name} became shorter while it was read", hint=_DOCTOR)
    target.write(padding(member.bytes))


def _members(checkpoint: Path, manifest: _Manifest, contents: dict[str, bytes]) -> Iterable[Member]:
    for name, most in MEMBERS.items():
        if name in contents:
            content = contents[name]
            yield Member(name=name, bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
        elif name in (CONFIG_FILE, WEIGHTS_FILE):
            recorded = manifest.files.get(name)
            digest, size = hashed(checkpoint / name, most=most)
            if recorded is None or (digest, size) != (recorded.sha256, recorded.bytes):
                raise CheckpointInvalid(f"{checkpoint / name} is not what the cycle wrote", hint=_DOCTOR)
            yield Member(name=name, bytes=size, sha256=digest)


def _evidence(evaluation: Evaluation) -> SentEvidence:
    verdict, report = evaluation.verdict, evaluation.report
    figures = tuple(
        SentFigure(
            name=each.name,
            value=each.value,
            relation=each.relation,
            limit=each.limit,
            upper_limit=each.upper_limit,
            is_met=each.is_met,
            is_binding=each.is_binding,
        )
        for each in verdict.figures
    )
    return SentEvidence(
        outcome=verdict.outcome,
        gain=verdict.gain,
        figures=figures,
        trained=report.trained,
        replayed=report.replayed,
        held_out=report.held_out,
        holdout_base=report.holdout_base,
        holdout_before=report.holdout_before,
        holdout_after=report.holdout_after,
        device=f"{report.device} of another machine" if report.host else report.device,
        dtype=report.dtype,
    )


def _hashes(cycle: int, find: FindCycle) -> LineageHashes:
    """Of everything that the adapter, or one that it continues, was trained on."""
    cycles, trained, received = list[int](), list[AssignedExperience](), list[LineageHashes]()
    number: int | None = cycle
    while number is not None and number not in cycles:
        checkpoint = find(number)
        if checkpoint is None or not (checkpoint / LINEAGE_FILE).exists():
            raise CheckpointInvalid(
                f"cycle {cycle} continues cycle {number}, of which it is not known what it was trained on",
                hint="send a cycle of a lineage that began with this version: sleepctl rebase starts one",
            )
        lineage = _read(checkpoint / LINEAGE_FILE, Lineage)
        trained += [*lineage.trained, *lineage.replayed]
        if (checkpoint / HASHES_FILE).exists():  # it came from another machine, which named what it had trained
            received.append(_read(checkpoint / HASHES_FILE, LineageHashes))
        cycles.append(number)
        number = lineage.parent
    return LineageHashes(
        cycles=tuple(cycles),
        ids=_sorted(received, "ids", (hash_text(id_hash(each.id)) for each in trained)),
        contents=_sorted(received, "contents", (each.group for each in trained)),
        conversations=_sorted(received, "conversations", (each.conversation for each in trained if each.conversation)),
    )


def _sorted(received: Iterable[LineageHashes], kind: str, own: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({*own, *(each for one in received for each in getattr(one, kind))}))


def _texts(checkpoint: Path) -> tuple[dict[str, bytes], int]:
    """The texts that may leave, and how many were left out."""
    found, dropped = dict[str, bytes](), 0
    try:
        if (checkpoint / FINGERPRINT_FILE).exists():
            content = _bytes_of(checkpoint / FINGERPRINT_FILE)
            if has_secret(content):
                dropped += 1
            else:
                found[FINGERPRINT_FILE] = content
        if (checkpoint / RESERVOIR_FILE).exists():
            found[RESERVOIR_FILE], more = without_secrets(_bytes_of(checkpoint / RESERVOIR_FILE))
            dropped += more
    except ValueError as error:
        raise CheckpointInvalid(
            f"{checkpoint}: its texts cannot be searched for secrets: {error}", hint=_DOCTOR
        ) from error
    return found, dropped


def _bytes_of(path: Path) -> bytes:
    try:
        return read_document(path, MEMBERS[path.name])
    except OSError as error:
        raise CheckpointInvalid(f"{path}: {error.strerror}", hint=_DOCTOR) from error


def _read(path: Path, kind: type[_T]) -> _T:
    try:
        return msgspec.json.decode(read_document(path), type=kind)
    except (OSError, *DECODE_ERRORS) as error:
        raise CheckpointInvalid(f"{path}: {error}", hint="only a cycle that this version judged can be sent") from error
