"""``export.json``: what ``sleepctl export`` wrote, and what of it was measured."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from sleepd.protocol.status import SCHEMA

ExportForm = Literal["peft", "gguf", "merged", "merged-gguf"]
EXPORT_FILE: Final = "export.json"


class ExportedFile(msgspec.Struct, frozen=True, kw_only=True):
    """One file."""

    name: str
    bytes: int
    sha256: str


class ExportedAdapter(msgspec.Struct, frozen=True, kw_only=True):
    """One adapter in one form."""

    schema: int = SCHEMA
    cycle: int
    form: ExportForm
    directory: str
    files: list[ExportedFile]
    base: str
    """As the configuration names it, or the GGUF file that was named by hand."""
    base_fingerprint: str
    """Of the base that the adapter was trained on; empty: not recorded."""
    quantization: str = "none"
    """What the base was quantised to when the adapter was measured."""
    numbers: str = ""
    """The number format of a GGUF file."""
    converter: str = ""
    """What wrote it, with versions and licences; empty: the files are copies."""
    is_measured: bool
    """Whether the files themselves are what was measured; False: they were made from it."""
    verdict: str = ""
    """Of the adapter; empty: none is recorded."""
    measured: list[str] = []
    """Every figure of the adapter beside its limit, a sentence each."""
