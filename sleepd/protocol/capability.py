"""What a worker's interpreter is asked, and what it reports that it could do here.

The answers of ``python -m sleepd.worker.probe`` and ``python -m sleepd.worker.programs.check_base``.
"""

from __future__ import annotations

import msgspec

from .chat_example import ChatExample
from .evidence import ChatContract


class Capability(msgspec.Struct, frozen=True, kw_only=True):
    """The device and the base that a cycle would use. Nothing was loaded to find them out."""

    version: str
    """Of sage-sleepd in that interpreter."""
    torch: str = ""
    device: str = ""
    """As a cycle would use it, with the reason where it is not the one asked for; empty: see ``device_problem``."""
    dtype: str = ""
    device_problem: str = ""
    device_hint: str = ""
    device_free_bytes: int | None = None
    """Of the GPU's memory; None: the device is the CPU."""
    base_path: str = ""
    """Empty: see ``base_problem``."""
    base_bytes: int = 0
    """Of the base's weights on disk."""
    base_problem: str = ""
    base_hint: str = ""
    chat: ChatContract | None = None
    """What its chat template does; None: see ``chat_problem``, or it was not checked."""
    chat_problem: str = ""
    chat_hint: str = ""


class BaseCheck(msgspec.Struct, frozen=True, kw_only=True):
    """What was found out about a base without reading its weights."""

    problem: str = ""
    """Why no cycle can be made of it; empty: nothing is known against it."""
    hint: str = ""
    architecture: str = ""
    adapts: list[str] = []
    """Modules that the strategy's adapter changes, by the last part of their names."""
    positions: int | None = None
    """Tokens that its table of positions has room for; None: no limit."""
    needed_bytes: int = 0
    """Memory at the peak of a cycle whose longest row has ``row_tokens``."""
    row_tokens: int = 0
    is_buffer_seen: bool = False
    """Whether no experience of the buffer needs a longer row; else ``row_tokens`` are ``longest_tokens``."""
    longest_tokens: int = 0
    """Of an experience that the strategy trains, at most."""
    longest_bytes: int = 0
    """As ``needed_bytes``, with one experience of ``longest_tokens``."""
    notices: list[str] = []
    """What the operator must know, such as an adapter beside the base that is not used."""


class ShownText(ChatExample, frozen=True, kw_only=True):
    """One experience that ``check_base`` and ``show_tokens`` read on standard input."""


class SeenPiece(msgspec.Struct, frozen=True, kw_only=True):
    """Adjacent tokens of one kind."""

    text: str
    ids: list[int]
    is_supervised: bool
    is_control: bool
    """Whether they are control tokens, and not characters that look like some."""


class SeenTokens(msgspec.Struct, frozen=True, kw_only=True):
    """One experience as the base sees it: the answer of ``python -m sleepd.worker.programs.show_tokens``."""

    pieces: list[SeenPiece] = []
    is_truncated: bool = False
    problem: str = ""
    """Why it cannot be trained; empty: it can."""
    hint: str = ""
