"""A bundle as bytes: a tar file that can be written in one way only, and is read in that way only.

    bundle.json       what is signed
    bundle.json.sig   the signature over it
    …                 the members that bundle.json names, in the order of ``contents.MEMBERS``
    1024 zero bytes   the end of a tar file; nothing stands behind it

Rule 1: each block of 512 bytes that describes a file equals, byte for byte, the one that this module would write for
that name and that size. A path, a link, a device, an extended header or a second entry is thereby no special case: its
block is another one. No field of a hostile header is interpreted, except the sizes of the first two files, which are
bounded.
Rule 2: nothing is compressed, so that no small file becomes a large one.
Rule 3: the reader stops at the first difference. Nothing of a bundle is used before its end was reached.

Any tar program unpacks it: ``tar xf FILE``, then ``ssh-keygen -Y verify … -s bundle.json.sig < bundle.json`` and
``sha256sum`` check it by hand.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import BinaryIO, Final, NamedTuple

from sleepd.errors import BundleInvalid

from .contents import (
    HEADER_FILE,
    MAX_HEADER_BYTES,
    MAX_SIGNATURE_BYTES,
    SIGNATURE_FILE,
    BundleHeader,
    Member,
    bundle_id,
    decode_header,
)

BLOCK: Final = 512
END: Final = bytes(2 * BLOCK)
MAX_FRONT_BYTES: Final = 2 * BLOCK + MAX_HEADER_BYTES + MAX_SIGNATURE_BYTES
"""As many bytes hold the front of every bundle."""
_PIECE: Final = 2**20
_SIZE_FIELD: Final = slice(124, 136)
_SIZE: Final = re.compile(rb"([0-7]{11})\0")
_AGAIN: Final = "have it sent again; it may have been cut off or changed on its way"


def description(name: str, size: int) -> bytes:
    """The block that stands before a file: no owner, no time, one mode."""
    import tarfile  # here: the daemon imports this module and writes no bundle

    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    return info.tobuf(format=tarfile.USTAR_FORMAT)


def padding(size: int) -> bytes:
    """What fills the last block of a file."""
    return bytes(-size % BLOCK)


def write_small(target: BinaryIO, name: str, content: bytes) -> None:
    """One file whose content is in memory."""
    target.write(description(name, len(content)) + content + padding(len(content)))


class Front(NamedTuple):
    """What stands before the members."""

    header: BundleHeader
    signed: bytes
    """``bundle.json`` as it stands."""
    signature: bytes

    @property
    def id(self) -> str:
        """The bundle's id."""
        return bundle_id(self.signed)

    @property
    def whole_bytes(self) -> int:
        """Of the whole bundle: what stands here is enough to know it."""
        sizes = [len(self.signed), len(self.signature), *(each.bytes for each in self.header.members)]
        return sum(BLOCK + size + len(padding(size)) for size in sizes) + len(END)


class BundleReader:
    """Reads one bundle from its beginning to its end: ``front``, then ``member`` for each member, then ``end``.

    Args:
        file: open for reading, at its beginning.
        name: of the bundle in messages.
    """

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file = file
        self._name = name

    def front(self) -> Front:
        """Header and signature; the signature is not checked here.

        Raises:
            BundleInvalid: it does not begin as a bundle does.
        """
        signed = self._small(HEADER_FILE, MAX_HEADER_BYTES)
        signature = self._small(SIGNATURE_FILE, MAX_SIGNATURE_BYTES)
        return Front(decode_header(signed, self._name), signed, signature)

    def member(self, member: Member, take: Callable[[bytes], object]) -> None:
        """The next member, piece by piece to ``take``.

        Raises:
            BundleInvalid: it is not the one that the header names.
        """
        self._expect(description(member.name, member.bytes), member.name)
        digest, left = hashlib.sha256(), member.bytes
        while left:
            piece = self._exactly(min(left, _PIECE), member.name)
            digest.update(piece)
            take(piece)
            left -= len(piece)
        self._expect(padding(member.bytes), member.name)
        if digest.hexdigest() != member.sha256:
            raise BundleInvalid(f"{self._name}: {member.name} is not what was signed", hint=_AGAIN)

    def end(self) -> None:
        """The end of the file.

        Raises:
            BundleInvalid: something stands behind the last member.
        """
        self._expect(END, "its end")
        if self._file.read(1):
            raise BundleInvalid(f"{self._name}: expected its end, found more behind it", hint=_AGAIN)

    def _small(self, name: str, most: int) -> bytes:
        block = self._exactly(BLOCK, name)
        match = _SIZE.fullmatch(block[_SIZE_FIELD])
        size = int(match[1], 8) if match else -1
        if not 0 <= size <= most or block != description(name, size):
            raise BundleInvalid(
                f"{self._name}: expected {name} of at most {most} bytes, found something else: no bundle", hint=_AGAIN
            )
        content = self._exactly(size, name)
        self._expect(padding(size), name)
        return content

    def _expect(self, expected: bytes, what: str) -> None:
        if self._exactly(len(expected), what) != expected:
            raise BundleInvalid(f"{self._name}: expected {what} as the header names it, found other bytes", hint=_AGAIN)

    def _exactly(self, size: int, what: str) -> bytes:
        content = self._file.read(size)
        if len(content) != size:
            raise BundleInvalid(f"{self._name}: it is cut off in {what}", hint=_AGAIN)
        return content
