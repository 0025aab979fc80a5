"""Whether a text holds a secret, by the detectors of the library detect-secrets.

Only the short-lived screening process uses this: the library takes 0.2 s and 20 MiB to load. Its detectors by entropy
are off, since they call ordinary words and hashes secrets; so is the one for addresses, which are none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Final

from .bounded_text import short_lines

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

MIN_CHARACTERS: Final = 8
"""Nothing shorter is a secret that could be told from a word."""
_MAY_HOLD_ONE: Final = re.compile(r"[0-9\"`=_“]|'\S{4,}'|://|-----")
"""Without any of these a line is prose: every detector asks for one of them. They take milliseconds, this does not."""
_PLACEHOLDER: Final = re.compile(
    r"(?i)your|example|sample|placeholder|change.?me|dummy|fake|redacted|insert|secret_?key$|^test|x{4}|\*{3}|<|\.\.\.|…"
)
_NEWER_TOKENS: Final = {
    "Google API Key": re.compile(r"\bAIza[\w-]{35}\b"),
    "Anthropic API Key": re.compile(r"\bsk-ant-[\w-]{24,}"),
    "OpenAI Token": re.compile(r"\bsk-(?:proj-|svcacct-)?[A-Za-z0-9_]{32,}"),
    "Hugging Face Token": re.compile(r"\bhf_[A-Za-z0-9]{30,}\b"),
    "GitHub Token": re.compile(r"\bgithub_pat_\w{50,}"),
    "DigitalOcean Token": re.compile(r"\bdo[opr]_v1_[0-9a-f]{64}\b"),
    "Age Secret Key": re.compile(r"\bAGE-SECRET-KEY-1[0-9A-Z]{58}\b"),
}
"""Kinds of tokens that the library does not know."""
_TOLD: Final = re.compile(
    r"(?i)\b(?:\w*(?:pass(?:word|phrase|wd|code)?|pwd|api[ _-]?key|access[ _-]?key|secret(?:[ _-]key)?)|\w*[ _]?token)"
    r"\s*(?:is(?: now)?|was|to|:|=)\s*[\"'`“]?([^\s\"'`”,;]{8,64})"
)
_PIN: Final = re.compile(
    r"(?i)\b(?:pin|door code|alarm code)(?: code| number)?\s*(?:is|was|:|=)\s*\"?(\d{4,8})\b(?![.:/-]\d)"
)


class SecretFinder:
    """Holds the library, loaded."""

    def __init__(self) -> None:
        from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class
        from detect_secrets.core.scan import scan_line
        from detect_secrets.settings import configure_settings_from_baseline

        plugins: Iterable[type] = get_mapping_from_secret_type_to_class().values()
        names = {plugin.__name__ for plugin in plugins} - LEFT_OUT
        # Without a word on filters the library would keep none of these.
        filters = [{"path": f"detect_secrets.filters.heuristic.{name}"} for name in _FILTERS]
        configure_settings_from_baseline(
            {"plugins_used": [{"name": name} for name in sorted(names)], "filters_used": filters}
        )
        self._scan_line: Callable[[str], Iterable[object]] = scan_line

    def find(self, text: str) -> str:
        """The kind of the first secret in a text, such as ``AWS Access Key``; empty: there is none."""
        for line in short_lines(text):
            if len(line) >= MIN_CHARACTERS and _MAY_HOLD_ONE.search(line) and (kind := self._find_in_line(line)):
                return kind
        return ""

    def _find_in_line(self, line: str) -> str:
        for found in self._scan_line(line):
            value = str(getattr(found, "secret_value", None) or "")
            if not _PLACEHOLDER.search(value):
                return str(getattr(found, "type", "secret"))
        for kind, pattern in _NEWER_TOKENS.items():
            if pattern.search(line):
                return kind
        return _told(line)


def _told(line: str) -> str:
    """A password or key that a sentence or a setting tells, without the quotes that the library asks for."""
    for match in _TOLD.finditer(line):
        value = match[1].rstrip(".!?)")
        has_both = any(c.isdigit() for c in value) and any(c.isalpha() for c in value)
        if has_both and len(value) >= MIN_CHARACTERS and "://" not in value and not _PLACEHOLDER.search(value):
            return "Password or Key in Words"
    return "PIN in Words" if _PIN.search(line) else ""
