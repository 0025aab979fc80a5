"""The texts that a cycle learned from, read anew in the buffer: the service itself keeps none."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from sleepd.buffer.experience import Experience
from sleepd.buffer.trained_texts import SHOWN_AT_ONCE, Found, Learned, Place, keys_of, limited, whereabouts
from sleepd.buffer.trained_texts import learned as as_learned
from sleepd.buffer.view import View
from sleepd.cycles.sleeper import Sleeper
from sleepd.errors import BufferUnreadable
from sleepd.store.checkpoint_documents import placements_of


async def learned(sleeper: Sleeper, cycle: int, *, limit: int) -> Learned:
    """What ``cycle`` trained and replayed, as far as the buffer still has it.

    Raises:
        NotFound: there is no such cycle.
    """
    sleeper.ledger.state(cycle)
    placed = placements_of(cycle, sleeper.ledger, sleeper.checkpoints)
    places = [Place(each.id, each.group, each.role) for each in placed if each.role != "holdout"]
    intake = sleeper.intake
    # In a thread: a hundred thousand experiences take a while, and the loop must turn.
    buffer = await asyncio.to_thread(_wanted, intake.view, set(keys_of(places)))
    known, limit = whereabouts(places, buffer), limited(limit)
    texts: list[Experience] = []
    problem = intake.problem
    try:
        if wanted := keys_of(known.present[:limit]):
            texts = await intake.buffer.extract(wanted, characters=SHOWN_AT_ONCE)
    except BufferUnreadable as error:
        problem = error.message
    # A secret may have been found after it was trained, or although the owner released it.
    withheld = {text.id for text in texts if not sleeper.intake.quarantine.screenings.may_text_be_shown(text)}
    return as_learned(cycle, known, texts, limit=limit, problem=problem, withheld=withheld, masks=_masks(sleeper))


def _masks(sleeper: Sleeper) -> bool:
    return sleeper.config.quarantine.personal_data == "mask"


def _wanted(view: View, keys: Collection[int]) -> dict[int, Found]:
    rows = zip(view.keys, view.groups, view.saliences, strict=True)
    return {key: Found(group, salience) for key, group, salience in rows if key in keys}
