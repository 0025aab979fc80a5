"""Where the experiences of a cycle are now: still in the buffer as they were trained, changed, or gone. Pure.

An id that bears another text is not shown as what was trained: nobody measured anything on that text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from .experience import Experience, experience_key, group_key
from .job import Role
from .status import Learned, LearnedText

SHOWN_CHARACTERS: Final = 600
"""Of a prompt or a response: enough to recognise it."""
MOST_SHOWN: Final = 200


class Place(NamedTuple):
    """One experience of a cycle."""

    id: str
    group: int
    """See ``experience.group_key``."""
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


def whereabouts(places: Iterable[Place], buffer: Mapping[int, Found]) -> Whereabouts:
    """Look each place up in the buffer, which is given by key."""
    present: list[tuple[Place, Found]] = []
    changed, gone = [], []
    for place in places:
        found = buffer.get(experience_key(place.id))
        if found is None:
            gone.append(place.id)
        elif found.group != place.group:
            changed.append(place.id)
        else:
            present.append((place, found))
    present.sort(key=lambda each: (each[0].role != "train", -each[1].salience))
    return Whereabouts([place for place, _ in present], changed, gone)


def learned(cycle: int, known: Whereabouts, texts: Iterable[Experience], *, limit: int, problem: str = "") -> Learned:
    """The first ``limit`` of what is present, with its text, where that was found."""
    by_id = {text.id: text for text in texts}
    shown = [(place, by_id.get(place.id)) for place in known.present[:limit]]
    return Learned(
        cycle=cycle,
        # Read a moment later than it was looked up: the buffer may have changed in between.
        experiences=[_shown(place, text) for place, text in shown if text is not None and _is_same(place, text)],
        present=len(known.present),
        changed=known.changed,
        gone=known.gone,
        problem=problem,
    )


def limited(limit: int) -> int:
    """How many texts are given to one who asks for so many."""
    return min(max(limit, 0), MOST_SHOWN)


def keys_of(places: Sequence[Place]) -> list[int]:
    """As the buffer is asked for them."""
    return [experience_key(place.id) for place in places]


def _is_same(place: Place, text: Experience) -> bool:
    return group_key(text.prompt, text.response) == place.group


def _shown(place: Place, text: Experience) -> LearnedText:
    return LearnedText(
        id=place.id,
        role=place.role,
        salience=text.salience,
        prompt=text.prompt[:SHOWN_CHARACTERS],
        response=text.response[:SHOWN_CHARACTERS],
    )
