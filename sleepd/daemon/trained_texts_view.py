"""The texts that a cycle learned from, read anew in the buffer: the service itself keeps none."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from sleepd.buffer.experience import Experience
from sleepd.buffer.reading.view import View
from sleepd.buffer.trained_texts import SHOWN_AT_ONCE, Found, Place, keys_of, limited, trained_texts, whereabouts
from sleepd.cycles.read_model import ReadModel
from sleepd.errors import BufferUnreadable
from sleepd.protocol.answers import Learned

from .translation import learned_answer


async def learned(reader: ReadModel, cycle: int, *, limit: int) -> Learned:
    """What ``cycle`` trained and replayed, as far as the buffer still has it.

    Raises:
        NotFound: there is no such cycle.
    """
    reader.state(cycle)
    places = [Place(each.id, each.group, each.role) for each in reader.assignments(cycle) if each.role != "holdout"]
    # In a thread: a hundred thousand experiences take a while, and the loop must turn.
    found = await asyncio.to_thread(_wanted, reader.buffer.view, set(keys_of(places)))
    known, limit = whereabouts(places, found, reader.buffer.rated_down), limited(limit)
    texts: list[Experience] = []
    problem = reader.buffer.problem
    try:
        if wanted := keys_of(known.present[:limit]):
            texts = await reader.buffer.texts(wanted, characters=SHOWN_AT_ONCE)
    except BufferUnreadable as error:
        problem = error.message
    # A secret may have been found after it was trained, or although the operator released it.
    withheld = {text.id for text in texts if not reader.buffer.may_text_be_shown(text)}
    masks = reader.config.quarantine.personal_data == "mask"
    return learned_answer(
        trained_texts(cycle, known, texts, limit=limit, problem=problem, withheld=withheld, masks=masks)
    )


def _wanted(view: View, keys: Collection[int]) -> dict[int, Found]:
    rows = zip(view.keys, view.groups, view.saliences, strict=True)
    return {key: Found(group, salience) for key, group, salience in rows if key in keys}
