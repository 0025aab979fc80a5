"""Which replies a person rated down, kept beyond the buffer: what left it is in the reservoir still. Pure.

As long as a reply is in the buffer, what the buffer says counts. Of one that has left it the last rating counts.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from sleepd.buffer.columns import BufferColumns
from sleepd.buffer.experience import Experience, hash_text, id_hash
from sleepd.errors import DECODE_ERRORS, CheckpointInvalid
from sleepd.files import read_document
from sleepd.protocol.chat_example import Hash
from sleepd.text.shell import command_line

from .rating_names import REJECTED, rating_of

FILE_NAME: Final = "rated_down.json"


class _RatedDownFile(msgspec.Struct, frozen=True, kw_only=True):
    schema: int = 1
    keys: list[Hash] = []
    """See ``experience.id_hash``."""


def read_rated_down(directory: Path) -> frozenset[int]:
    """The keys that a state directory keeps.

    Raises:
        CheckpointInvalid: the file is there and cannot be understood.
    """
    path = directory / FILE_NAME
    try:
        document = msgspec.json.decode(read_document(path), type=_RatedDownFile)
        return frozenset(int(key, 16) for key in document.keys)
    except FileNotFoundError:
        return frozenset()
    except (OSError, ValueError, *DECODE_ERRORS) as error:
        raise CheckpointInvalid(
            f"{path}: not understood: {error}",
            hint="repair the file; without it, replies that were rated down may be repeated: "
            f"{command_line('mv', path, f'{path}.old')}",
        ) from error


def encode_rated_down(keys: Iterable[int]) -> bytes:
    """As a file."""
    return msgspec.json.encode(_RatedDownFile(keys=[hash_text(key) for key in sorted(keys)]))


def rated_down(
    before: Collection[int],
    *,
    buffer: BufferColumns,
    is_learned: Callable[[int], bool],
    kept: Iterable[Experience],
    ratings: Mapping[str, float],
) -> frozenset[int]:
    """Of what was learned, the keys of what is rated down now.

    Args:
        before: those of before.
        buffer: what the buffer holds.
        is_learned: whether the lineage has learned an experience.
        kept: what the reservoir holds.
        ratings: as ``ReadSettings.ratings``.
    """
    found = set(before)
    for key, _, salience in buffer.rows():
        if salience != REJECTED:
            found.discard(key)
        elif is_learned(key):
            found.add(key)
    kept_by_key = {id_hash(one.id): one for one in kept}
    present = set(kept_by_key).intersection(buffer.keys)
    for key, one in kept_by_key.items():
        rating = rating_of(ratings, one.id, one.rated_as)
        if rating is not None and key not in present:
            (found.add if rating == REJECTED else found.discard)(key)
    return frozenset(found)
