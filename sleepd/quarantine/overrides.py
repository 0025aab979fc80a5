"""The operator's overrides on experiences: released, or dropped for ever.

It stands in ``quarantine.json``, not in the ledger, which may be lost. Without it nobody would know what must never be
trained, so a damaged one is an error at start-up, and no empty one.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from sleepd.buffer.experience import hash_text
from sleepd.clock import Moment
from sleepd.errors import DECODE_ERRORS, CheckpointInvalid
from sleepd.files import read_document, replace_file
from sleepd.protocol.checkpoint.checkpoint_files import Digits
from sleepd.text.shell import command_line

from .rules import Override, OverrideKind

FILE_NAME = "quarantine.json"


class _Entry(msgspec.Struct, frozen=True, kw_only=True):
    id: Annotated[str, Meta(max_length=256)]
    group: Digits
    word: OverrideKind
    at: Moment


class _OverrideFile(msgspec.Struct, frozen=True, kw_only=True):
    schema: int = 1
    decisions: dict[Digits, _Entry] = {}


class Overrides:
    """The decisions of one state directory.

    Raises:
        CheckpointInvalid: the file is there and cannot be understood.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / FILE_NAME
        self.by_key: Mapping[int, Override] = self._read()

    def _read(self) -> dict[int, Override]:
        try:
            document = msgspec.json.decode(read_document(self._path), type=_OverrideFile)
        except FileNotFoundError:
            return {}
        except (OSError, *DECODE_ERRORS) as error:
            raise CheckpointInvalid(
                f"{self._path}: not understood: {error}",
                hint="repair the file; without it, experiences that you dropped may be trained: "
                f"{command_line('mv', self._path, f'{self._path}.old')}",
            ) from error
        return {
            int(key, 16): Override(id=each.id, group=int(each.group, 16), kind=each.word, at=each.at)
            for key, each in document.decisions.items()
        }

    def change(self, changes: Mapping[int, Override | None]) -> None:
        """Set decisions, or (None) take them back: all of them, or none.

        Raises:
            OSError: the disk did not take it; nothing was changed.
        """
        new = {key: decision for key, decision in ({**self.by_key, **changes}).items() if decision is not None}
        document = _OverrideFile(
            decisions={
                hash_text(key): _Entry(id=each.id, group=hash_text(each.group), word=each.kind, at=each.at)
                for key, each in sorted(new.items())
            }
        )
        replace_file(self._path, msgspec.json.encode(document))
        self.by_key = new
