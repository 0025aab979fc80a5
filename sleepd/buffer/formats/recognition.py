"""Of which format a record is. They are many modules, loaded for the first record that may be of one of them."""

from __future__ import annotations

from typing import Final

from .chat_exports import simonw_llm
from .format import Format, Record
from .training_files import trl

LIKE_OUR_OWN: Final = (simonw_llm.FORMAT, trl.FORMAT)
"""They have a prompt and a reply, too. With these two texts a record is none of the others, whatever else it holds."""


def format_of(record: Record, name: str = "auto") -> Format | None:
    """The format of a record: the named one, or the first that recognises it; None: none of them."""
    reply = record.get("response", record.get("completion"))
    if name == "auto" and isinstance(record.get("prompt"), str) and isinstance(reply, str):
        return next((one for one in LIKE_OUR_OWN if one.recognises(record)), None)
    from .known_formats import FORMATS

    asked = FORMATS if name == "auto" else [one for one in FORMATS if one.name == name]
    return next((one for one in asked if one.recognises(record)), None)
