"""Where the experiences of a cycle are now: still in the buffer as they were trained, changed, or gone. Pure.

An id that bears another text is not shown as what was trained: nobody measured anything on that text.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

import msgspec

from sleepd.protocol.job import Role
from sleepd.text.personal_data import masked

from .experience import Experience, group_of, id_hash
from .rating.rating_names import REJECTED

SHOWN_CHARACTERS: Final = 600
"""Of a prompt or a response: enough to recognise it."""
MOST_SHOWN: Final = 200
SHOWN_AT_ONCE: Final = 20_000_000
"""Characters of all texts that are read for one answer, from which the beginnings are shown."""


class TrainedText(msgspec.Struct, frozen=True, kw_only=True):
    """One experience of a cycle, as its text stands in the buffer."""

    id: str
    role: Role
    salience: float
    prompt: str
    """Its beginning, as that of the response."""
    response: str
    is_withheld: bool = False
    """A secret was found in it, or it was not screened as it is now: the texts are empty."""


class TrainedTexts(msgspec.Struct, frozen=True, kw_only=True):
    """What a cycle trained and replayed, as far as the buffer still has it."""

    cycle: int
    experiences: list[TrainedText]
    """The most salient of those that are still there, trained ones first."""
    present: int
    """All that are still there with the text that was trained."""
    changed: list[str]
    """Ids that are there with another text, which is not what was trained."""
    gone: list[str]
    """Ids that are no longer there."""
    rejected: list[str] = []
    """Ids of those that a person has rated down since."""
    problem: str = ""
    """Why no text is shown, or not that of the buffer as it is now."""


class Place(NamedTuple):
    """One experience of a cycle."""

    id: str
    group: int
    """See ``experience.content_hash``."""
    role: Role


class Found(NamedTuple):
    """One experience of the buffer."""

    group: int
    salience: float


class Whereabouts(NamedTuple):
    """The experiences of a cycle, sorted by what became of them."""

    present: list[Place]
    """Trained ones first, each kind with the most salient first."""
    changed: list[str]
    gone: list[str]
    rejected: list[str]
    """Rated down since they were trained: of those that are present or gone."""


def whereabouts(places: Iterable[Place], buffer: Mapping[int, Found], rated_down: Collection[int] = ()) -> Whereabouts:
    """Look each place up in the buffer, which is given by key, and among the keys that are kept as rated down."""
    gone_and_rejected = list[str]()
    present: list[tuple[Place, Found]] = []
    changed, gone = [], []
    for place in places:
        found = buffer.get(id_hash(place.id))
        if found is None:
            gone.append(place.id)
            if id_hash(place.id) in rated_down:
                gone_and_rejected.append(place.id)
        elif found.group != place.group:
            changed.append(place.id)
        else:
            present.append((place, found))
    present.sort(key=lambda each: (each[0].role != "train", -each[1].salience))
    rejected = [place.id for place, found in present if found.salience == REJECTED]
    rejected += gone_and_rejected
    return Whereabouts([place for place, _ in present], changed, gone, rejected)


def trained_texts(
    cycle: int,
    known: Whereabouts,
    texts: Iterable[Experience],
    *,
    limit: int,
    problem: str = "",
    withheld: Collection[str] = (),
    masks: bool = False,
) -> TrainedTexts:
    """The first ``limit`` of what is present, with its text, where that was found and is not ``withheld``, by id.

    ``masks``: with placeholders for personal data, as it is trained.
    """
    by_id = {text.id: text for text in texts}
    shown = [(place, by_id.get(place.id)) for place in known.present[:limit]]
    return TrainedTexts(
        cycle=cycle,
        # Read a moment later than it was looked up: the buffer may have changed in between.
        experiences=[
            _shown(place, text, is_withheld=place.id in withheld, masks=masks)
            for place, text in shown
            if text is not None and _is_same(place, text)
        ],
        present=len(known.present),
        changed=known.changed,
        gone=known.gone,
        rejected=known.rejected,
        problem=problem,
    )


def limited(limit: int) -> int:
    """How many texts are given to one who asks for so many."""
    return min(max(limit, 0), MOST_SHOWN)


def keys_of(places: Sequence[Place]) -> list[int]:
    """As the buffer is asked for them."""
    return [id_hash(place.id) for place in places]


def _is_same(place: Place, text: Experience) -> bool:
    return group_of(text) == place.group


def _shown(place: Place, text: Experience, *, is_withheld: bool, masks: bool) -> TrainedText:
    characters = 0 if is_withheld else SHOWN_CHARACTERS
    texts = [part[: 2 * characters] for part in (text.prompt, text.whole_response)]
    prompt, response = (masked(part)[0] if masks else part for part in texts)
    return TrainedText(
        id=place.id,
        role=place.role,
        salience=text.salience,
        prompt=prompt[:characters],
        response=response[:characters],
        is_withheld=is_withheld,
    )
