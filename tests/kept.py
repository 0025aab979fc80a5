"""Texts that are kept word by word in ``tests/data/said/``, so that no test spells a sentence.

``KEEP_SAID=1 python -m pytest …`` keeps what is said now, in place of what is there; read the difference afterwards.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

SAID: Final = Path(__file__).parent / "data" / "said"


def kept(name: str, said: str, **shown_as: object) -> str:
    """Compare ``said`` with the kept text of that name: it is returned with the places of this run put into it.

    ``shown_as`` holds these places: what stands as ``{name}`` in the kept text is the value here.
    """
    path = SAID / f"{name}.txt"
    if os.environ.get("KEEP_SAID"):
        for key, value in shown_as.items():
            said = said.replace(str(value), f"{{{key}}}")
        path.write_text(said, encoding="utf-8")
    text = path.read_text(encoding="utf-8")
    for key, value in shown_as.items():
        text = text.replace(f"{{{key}}}", str(value))
    return text
