"""What a bundle holds: its members, their order, their largest sizes, and the form of those that are written for it.

``bundle.json`` is what is signed. It names every other member with its size and SHA-256, so that one signature covers
all of them; its own SHA-256 is the bundle's id. Texts of the agent stand in no member but the last two, and these are
there only where the sender asked for them.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from sleepd.errors import DECODE_ERRORS, BundleInvalid
from sleepd.protocol.checkpoint.checkpoint_files import (
    CONFIG_FILE,
    FINGERPRINT_FILE,
    RESERVOIR_FILE,
    WEIGHTS_FILE,
    Digits,
)
from sleepd.protocol.verdict import Interval, Outcome

BUNDLE_VERSION: Final = 1
HEADER_FILE, SIGNATURE_FILE = "bundle.json", "bundle.json.sig"
MANIFEST_FILE: Final = "manifest.json"
EVIDENCE_FILE: Final = "evidence.json"
HASHES_FILE: Final = "lineage_hashes.json"
MAX_HEADER_BYTES: Final = 64 * 2**10
MAX_SIGNATURE_BYTES: Final = 16 * 2**10
MEMBERS: Final = {
    CONFIG_FILE: 2**20,
    WEIGHTS_FILE: 2**31,
    MANIFEST_FILE: 2**20,
    EVIDENCE_FILE: 2**20,
    HASHES_FILE: 64 * 2**20,
    FINGERPRINT_FILE: 8 * 2**20,
    RESERVOIR_FILE: 8 * 2**20,
}
"""Every member behind the signature, in the order in which they stand, and the most bytes of each."""
TEXT_MEMBERS: Final = (FINGERPRINT_FILE, RESERVOIR_FILE)
"""Those that hold prompts and replies; all others are always there."""
MAX_BUNDLE_BYTES: Final = sum(MEMBERS.values()) + 2**20
"""2.1 GiB."""

Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
_Short = Annotated[str, Meta(max_length=2000)]


class Member(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One file of a bundle."""

    name: str
    bytes: Annotated[int, Meta(ge=0)]
    sha256: Sha256


class BundleHeader(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``bundle.json``. It names no sender: the signature proves who that is."""

    version: int = BUNDLE_VERSION
    written_by: _Short
    """The sender's version of sage-sleepd."""
    cycle: Annotated[int, Meta(ge=1, le=10**9)]
    """The sender's number; it says nothing about the cycles of the machine that receives it."""
    created_at: _Short
    base_fingerprint: Annotated[str, Meta(pattern=r"^[0-9A-Za-z:+-]{1,200}\Z")]
    """Of the base's weights and their quantization, and of its configuration, tokenizer and chat template; see
    ``base_identity``."""
    lora_shape: _Short
    strategy: _Short
    members: tuple[Member, ...]

    def __post_init__(self) -> None:
        """Refuse members that no bundle has; msgspec makes it an error of the document."""
        names = [each.name for each in self.members]
        if names != [name for name in MEMBERS if name in names]:
            raise ValueError(f"expected the members {', '.join(MEMBERS)} in this order, found {', '.join(names)[:200]}")
        missing = [name for name in MEMBERS if name not in names and name not in TEXT_MEMBERS]
        if missing:
            raise ValueError(f"it has no {', '.join(missing)}")
        for each in self.members:
            if each.bytes > MEMBERS[each.name]:
                raise ValueError(f"{each.name}: at most {MEMBERS[each.name]} bytes, found {each.bytes}")

    @property
    def has_texts(self) -> bool:
        """Whether the sender's agent's texts are in it."""
        return any(each.name in TEXT_MEMBERS for each in self.members)

    @property
    def total_bytes(self) -> int:
        """Of all members."""
        return sum(each.bytes for each in self.members)


class SentFigure(msgspec.Struct, frozen=True, kw_only=True):
    """A figure that the sender held against a limit, without its sentence."""

    name: str
    value: float | None
    relation: Literal["above", "at least", "below", "at most", "within"]
    limit: float | None
    upper_limit: float | None
    is_met: bool
    is_binding: bool


class SentEvidence(msgspec.Struct, frozen=True, kw_only=True):
    """``evidence.json``: what the sender measured on the adapter, in figures. Here it decides nothing."""

    outcome: Outcome
    gain: Interval | None
    figures: tuple[SentFigure, ...]
    trained: int
    replayed: int
    held_out: int
    holdout_base: float | None
    holdout_before: float | None
    holdout_after: float | None
    device: str
    """What it was measured on."""
    dtype: str


class LineageHashes(msgspec.Struct, frozen=True, kw_only=True):
    """``lineage_hashes.json``: what the adapter may have been trained on, as hashes. Ids are the agent's own texts."""

    cycles: tuple[int, ...]
    """The adapter's own and those it continues, the newest first."""
    ids: tuple[Digits, ...]
    """Id hashes of all that was trained or replayed, sorted, each once."""
    contents: tuple[Digits, ...]
    """Content hashes of the same."""
    conversations: tuple[Digits, ...]
    """Hashes of the conversations that have more than one experience."""


class _AnyVersion(msgspec.Struct):
    version: int


def encoded(document: msgspec.Struct) -> bytes:
    """As a member: the same document gives the same bytes."""
    return msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n"


def bundle_id(signed: bytes) -> str:
    """The id of the bundle whose ``bundle.json`` this is."""
    return hashlib.sha256(signed).hexdigest()


def decode_header(signed: bytes, name: str) -> BundleHeader:
    """The header of the bundle that is called ``name`` in messages.

    Raises:
        BundleInvalid: it cannot be understood, or has another version.
    """
    try:
        version = msgspec.json.decode(signed, type=_AnyVersion).version
        if version == BUNDLE_VERSION:
            return msgspec.json.decode(signed, type=BundleHeader)
    except DECODE_ERRORS as error:
        raise BundleInvalid(f"{name}: {HEADER_FILE} is not understood: {error}", hint="have it sent again") from error
    raise BundleInvalid(
        f"{name}: a bundle of version {version}, this sage-sleepd reads {BUNDLE_VERSION}",
        hint="install the version that wrote it, or a newer one",
    )
