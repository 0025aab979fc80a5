"""Search in the newest experiences of the buffer. The texts are read anew; the service itself keeps none."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from sleepd.buffer.experience import Experience
from sleepd.buffer.trained_texts import SHOWN_AT_ONCE, SHOWN_CHARACTERS, limited
from sleepd.cycles.read_model import ReadModel
from sleepd.protocol.answers import FoundText, FoundTexts
from sleepd.text.personal_data import masked

SEARCHED: Final = 2000
"""Experiences, the newest: the texts of a large buffer do not fit into the daemon's memory."""


async def search(reader: ReadModel, words: str, *, limit: int) -> FoundTexts:
    """Those whose prompt or reply holds the words, case aside, and may be read by everybody; newest first.

    Raises:
        BufferUnreadable: the buffer cannot be read.
    """
    keys = reader.buffer.view.keys[-SEARCHED:]
    texts = await reader.buffer.texts(keys, characters=SHOWN_AT_ONCE)
    masks = reader.config.quarantine.personal_data == "mask"
    # In a thread: millions of characters take a while, and the loop must turn.
    matching = await asyncio.to_thread(_matching, texts, words.casefold(), masks=masks)
    found = [shown for text, shown in matching if reader.buffer.may_text_be_shown(text)]
    return FoundTexts(found=found[: limited(limit)], total=len(found), searched=len(keys))


def _matching(texts: Sequence[Experience], words: str, *, masks: bool) -> list[tuple[Experience, FoundText]]:
    """Personal data that are masked in training are not searched either."""
    found = []
    for text in reversed(texts):
        parts = [masked(part)[0] if masks else part for part in (text.prompt, text.response)]
        if any(words in part.casefold() for part in parts):
            prompt, response = (part[:SHOWN_CHARACTERS] for part in parts)
            found.append((text, FoundText(id=text.id, salience=text.salience, prompt=prompt, response=response)))
    return found
