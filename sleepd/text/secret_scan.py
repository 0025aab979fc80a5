"""Whether a text holds a secret, by the detectors of the library detect-secrets.

Only the short-lived screening process uses this: the library takes 0.1 s to load. Its detectors by entropy
are off, since they call ordinary words and hashes secrets; so is the one for addresses, which are none.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from importlib.util import find_spec
from types import ModuleType
from typing import Any, Final

from .bounded_text import short_lines
from .hidden_forms import MAX_DEPTH, decoded, plain, spelled, without_gaps
from .labelled_secrets import MIN_CHARACTERS, PLACEHOLDER, find_labelled, find_recovery_codes, is_secret_value, lowered
from .seed_phrases import holds_seed_phrase
from .token_patterns import MAY_BE_CUT, MIN_RUN, find_cut_token, find_token, longest_word

LEFT_OUT: Final = frozenset({"Base64HighEntropyString", "HexHighEntropyString", "IPPublicDetector"})
_FILTERS: Final = (
    "is_sequential_string",
    "is_potential_uuid",
    "is_likely_id_string",
    "is_templated_secret",
    "is_prefixed_with_dollar_sign",
    "is_indirect_reference",
    "is_not_alphanumeric_string",
)
"""Of the library's: what only looks like a secret. Its other filters look at files, or ask a server."""

_MAY_HOLD_ONE: Final = re.compile(r"[0-9\"`=_“]|'\S{4,}'|://|-----|(?i:pass|secret|token|cred)|[^\x00-\x7f]")
"""Without any of these a line is prose: every detector asks for one of them. They take milliseconds, this does not."""
_BY_KEYWORD: Final = "Secret Keyword"
"""The one detector that knows a secret by the name beside it, and takes expressions for secrets too."""
_IN_KEYWORDS: Final = ("key", "pass", "pwd", "secret", "contrase")
"""One of these is in each name that this detector knows."""
_SHORT_SHAPES: Final = ("PRIVATE KEY", "eyJ", "://", "AKC", "AP")
"""One of these is in whatever the other detectors find that has no long run of characters; or the next."""
_SLACK: Final = "xox"
_KEYWORDS: Final = re.compile(r"(?i)api_?key|auth|aws|cache|creds|key|pass|pwd|secret|token|private")
MOST_KEYWORDS: Final = 12
"""In one line."""
SHORT_PIECE: Final = 100
"""Characters; each half of a piece is in two of them."""
MOST_CHARACTERS: Final = 200_000
"""Of one text; a longer one is skipped unread."""


def _for_the_library(line: str) -> Iterator[str]:
    """The line; in short pieces, where it repeats the words by which the library's keyword detector knows a secret.

    Its patterns are cubic in them: ten seconds for ten thousand characters of ``secretsecret…``.
    """
    if len(_KEYWORDS.findall(line)) <= MOST_KEYWORDS:
        yield line
        return
    for start in range(0, len(line), SHORT_PIECE // 2):
        yield line[start : start + SHORT_PIECE]


def may_hold_shape(line: str) -> bool:
    """Whether anything is in it that the library knows by its shape. Only its detectors know, and take long."""
    is_long = longest_word(line) >= MIN_RUN
    return is_long or any(shape in line for shape in _SHORT_SHAPES) or _SLACK in line.lower()


@contextmanager
def _without_requests() -> Iterator[None]:
    """While the library loads, which takes most of its time for ``requests``.

    With that it would ask servers whether a secret is in use; here it asks none.
    """
    if "requests" in sys.modules:
        yield
        return
    stub = ModuleType("requests")
    setattr(stub, "Response", object)  # noqa: B010 - a module of its own has no such name for mypy
    sys.modules["requests"] = stub
    try:
        yield
    finally:
        del sys.modules["requests"]


class _Library:
    """Loaded and set up, which takes as long as screening a hundred texts."""

    def __init__(self) -> None:
        with _without_requests():
            from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class
            from detect_secrets.core.scan import scan_line
            from detect_secrets.settings import configure_settings_from_baseline, get_plugins

            plugins: Iterable[type] = get_mapping_from_secret_type_to_class().values()
        names = {plugin.__name__ for plugin in plugins} - LEFT_OUT
        # Without a word on filters the library would keep none of these.
        filters = [{"path": f"detect_secrets.filters.heuristic.{name}"} for name in _FILTERS]
        configure_settings_from_baseline(
            {"plugins_used": [{"name": name} for name in sorted(names)], "filters_used": filters}
        )
        self.scan_line: Callable[[str], Iterable[object]] = scan_line
        detectors: Sequence[Any] = get_plugins()
        self.by_keyword = [one for one in detectors if one.secret_type == _BY_KEYWORD]
        self.by_shape = [one for one in detectors if one.secret_type != _BY_KEYWORD]


class SecretFinder:
    """Finds secrets; the library is loaded at the first text that needs it: most need none of its detectors.

    Raises:
        ModuleNotFoundError: the library is not installed.
    """

    def __init__(self) -> None:
        if find_spec("detect_secrets") is None:
            raise ModuleNotFoundError("No module named 'detect_secrets'")

    @cached_property
    def _library(self) -> _Library:
        return _Library()

    def find(self, text: str) -> str:
        """The kind of the first secret in a text, such as ``AWS Access Key``; empty: there is none.

        The kind of a secret in another form names that form: ``AWS Access Key, encoded``.
        """
        text = plain(text[:MOST_CHARACTERS])
        if kind := self._find_in(text):
            return kind
        if (apart := spelled(text)) and (kind := self._find_in(apart)):
            return f"{kind}, spelled"
        if MAY_BE_CUT.search(text) and (kind := find_cut_token(without_gaps(text))):
            return f"{kind}, cut apart"
        return self._find_encoded(text)

    def _find_encoded(self, text: str) -> str:
        layer = [text]
        for _ in range(MAX_DEPTH):
            layer = [plain(inner) for outer in layer for inner in decoded(outer)]
            for inner in layer:
                if kind := self._find_in(inner):
                    return f"{kind}, encoded"
        return ""

    def _find_in(self, text: str) -> str:
        for line in short_lines(text):
            if len(line) >= MIN_CHARACTERS and _MAY_HOLD_ONE.search(line) and (kind := self._find_in_line(line)):
                return kind
        if find_recovery_codes(text):
            return "Recovery Codes"
        return "Seed Phrase" if holds_seed_phrase(text) else ""

    def _find_in_line(self, line: str) -> str:
        if kind := find_token(line) or find_labelled(line):
            return kind
        if not self._asked(line):
            return ""
        parts = (part for part in _for_the_library(line) if self._is_noticed(part))
        for found in (each for part in parts for each in self._library.scan_line(part)):
            kind, value = str(getattr(found, "type", "secret")), str(getattr(found, "secret_value", None) or "")
            if not PLACEHOLDER.search(value) and (kind != _BY_KEYWORD or is_secret_value(value)):
                return kind
        return ""

    def _is_noticed(self, line: str) -> bool:
        """Whether any of the library's detectors finds something, before the library filters it.

        To ask them all, the library itself takes five times as long.
        """
        return any(True for detector in self._asked(line) for _ in detector.analyze_string(line))

    def _asked(self, line: str) -> list[Any]:
        """The detectors that may find something in it."""
        has_keyword = any(word in lowered(line) for word in _IN_KEYWORDS)
        return [
            *(self._library.by_keyword if has_keyword else ()),
            *(self._library.by_shape if may_hold_shape(line) else ()),
        ]
