"""The words of a tokenizer that are structure, and text that is encoded without ever becoming one of them."""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

Span = tuple[int, int]
"""Where something stands in a text: its first character, and the one after its last."""

_FIRST_STAND_IN = 0x10E000
"""Of a private-use plane: no chat template and hardly any text has these characters."""


class Refused(Exception):
    """A text that cannot be trained as what it is. The message says why: "it holds …", "the chat template …"."""


class ControlWords:
    """Every added token that is structure: the special ones, named or not, and those that the chat template writes.

    Runs of white space, which some tokenizers add as tokens, are text.
    """

    def __init__(self, tokenizer: Any, template: str) -> None:
        added = {number: (str(token), bool(token.special)) for number, token in tokenizer.added_tokens_decoder.items()}
        special = set(tokenizer.all_special_tokens)
        self.by_id: dict[int, str] = {
            number: word
            for number, (word, is_special) in added.items()
            if word.strip() and (is_special or word in special or word in template)
        }
        self.words = frozenset(self.by_id.values())
        self._pattern = re.compile(_any_of(self.words) if self.words else r"(?!)")

    def found_in(self, text: str) -> list[re.Match[str]]:
        """Every control word in ``text``, as the tokenizer would match them: leftmost, then longest."""
        return list(self._pattern.finditer(text))

    def split(self, text: str) -> list[str]:
        """``text`` cut at its control words, each a piece of its own."""
        pieces, at = [], 0
        for match in self.found_in(text):
            pieces += [text[at : match.start()], match.group()]
            at = match.end()
        return [piece for piece in (*pieces, text[at:]) if piece]


def _any_of(words: Iterable[str]) -> str:
    """A regular expression for the longest of ``words``, as a tree: some tokenizers have thousands of like beginning,
    and a text of many such beginnings must not be tried with each of them.
    """
    by_first: dict[str, list[str]] = {}
    for word in words:
        by_first.setdefault(word[:1], []).append(word[1:])
    is_end = by_first.pop("", None) is not None
    branches = [re.escape(first) + _any_of(rests) for first, rests in sorted(by_first.items())]
    if not branches:
        return ""
    return branches[0] if len(branches) == 1 and not is_end else f"(?:{'|'.join(branches)}){'?' if is_end else ''}"


@dataclass(frozen=True)
class Tokens:
    """Token ids, and where in the text each token stands."""

    ids: list[int]
    spans: list[Span]

    def before(self, place: int) -> int:
        """How many tokens stand wholly before ``place``. One that stands on both sides does not."""
        for number, (start, end) in enumerate(self.spans):
            if start >= place or end > place:
                return number
        return len(self.ids)

    def then(self, other: Tokens, shift: int) -> Tokens:
        """Both, where the other's text begins at ``shift``."""
        return Tokens(self.ids + other.ids, self.spans + [(a + shift, b + shift) for a, b in other.spans])


class TextPlaces:
    """Where texts stand, to be asked for many times."""

    def __init__(self, spans: Sequence[Span]) -> None:
        ordered = sorted(spans)
        self._starts = [start for start, _ in ordered]
        self._ends = list(accumulate((end for _, end in ordered), max))
        """The furthest end of each span and those before it."""

    def touch(self, start: int, end: int) -> bool:
        """Whether a text stands anywhere between ``start`` and ``end``."""
        before = bisect_left(self._starts, end)
        return before > 0 and self._ends[before - 1] > start


class Coder:
    """Encodes what a template wrote: its control words as control tokens, those inside a text as characters."""

    def __init__(self, tokenizer: Any, words: ControlWords) -> None:
        self.tokenizer = tokenizer
        self.words = words
        self._renamed: tuple[Any, dict[int, str], dict[int, int]] | None = None

    def encode(self, text: str, texts: Sequence[Span]) -> Tokens:
        """The tokens of ``text``, of which ``texts`` are what people and the model said.

        Raises:
            Refused: a control word in a text cannot be encoded as characters by this tokenizer; or half a character.
        """
        if any("\ud800" <= char <= "\udfff" for char in text):
            raise Refused("it holds half a character (a lone surrogate), which no tokenizer can encode")
        found = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        tokens = Tokens(list(found["input_ids"]), [tuple(span) for span in found["offset_mapping"]])
        if self._forged(tokens, texts) is None:
            return tokens
        tokens = self._with_renamed_words(text, texts)
        forged = self._forged(tokens, texts)
        if forged is not None and forged == self.tokenizer.unk_token:
            raise Refused("it holds characters that this tokenizer does not know")
        if forged is not None:
            raise Refused(f"it holds {forged}, which this tokenizer always takes for a control token")
        return tokens

    def _forged(self, tokens: Tokens, texts: Sequence[Span]) -> str | None:
        """A control word that a text became; None: none did."""
        places = TextPlaces(texts)
        for number, (start, end) in zip(tokens.ids, tokens.spans, strict=True):
            if number in self.words.by_id and places.touch(start, end):
                return self.words.by_id[number]
        return None

    def _with_renamed_words(self, text: str, texts: Sequence[Span]) -> Tokens:
        """As ``encode``, by a copy of the tokenizer in which each control word is one character that no text has."""
        if self._renamed is None:
            self._renamed = _with_stand_ins(self.tokenizer, self.words)
        copy, stand_ins, original = self._renamed
        by_word = {word: stand_ins[number] for number, word in self.words.by_id.items() if number in stand_ins}
        if any(stand_in in text for stand_in in by_word.values()):
            raise Refused("it holds a control word and private-use characters, which cannot be distinguished")
        written: list[str] = []
        origin = [0]
        places = TextPlaces(texts)
        for match in self.words.found_in(text):
            if match.group() in by_word and not places.touch(match.start(), match.end()):
                written.append(text[origin[-1] : match.start()])
                origin += range(origin[-1] + 1, match.start() + 1)
                written.append(by_word[match.group()])
                origin.append(match.end())
        written.append(text[origin[-1] :])
        origin += range(origin[-1] + 1, len(text) + 1)
        found = copy.encode("".join(written), add_special_tokens=False)
        ids = [original.get(number, number) for number in found.ids]
        if sum(number in stand_ins for number in ids) < len(written) // 2:
            raise Refused("it holds a control word, beside which this tokenizer does not know its own any more")
        return Tokens(ids, [(origin[start], origin[end]) for start, end in found.offsets])


def _with_stand_ins(tokenizer: Any, words: ControlWords) -> tuple[Any, dict[int, str], dict[int, int]]:
    """A copy of the tokenizer with other control words; the new words by id; and the old ids by the new ones."""
    from tokenizers import Tokenizer

    state = json.loads(tokenizer.backend_tokenizer.to_str())
    stand_ins: dict[int, str] = {}
    for number, token in enumerate(state["added_tokens"]):
        if token["id"] in words.by_id:
            stand_ins[token["id"]] = token["content"] = chr(_FIRST_STAND_IN + number)
    copy = Tokenizer.from_str(json.dumps(state))
    # The copy gives new words new ids, and so others to the words behind them.
    new = {token["id"]: copy.token_to_id(token["content"]) for token in state["added_tokens"]}
    return copy, stand_ins, {found: number for number, found in new.items() if found is not None}
