"""From decoded records, whatever program wrote them, to what can be learned of them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from sleepd.config.buffer_config import BufferConfig

from .breakthrough_marks import bears_a_mark, folded_marks
from .conversation import Conversation, SupervisedReply, nothing_to_learn, supervised_replies
from .experience import DEFAULT_SALIENCE, Experience, conversation_of, group_of, id_hash, parse
from .formats.format import Format, NotRead, SessionReader
from .formats.recognition import format_of
from .formats.unread import unknown_record, unread_program
from .orphaned_results import without_orphans
from .rating.rating_names import names_rated
from .said_before import SaidBefore

OWN: Final = "own"
"""The name of our own short form."""


class HalfWritten(Exception):
    """The content is no whole buffer: its writer is in the middle of it, it is damaged, or nothing that is read."""


class NoJson(str):
    """Why a text is no JSON. A type of its own: a JSON string is a str too, with any content."""


class ReadSettings(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a buffer is read."""

    format: str = "auto"
    """The name of a format; ``auto``: each record is read as what it looks like."""
    default_salience: float = DEFAULT_SALIENCE
    ratings: dict[str, float] = {}
    """The salience that people gave afterwards, by id, and by conversation and number of the reply
    (``rating_names.rating_key``)."""
    served_as: str = ""
    """The model name under which the engine in service answers; what names another model was not said by it."""
    marks: tuple[str, ...] = ()
    """A record that bears one of them is a breakthrough; folded (``breakthrough_marks``)."""


READ_BY_DEFAULT: Final = ReadSettings()


def read_settings(config: BufferConfig, served_as: str = "", marks: Sequence[str] = ()) -> ReadSettings:
    """How a buffer is read, by its configuration; ``served_as`` and ``marks`` as in ``ReadSettings``."""
    return ReadSettings(
        format=config.format,
        default_salience=config.default_salience,
        served_as=served_as,
        marks=folded_marks(marks),
    )


class Learnable:
    """One experience: its figures, and its texts when they are asked for."""

    def __init__(self, source: Experience | SupervisedReply, settings: ReadSettings, *, is_given: bool) -> None:
        self._source = source
        self._settings = settings
        self.id = source.id
        self.key = id_hash(source.id)
        if isinstance(source, Experience):
            self.group, self.conversation = group_of(source), conversation_of(source)
            self.salience = source.salience
        else:
            self.group, self.conversation = source.group, source.conversation_hash
            given = source.turn.salience
            self.salience = settings.default_salience if given is None else given
        self.rated_by = names_rated(settings.ratings, self.id, source.rated_as) if settings.ratings else []
        """Those of its names that ratings name."""
        if self.rated_by:
            self.salience, is_given = settings.ratings[self.rated_by[0]], True
        self.is_salience_given = is_given
        self.is_marked = False
        """Its record bears a mark."""

    def experience(self) -> Experience:
        """With its texts."""
        source, settings = self._source, self._settings
        if isinstance(source, SupervisedReply):
            one = source.experience(settings.default_salience, settings.served_as)
        else:
            one = source
        return one if one.salience == self.salience else msgspec.structs.replace(one, salience=self.salience)


MOST_HELD: Final = 1000
"""Records of no format that are held back at the beginning of a file: where no other follows, it is named as one."""
_UNFORESEEN: Final = (TypeError, ValueError, LookupError, AttributeError, RecursionError)
"""What a reader raises on values that nobody thought of: the record is skipped, and the others are read."""


def _unforeseen(error: Exception) -> str:
    return f"its parts are of kinds that its format does not have ({type(error).__name__})"


class Learnables:
    """Reads the records of one file.

    Args:
        settings: how.
        has_found: an experience was found in what stands before: then no record makes the file one of another program.
        said: what a log of requests has held before.
    """

    def __init__(
        self, settings: ReadSettings = READ_BY_DEFAULT, *, has_found: bool = False, said: SaidBefore | None = None
    ) -> None:
        self._settings = settings
        self._said = said or SaidBefore()
        self._sessions: dict[str, tuple[str, SessionReader]] = {}
        """By the name of the format: the position of the first record, and what takes the records in."""
        self._has_found = has_found
        self._unread: tuple[str, str] | None = None
        """The position of the first record of a program that is not read, and the sentence that names it once."""
        self._unknown = ""
        """Of a file in which every record so far is of no format: the sentence that names the first."""
        self._has_known = has_found
        """A record was of some format, or is no JSON."""

    @property
    def has_session(self) -> bool:
        """Whether records were messages of one conversation, so that the file must be read as a whole."""
        return bool(self._sessions)

    def read(self, records: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, Learnable | str]]:
        """What can be learned, each with its position; the reason for a record that cannot be read.

        Raises:
            HalfWritten: all records are of a program that is not read, or of no format.
        """
        held: list[tuple[str, str]] = []
        for position, record in records:
            is_marked = self._is_marked(record)
            for found in self._of_record(position, record):
                if isinstance(found, Learnable):
                    found.is_marked = is_marked
                if not self._has_known and isinstance(found, str) and len(held) < MOST_HELD:
                    held.append((position, found))
                    continue
                yield from held
                held.clear()
                self._has_found = self._has_found or not isinstance(found, str)
                yield position, found
        if not self._has_known and self._unknown:
            raise HalfWritten(self._unknown)
        yield from held
        for position, session in self._sessions.values():
            for found in self._of_conversations(session.conversations):
                yield position, found
        if self._unread is not None:
            if not self._has_found and not self._sessions:
                raise HalfWritten(self._unread[1])
            yield self._unread

    def _of_record(self, position: str, record: Any) -> Iterator[Learnable | str]:
        if isinstance(record, NoJson):
            self._has_known = True
            yield str(record)
            return
        known = self._format(record) if isinstance(record, Mapping) else None
        other = format_of(record) if known is None and isinstance(record, Mapping) else None
        unknown = "" if known or other else unknown_record(record)
        self._unknown = self._unknown or unknown
        self._has_known = self._has_known or not unknown
        if unknown:
            yield unknown
        elif other is not None and self._settings.format != OWN:
            yield f"expected the format {self._settings.format}, found {other.name}"
        elif known is None:
            yield from self._own(position, record)
        elif known.session is not None:
            try:
                self._session(known, position).add(record)
            except NotRead as error:
                yield str(error)
            except _UNFORESEEN as error:
                yield _unforeseen(error)
        else:
            assert known.conversations is not None
            conversations = known.conversations
            yield from self._of_conversations(lambda: conversations(record))

    def _is_marked(self, record: Any) -> bool:
        marks = self._settings.marks
        return bool(marks) and isinstance(record, Mapping) and bears_a_mark(record, marks)

    def _format(self, record: Mapping[str, Any]) -> Format | None:
        return None if self._settings.format == OWN else format_of(record, self._settings.format)

    def _session(self, known: Format, position: str) -> SessionReader:
        if known.name not in self._sessions:
            assert known.session is not None
            self._sessions[known.name] = position, known.session()
        return self._sessions[known.name][1]

    def _own(self, position: str, record: Any) -> Iterator[Learnable | str]:
        found = parse(record, self._settings.default_salience, self._settings.served_as)
        if isinstance(found, Experience):
            yield self._learnable(found, is_given=record.get("salience") is not None)
        elif sentence := unread_program(record):
            self._unread = self._unread or (position, sentence)
        else:
            yield found

    def _of_conversations(self, conversations: Any) -> Iterator[Learnable | str]:
        """What a record, or a session, holds; where that is nothing, why not."""
        is_silent, why = True, ""
        try:
            for conversation in conversations():
                if isinstance(conversation, NotRead):
                    is_silent = False
                    yield str(conversation)
                    continue
                for found in self._of_conversation(conversation):
                    is_silent = False
                    yield found
                why = why or nothing_to_learn(conversation)
            if is_silent and why:
                yield why
        except NotRead as error:
            yield str(error)
        except _UNFORESEEN as error:
            yield _unforeseen(error)
        except MemoryError:
            yield "its texts take more memory than there is"

    def _of_conversation(self, conversation: Conversation) -> Iterator[Learnable | str]:
        conversation, orphans = without_orphans(conversation)
        yield from orphans
        for reply in supervised_replies(conversation, self._said):
            if isinstance(reply, str):
                yield reply
                continue
            yield self._learnable(reply, is_given=reply.turn.salience is not None)
            if reply.said is not None:
                self._said.add(reply.said, reply.key)

    def _learnable(self, source: Experience | SupervisedReply, *, is_given: bool) -> Learnable | str:
        try:
            return Learnable(source, self._settings, is_given=is_given)
        except MemoryError:
            return "its texts take more memory than there is"
