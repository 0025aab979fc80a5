"""Bundles: what leaves, byte for byte; who signed it; every attack on the archive; what an import leaves."""

from __future__ import annotations

import copy
import io
import json
import os
import tarfile
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sleepd.bundles.archive import END, BundleReader, Front, description, padding
from sleepd.bundles.contents import MAX_BUNDLE_BYTES, MEMBERS
from sleepd.bundles.exporting import gather
from sleepd.bundles.foreign import ForeignBundle, foreign_bundles, import_bundle, look_at
from sleepd.bundles.signature import sign, signer_of
from sleepd.errors import (
    BundleInvalid,
    CheckpointInvalid,
    ConfigError,
    NothingToDo,
    StateDirectoryUnusable,
)
from sleepd.sleepctl.offline_cycle import cycle_directory
from tests.bundle_makers import BASE, allow, make_bundle, make_cycle, make_key

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
SECRET = "AKIA" + "IOSFODNN7EXAMPLQ"


class Sent(NamedTuple):
    """A bundle of thor's, and the files by which another machine knows thor."""

    directory: Path
    key: Path
    signers: str
    content: bytes


@pytest.fixture(scope="module")
def sent(tmp_path_factory: pytest.TempPathFactory) -> Sent:
    directory = tmp_path_factory.mktemp("thor")
    make_cycle(directory / "state")
    key = directory / "key"
    signers = allow(directory / "allowed", thor=make_key(key))
    make_bundle(directory / "state", directory / "bundle", key)
    return Sent(directory, key, signers, (directory / "bundle").read_bytes())


def arrived(sent: Sent, content: bytes, place: Path) -> ForeignBundle:
    """Import ``content`` into a new state directory below ``place``."""
    place.mkdir(exist_ok=True)
    (place / "arrived").write_bytes(content)
    return import_bundle(place / "arrived", place / "state", sent.signers, at=NOW)


def entries(content: bytes) -> list[tuple[tarfile.TarInfo, bytes]]:
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        return [(each, archive.extractfile(each).read()) for each in archive]


def packed(members: list[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    """A tar file as tarfile writes it, with an end as ours."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content) if content else None)
        size = archive.offset
    return target.getvalue()[:size] + END


# What leaves


def test_bundle_is_reproducible(sent: Sent) -> None:
    """The same cycle, exported twice by the same version with the same key, is the same file byte for byte."""
    again = sent.directory / "again"
    written = make_bundle(sent.directory / "state", again, sent.key)
    assert again.read_bytes() == sent.content
    assert written.bytes == len(sent.content)


def test_any_tar_program_reads_it(sent: Sent) -> None:
    """A bundle is an ordinary tar file with the header first, its signature second and the members in fixed order."""
    names = [info.name for info, _ in entries(sent.content)]
    assert names == ["bundle.json", "bundle.json.sig", *list(MEMBERS)[:5]]


def test_no_id_leaves(sent: Sent) -> None:
    """Of what was trained hashes leave: neither an id nor a text of the agent is in the bundle."""
    make_cycle(sent.directory / "named", ids=("my secret plan",))
    make_bundle(sent.directory / "named", sent.directory / "named.bundle", sent.key)
    assert b"secret plan" not in (sent.directory / "named.bundle").read_bytes()


def test_lineage_is_whole(tmp_path: Path) -> None:
    """The hashes are those of the cycle and of every cycle that it continues."""
    make_cycle(tmp_path, 3, ids=("one", "two"))
    make_cycle(tmp_path / "retired", 5, parent=3, ids=("two", "three"))
    make_cycle(tmp_path, 7, parent=5, ids=("four",))
    hashes = json.loads(gather(7, partial(cycle_directory, tmp_path), with_texts=False).contents["lineage_hashes.json"])
    assert hashes["cycles"] == [7, 5, 3]
    assert len(hashes["ids"]) == 4


def test_unknown_lineage_stays_here(tmp_path: Path) -> None:
    """A cycle that continues one of which nothing is known is not sent: nobody could judge it fairly."""
    make_cycle(tmp_path, 7, parent=2)
    with pytest.raises(CheckpointInvalid, match="continues cycle 2"):
        gather(7, partial(cycle_directory, tmp_path), with_texts=False)


def test_changed_weights_stay_here(tmp_path: Path) -> None:
    """Weights that are not those the cycle wrote are not sent."""
    (make_cycle(tmp_path) / "adapter_model.safetensors").write_bytes(b"other")
    with pytest.raises(CheckpointInvalid, match="not what the cycle wrote"):
        gather(7, partial(cycle_directory, tmp_path), with_texts=False)


def test_texts_leave_without_secrets(sent: Sent, tmp_path: Path) -> None:
    """With texts the experiences to replay leave, except one with a secret in the arguments of a call."""
    directory = make_cycle(tmp_path)
    call = json.dumps({"calls": [{"arguments": json.dumps({"key": SECRET})}]})
    (directory / "reservoir.jsonl").write_text('{"prompt": "hello"}\n' + call + "\n")
    written = make_bundle(tmp_path, tmp_path / "bundle", sent.key, with_texts=True)
    content = (tmp_path / "bundle").read_bytes()
    assert (written.secrets, b"hello" in content, SECRET.encode() in content) == (1, True, False)
    assert look_at(tmp_path / "bundle", sent.signers).header.has_texts


# Who signed it


def test_name_is_the_operators(sent: Sent) -> None:
    """A bundle is called by the name that the receiver's file gives to the key, not by one of the sender's."""
    seen = look_at(
        sent.directory / "bundle",
        allow(sent.directory / "renamed", sprout=sent.key.with_suffix(".pub").read_text().strip()),
    )
    assert (seen.signer, seen.header.base_fingerprint) == ("sprout", BASE)


def test_other_keys_are_refused(sent: Sent, tmp_path: Path) -> None:
    """A key that is not allowed, and one that signed for another purpose, prove nothing."""
    stranger = allow(tmp_path / "allowed", loki=make_key(tmp_path / "loki"))
    with pytest.raises(BundleInvalid, match="no allowed signer"):
        look_at(sent.directory / "bundle", stranger)
    only_git = tmp_path / "git"
    only_git.write_text(f'thor namespaces="git" {sent.key.with_suffix(".pub").read_text()}')
    with pytest.raises(BundleInvalid):
        look_at(sent.directory / "bundle", str(only_git))


def test_signature_is_of_the_content(sent: Sent) -> None:
    """A signature of the same key over another content is refused."""
    signature = sign(b"one", str(sent.key))
    assert signer_of(b"one", signature, sent.signers, "b") == "thor"
    with pytest.raises(BundleInvalid, match="not that of thor"):
        signer_of(b"two", signature, sent.signers, "b")


def test_signers_file_must_be_closed(sent: Sent, tmp_path: Path) -> None:
    """A file of allowed signers that others may write, a missing one, and none at all trust nobody."""
    opened = Path(allow(tmp_path / "allowed", thor="ssh-ed25519 AAAA"))
    opened.chmod(0o666)
    for signers in (str(opened), str(tmp_path / "missing"), ""):
        with pytest.raises(ConfigError):
            look_at(sent.directory / "bundle", signers)


def test_unusable_keys_are_named(tmp_path: Path) -> None:
    """No key, and a file that is none, are errors of the configuration that say how to make one."""
    (tmp_path / "key").write_text("no key")
    for key in ("", str(tmp_path / "key")):
        with pytest.raises(ConfigError) as refused:
            sign(b"content", key)
        assert "ssh-keygen -t ed25519" in refused.value.hint


# Attacks on the archive

Members = list[tuple[tarfile.TarInfo, bytes]]


def renamed(name: str) -> Callable[[Members], None]:
    def attack(members: Members) -> None:
        members[3][0].name = name

    return attack


def retyped(kind: bytes) -> Callable[[Members], None]:
    def attack(members: Members) -> None:
        info = members[3][0]
        info.type, info.linkname, info.size = kind, "/etc/passwd", 0
        members[3] = (info, b"")

    return attack


def doubled(members: Members) -> None:
    members.insert(4, members[3])


def exchanged(members: Members) -> None:
    members[3], members[4] = members[4], members[3]


def shortened(members: Members) -> None:
    del members[4]


def added(members: Members) -> None:
    members.append((copy.copy(members[3][0]), members[3][1]))
    members[-1][0].name = "run.sh"


def other_content(members: Members) -> None:
    info, content = members[3]
    members[3] = (info, bytes(len(content)))


def other_size(members: Members) -> None:
    info, content = members[3]
    info.size += 1
    members[3] = (info, content + b"x")


def executable(members: Members) -> None:
    members[3][0].mode = 0o755


def owned(members: Members) -> None:
    members[3][0].uname = "root"


ATTACKS: dict[str, Callable[[Members], None]] = {
    "absolute path": renamed("/etc/cron.d/evil"),
    "parent directory": renamed("../../current"),
    "another name": renamed("adapter_model.bin"),
    "long name": renamed(f"{'d' * 90}/{'n' * 90}"),
    "symbolic link": retyped(tarfile.SYMTYPE),
    "hard link": retyped(tarfile.LNKTYPE),
    "character device": retyped(tarfile.CHRTYPE),
    "block device": retyped(tarfile.BLKTYPE),
    "pipe": retyped(tarfile.FIFOTYPE),
    "directory": retyped(tarfile.DIRTYPE),
    "sparse file": retyped(tarfile.GNUTYPE_SPARSE),
    "extended header": retyped(tarfile.XHDTYPE),
    "global header": retyped(tarfile.XGLTYPE),
    "long link": retyped(tarfile.GNUTYPE_LONGLINK),
    "twice": doubled,
    "another order": exchanged,
    "one missing": shortened,
    "one more": added,
    "other content": other_content,
    "other size": other_size,
    "executable": executable,
    "an owner": owned,
}


def test_unchanged_archive_is_accepted(sent: Sent, tmp_path: Path) -> None:
    """What the attacks below change is accepted as long as nothing is changed."""
    assert packed(entries(sent.content)) == sent.content
    assert arrived(sent, packed(entries(sent.content)), tmp_path).signer == "thor"


@pytest.mark.parametrize("name", ATTACKS)
def test_archive_attacks_are_refused(sent: Sent, tmp_path: Path, name: str) -> None:
    """Every archive that tarfile can write and this program would not is refused, and nothing is left of it."""
    members = entries(sent.content)
    ATTACKS[name](members)
    with pytest.raises(BundleInvalid):
        arrived(sent, packed(members), tmp_path)
    left = [path for path in tmp_path.rglob("*") if path.name not in ("arrived", ".lock") and not path.is_dir()]
    assert left == []
    assert foreign_bundles(tmp_path / "state") == []


@pytest.mark.parametrize("change", [b"x", bytes(512), END])
def test_trailing_bytes_are_refused(sent: Sent, tmp_path: Path, change: bytes) -> None:
    """Nothing may stand behind the end, not even zero bytes."""
    with pytest.raises(BundleInvalid, match="more behind it"):
        arrived(sent, sent.content + change, tmp_path)


def test_huge_header_is_not_read(sent: Sent, tmp_path: Path) -> None:
    """A header that claims more than 64 KiB is refused by its first block."""
    with pytest.raises(BundleInvalid, match="no bundle"):
        arrived(sent, description("bundle.json", 2**30) + sent.content[512:], tmp_path)


def test_huge_file_is_not_opened(sent: Sent, tmp_path: Path) -> None:
    """A file that is larger than any bundle is refused by its size."""
    with open(tmp_path / "large", "wb") as file:
        file.truncate(MAX_BUNDLE_BYTES + 1)
    with pytest.raises(BundleInvalid, match="at most"):
        look_at(tmp_path / "large", sent.signers)


def test_pipe_is_not_waited_for(sent: Sent, tmp_path: Path) -> None:
    """A pipe in the place of a bundle is refused, and nobody waits for a writer."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="regular file"):
        look_at(tmp_path / "pipe", sent.signers)


def signed_as(sent: Sent, header: dict[str, object]) -> bytes:
    """The bundle with another header, truly signed by thor."""
    signed = json.dumps(header).encode()
    small = {"bundle.json": signed, "bundle.json.sig": sign(signed, str(sent.key))}
    front = b"".join(description(name, len(one)) + one + padding(len(one)) for name, one in small.items())
    rest = entries(sent.content)[2:]
    return front + b"".join(description(i.name, i.size) + one + padding(i.size) for i, one in rest) + END


HEADERS: dict[str, Callable[[dict[str, object]], object]] = {
    "newer version": lambda header: header.update(version=2),
    "unknown key": lambda header: header.update(run="rm -rf /"),
    "another member": lambda header: header["members"][0].update(name="../x"),  # type: ignore[index]
    "too large a member": lambda header: header["members"][0].update(bytes=2**40),  # type: ignore[index]
    "negative size": lambda header: header["members"][0].update(bytes=-1),  # type: ignore[index]
    "no hash": lambda header: header["members"][0].update(sha256=""),  # type: ignore[index]
    "a member less": lambda header: header["members"].pop(),
    "a member twice": lambda header: header["members"].append(header["members"][0]),  # type: ignore[index]
    "no cycle": lambda header: header.update(cycle=0),
    "no base": lambda header: header.update(base_fingerprint=""),
}


@pytest.mark.parametrize("name", HEADERS)
def test_signed_nonsense_is_refused(sent: Sent, tmp_path: Path, name: str) -> None:
    """A header that no bundle has is refused although an allowed signer signed it."""
    header = json.loads(entries(sent.content)[0][1])
    HEADERS[name](header)
    with pytest.raises(BundleInvalid):
        arrived(sent, signed_as(sent, header), tmp_path)


@given(cut=st.integers(0, 10**6))
def test_cut_bundles_are_refused(sent: Sent, cut: int) -> None:
    """A bundle that is cut off anywhere is refused."""
    with pytest.raises(BundleInvalid):
        read_all(sent.content[: cut % len(sent.content)])


@given(place=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_flipped_bits_are_refused(sent: Sent, place: int, bit: int) -> None:
    """A single flipped bit is refused, wherever it is outside the two files that the signature speaks of."""
    changed = bytearray(sent.content)
    changed[place % len(changed)] ^= 1 << bit
    front = BundleReader(io.BytesIO(sent.content), "b").front()
    try:
        found = read_all(bytes(changed))
    except BundleInvalid:
        return
    assert (found.signed, found.signature) != (front.signed, front.signature)  # what ssh-keygen refuses


def read_all(content: bytes) -> Front:
    reader = BundleReader(io.BytesIO(content), "b")
    front = reader.front()
    for member in front.header.members:
        reader.member(member, len)
    reader.end()
    return front


@given(content=st.binary(max_size=2000))
def test_any_bytes_are_refused(content: bytes) -> None:
    """Bytes that are no bundle are refused with an error of ours, whatever they are."""
    with pytest.raises(BundleInvalid):
        read_all(content)


# What an import leaves


def test_import_is_a_candidate(sent: Sent, tmp_path: Path) -> None:
    """An imported bundle stands whole below foreign/ID, with who signed it, and nothing else changes."""
    bundle = arrived(sent, sent.content, tmp_path)
    directory = tmp_path / "state/foreign" / bundle.id
    assert {path.name for path in directory.iterdir()} == {
        "bundle.json", "bundle.json.sig", "received.json", *list(MEMBERS)[:5],
    }  # fmt: skip
    assert (bundle.signer, bundle.received_at, bundle.header.cycle) == ("thor", NOW, 7)
    assert {path.stat().st_mode & 0o777 for path in directory.iterdir()} == {0o640}
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["foreign"]


def test_second_arrival_changes_nothing(sent: Sent, tmp_path: Path) -> None:
    """The same bundle under another name is known by its content."""
    bundle = arrived(sent, sent.content, tmp_path)
    (tmp_path / "conflicted copy").write_bytes(sent.content)
    with pytest.raises(NothingToDo, match="here already"):
        import_bundle(tmp_path / "conflicted copy", tmp_path / "state", sent.signers, at=NOW)
    assert foreign_bundles(tmp_path / "state") == [bundle]


def test_killed_import_is_swept(sent: Sent, tmp_path: Path) -> None:
    """What a killed import left is no bundle, and the next import removes it."""
    left = tmp_path / "state/foreign/.0000.1.tmp"
    left.mkdir(parents=True)
    assert foreign_bundles(tmp_path / "state") == []
    arrived(sent, sent.content, tmp_path)
    assert not left.exists()


def test_bundles_are_bounded(sent: Sent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the most bundles kept, a further one is refused with the command that makes room."""
    monkeypatch.setattr("sleepd.bundles.foreign.MOST_KEPT", 0)
    with pytest.raises(StateDirectoryUnusable) as refused:
        arrived(sent, sent.content, tmp_path)
    assert "sleepctl bundle remove" in refused.value.hint
