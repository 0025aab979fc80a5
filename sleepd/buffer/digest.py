"""What was found in a buffer, as figures: a key, a group, a salience and a side of the split for each experience. Pure.

The texts are dropped at once, so that a hundred thousand experiences are three megabytes; ``pick`` reads some of them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

import msgspec

from .columns import BufferColumns
from .experience import Experience, id_hash
from .learnables import READ_BY_DEFAULT, Learnable, Learnables, ReadSettings
from .parsing import form_of, numbered, records
from .said_before import SaidBefore

MOST_SKIPPED: Final = 100
MOST_CHARACTERS: Final = 2_000_000
"""Of one experience, as the daemon takes them in: ten times what is screened."""


class Skipped(msgspec.Struct, frozen=True, kw_only=True):
    """A record of the buffer that is not used."""

    position: str
    """Where it stands: ``record 7`` or ``line 12``, counted from 1."""
    reason: str


class Digest:
    """What was found, growing record by record. The arrays run in parallel, in file order, each id once."""

    def __init__(self, form: str, known: BufferColumns | None = None) -> None:
        known = known or BufferColumns()
        self.form = form
        self.keys, self.groups = known.keys[:], known.groups[:]
        self.saliences, self.conversations = known.saliences[:], known.conversations[:]
        self.given, self.marked = known.given[:], known.marked[:]
        self.skipped: list[Skipped] = []
        self.skipped_total = 0
        self.rated = set[int]()
        """Hashes of the names by which ratings name what was found; see ``rating_names``."""
        self._index: dict[int, int] | None = None

    def add(self, position: str, found: Learnable | str) -> None:
        """Take in what a record holds, or the reason why it is skipped.

        A repeated id with the same text counts once, with its last salience; with other text it is skipped.
        """
        if isinstance(found, str):
            self.skip(position, found)
            return
        self.rated.update(map(id_hash, found.rated_by))
        known = self._find(found.key)
        if known is None:
            if self._index is not None:
                self._index[found.key] = len(self.keys)
            self.keys.append(found.key)
            self.groups.append(found.group)
            self.saliences.append(found.salience)
            self.conversations.append(found.conversation)
            self.given.append(found.is_salience_given)
            self.marked.append(found.is_marked)
        elif self.groups[known] != found.group:
            self.skip(position, f"id: {found.id!r} has another text above")
        else:
            self._take_again(known, found)

    def _take_again(self, known: int, found: Learnable) -> None:
        """Written again: the agent has thought better of it."""
        if found.is_salience_given:
            self.saliences[known], self.given[known] = found.salience, True
        if found.is_marked:
            self.marked[known] = True

    def skip(self, position: str, reason: str) -> None:
        """Count a record that is not used; the first hundred are kept with position and reason."""
        self.skipped_total += 1
        if len(self.skipped) < MOST_SKIPPED:
            self.skipped.append(Skipped(position=position, reason=reason))

    def indexed(self) -> Digest:
        """Hold an index while many records are taken in; ``compact`` drops it."""
        self._index = {key: place for place, key in enumerate(self.keys)}
        return self

    def compact(self) -> Digest:
        """Drop the index: a single record is found by a scan, and the memory is small."""
        self._index = None
        return self

    def columns(self) -> BufferColumns:
        """What was found, as a view has it."""
        arrays = {name: getattr(self, name) for name in BufferColumns.__struct_fields__}
        return BufferColumns(**arrays)

    def _find(self, key: int) -> int | None:
        if self._index is not None:
            return self._index.get(key)
        try:
            return self.keys.index(key)
        except ValueError:
            return None


def digest_whole(data: bytes, settings: ReadSettings = READ_BY_DEFAULT) -> Digest:
    """The figures of an array or an object form.

    Raises:
        HalfWritten: the content does not parse as a whole, or is of a program that is not read.
    """
    form = form_of(data[: 2**20])
    digest = Digest(form).indexed()
    for position, found in Learnables(settings).read(records(data, form)):
        digest.add(position, found)
    return digest.compact()


def digest_lines(
    lines: Iterable[bytes],
    digest: Digest,
    *,
    first: int,
    settings: ReadSettings = READ_BY_DEFAULT,
    said: SaidBefore | None = None,
) -> None:
    """Take complete lines into ``digest``; ``first`` is the number of the first one.

    ``said``: what the lines before have held.

    Raises:
        HalfWritten: the lines are of a program that is not read.
    """
    learnables = Learnables(settings, has_found=bool(digest.keys), said=said)
    for position, found in learnables.read(numbered(lines, first)):
        digest.add(position, found)
    if learnables.has_session:
        digest.form = "session"


def pick(
    found: Iterable[tuple[str, Learnable | str]], wanted: Collection[int], characters: int | None = None
) -> list[Experience]:
    """The experiences of ``wanted`` keys, in order, each id once as ``Digest`` has it.

    One that is longer than any that is trained comes without its texts. So does one that has no room left among
    ``characters``, of all texts together; None: they may be as many as there are.
    """
    asked, taken, left = set(wanted), dict[int, tuple[int, Experience]](), characters
    for _, each in found:
        if isinstance(each, str) or each.key not in asked:
            continue
        first = taken.get(each.key)
        if first is not None and first[0] != each.group:
            continue
        experience = each.experience()
        if first is not None and not each.is_salience_given:
            continue
        length = len(experience.prompt) + len(experience.response)
        if length > MOST_CHARACTERS or (left is not None and length > left):
            experience = msgspec.structs.replace(experience, prompt="", response="", context=(), calls=(), tools="")
        elif left is not None:
            left -= length
        taken[each.key] = each.group, experience
    return [experience for _, experience in taken.values()]
