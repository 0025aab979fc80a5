"""A conversation as the base's own chat template writes it, and where in it each text stands.

A template sees each text with a private-use character at either end (inside its outer white space, which templates
strip) and with every control word in it replaced by such a character. So the place of each text is known afterwards,
and no text can steer the template: what looks like a header, or like the end of a thought, is not seen as one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from typing import Any

from sleepd.worker.failure import GiveUp

from .control_tokens import ControlWords, Refused, Span
from .template_limits import TEMPLATE_SECONDS, bounded_template

THOUGHT_TAGS = (
    ("<think>", "</think>"),
    ("[THINK]", "[/THINK]"),
    ("<seed:think>", "</seed:think>"),
    ("<|channel>thought", "<channel|>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|inner_prefix|>", "<|inner_suffix|>"),
)
"""What opens and closes a thought at the start of a reply, by family of models."""
SYSTEM, PROMPT, THOUGHT, REPLY = "system prompt", "prompt", "thought", "reply"
"""What the texts of a rendering are called; those of a talk's further turns are ``turn 1``, ``turn 2``, …"""
_PRIVATE_USE = range(0xF0000, 0x10E000)
_OPTIONS = {"sanitize_control_tokens": False}
"""Control words are dealt with here. To a transformers without this option it is a variable that no template knows."""
_GENERATION = re.compile(r"\{%[-+]?\s*generation\b")
_DATE_FORMAT = re.compile(r"""strftime_now\(\s*(?:format\s*=\s*)?(['"])(.*?)\1""")
_Around = Callable[[str, str], str]
"""Takes what a text is called and the text, and gives it back with its marks."""
_BEYOND_UNICODE = (0xFFFE, 0xFFFF)
_PRIVATE = re.compile(f"([{chr(_PRIVATE_USE.start)}-{chr(_PRIVATE_USE.stop - 1)}])")


@dataclass(frozen=True)
class Said:
    """A reply, with the thought that came before it."""

    answer: str
    thought: str = ""
    """Empty: none was said."""
    tags: tuple[str, str] = THOUGHT_TAGS[0]
    gap: str = "\n\n"
    """What stands between the thought's end and the answer."""


@dataclass(frozen=True)
class Rendering:
    """What a template wrote."""

    text: str
    places: Mapping[str, Span]
    """Where each text stands, without its outer white space. What the template left out is not in here."""
    texts: tuple[Span, ...]
    """Every place of a text, also of one that is written more than once."""


class ChatTemplate:
    """The template of a tokenizer, or the plain form of a conversation where there is none.

    The plain form is the system prompt, an empty line, ``User: prompt``, a line ``Assistant:`` and the reply.
    """

    def __init__(self, tokenizer: Any, system_prompt: str, words: ControlWords, day: date) -> None:
        self._tokenizer = tokenizer
        self._system_prompt = system_prompt
        self._words = words
        self._day = day
        self._options = {**_OPTIONS, **_with_day(self.source, day)}
        self.takes_parts = False
        """Whether a message's content is a list of parts, as templates of multimodal models want it."""
        self.folds_system = False
        """Whether the template knows no system role, so that the system prompt opens the user's turn."""
        self.thought_key = "content"
        """In which key of a message a thought is kept; empty: the template leaves it out."""
        self.most_seconds = TEMPLATE_SECONDS
        """Processor time for one rendering."""
        self.own_tags: tuple[str, str] | None = None
        """In what this base's thoughts stand, where that is not what they were written in; None: in what they were."""

    @property
    def source(self) -> str:
        """Its text; empty: there is none."""
        return template_source(self._tokenizer)

    def with_system(self, system_prompt: str) -> ChatTemplate:
        """The same template under another system prompt, in the form in which it starts."""
        return ChatTemplate(self._tokenizer, system_prompt, self._words, self._day)

    def render(
        self,
        turns: Sequence[str | Said],
        *,
        asks: bool = False,
        flags: Mapping[str, Any] | None = None,
        continuation: Said | None = None,
        lead: str = "",
        ending: str = "",
    ) -> Rendering:
        """The conversation of these turns: prompts, and replies to them.

        Args:
            turns: prompt, reply, prompt, … The one :class:`Said` among them is the reply in question.
            asks: whether the template is to write what makes the model reply.
            flags: further variables of the template.
            continuation: what is written behind all that, as it was said, by no template.
            lead: what is written before the continuation.
            ending: what is written behind it.

        Raises:
            Refused: the template fails on these texts, or tears or repeats one.
        """
        texts = [text for turn in [*turns, continuation] if turn is not None for text in _texts(turn)]
        marks = _Marks([self._system_prompt, *texts], self._words)
        written = self._written(turns, marks.around, asks=asks, flags=flags or {})
        if continuation is not None:
            said = self._as_said(continuation, marks.around, opened=opened_thought(written) is not None)
            written += lead + said + ending
        return marks.read(written)

    def _written(self, turns: Sequence[str | Said], around: _Around, *, asks: bool, flags: Mapping[str, Any]) -> str:
        if not self._tokenizer.chat_template:
            return self._plain(turns, around, asks=asks)
        return self._apply(self._messages(turns, around), asks=asks, flags=flags)

    def _messages(self, turns: Sequence[str | Said], around: _Around) -> list[dict[str, Any]]:
        system = around(SYSTEM, self._system_prompt)
        messages: list[dict[str, Any]] = []
        for number, turn in enumerate(turns):
            if isinstance(turn, Said):
                messages.append(self._reply(turn, around))
                continue
            fold = f"{system}\n\n" if self.folds_system and system and number == 0 else ""
            content = self._content(fold + around(_label(number), turn))
            messages.append({"role": ("user", "assistant")[number % 2], "content": content})
        if system and not self.folds_system:
            messages.insert(0, {"role": "system", "content": self._content(system)})
        return messages

    def _reply(self, said: Said, around: _Around) -> dict[str, Any]:
        answer = around(REPLY, said.answer)
        if not said.thought.strip() or not self.thought_key:
            return {"role": "assistant", "content": self._content(answer)}
        if self.thought_key == "content":
            opening, closing = said.tags
            content = f"{opening}{around(THOUGHT, said.thought)}{closing}{said.gap}{answer}"
            return {"role": "assistant", "content": self._content(content)}
        # What stands between it and its tags is the template's, which writes it itself.
        return {
            "role": "assistant",
            "content": self._content(answer),
            self.thought_key: around(THOUGHT, said.thought.strip()),
        }

    @staticmethod
    def _as_said(said: Said, around: _Around, *, opened: bool) -> str:
        answer = around(REPLY, said.answer)
        if not said.thought.strip():
            return answer
        opening, closing = said.tags
        thought = around(THOUGHT, said.thought)
        # The tag and the white space behind it stand in the generation prompt already.
        return f"{thought.lstrip() if opened else opening + thought}{closing}{said.gap}{answer}"

    def _content(self, text: str) -> str | list[dict[str, str]]:
        return [{"type": "text", "text": text}] if self.takes_parts else text

    def _plain(self, turns: Sequence[str | Said], around: _Around, *, asks: bool) -> str:
        system = around(SYSTEM, self._system_prompt)
        written = (self._tokenizer.bos_token or "") + (f"{system}\n\n" if system else "")
        for number, turn in enumerate(turns):
            is_last = number == len(turns) - 1
            if number % 2 == 0:
                text = around(_label(number), _texts(turn)[0])
                written += f"User: {text}\n" + ("" if is_last and not asks else "Assistant:")
            else:
                text = around(REPLY if isinstance(turn, Said) else _label(number), _texts(turn)[0])
                written += f" {text}" + ((self._tokenizer.eos_token or "") if is_last else "\n\n")
        return written

    def assistant_spans(self, turns: Sequence[str | Said], flags: Mapping[str, Any]) -> list[Span]:
        """What the template itself marks as the model's, by ``{% generation %}``; empty: it has no such marks."""
        if not _GENERATION.search(self.source):
            return []
        messages = self._messages(turns, lambda _label, text: text)
        with bounded_template(self.most_seconds):
            found = self._tokenizer.apply_chat_template(
                messages,
                tokenize=True,
                return_dict=True,
                return_assistant_tokens_mask=True,
                tokenizer_kwargs={"return_offsets_mapping": True},
                **self._options,
                **flags,
            )
        marked = zip(found["assistant_masks"], found["offset_mapping"], strict=True)
        return [(span[0], span[1]) for is_marked, span in marked if is_marked]

    def _apply(self, messages: list[dict[str, Any]], *, asks: bool, flags: Mapping[str, Any]) -> str:
        from jinja2 import TemplateError

        try:
            with bounded_template(self.most_seconds):
                written = self._tokenizer.apply_chat_template(
                    messages, tokenize=False, add_generation_prompt=asks, **self._options, **flags
                )
            return str(written)
        except (TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
            raise Refused(f"the chat template fails on it: {_sentence(error)}") from error
        except RecursionError as error:
            raise Refused("the chat template calls itself without end") from error


def _label(number: int) -> str:
    return f"turn {number}" if number else PROMPT


def _texts(turn: str | Said) -> tuple[str, str]:
    return (turn.answer, turn.thought) if isinstance(turn, Said) else (turn, "")


def opened_thought(written: str) -> tuple[str, str] | None:
    """The tags of a thought that ``written`` opens at its end; None: it opens none."""
    return next((tags for tags in THOUGHT_TAGS if written.rstrip().endswith(tags[0])), None)


def closes_thought(written: str) -> bool:
    """Whether ``written`` closes a thought at its end."""
    return any(written.rstrip().endswith(tags[1]) for tags in THOUGHT_TAGS)


def _sentence(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else f"{text[:200]}…"


class _Marks:
    """The private-use characters of one rendering, none of which is in any of its texts."""

    def __init__(self, texts: Sequence[str], words: ControlWords) -> None:
        used = {char for text in texts for char in text if ord(char) in _PRIVATE_USE}
        self._free: Iterator[str] = (
            chr(code) for code in _PRIVATE_USE if code & 0xFFFF not in _BEYOND_UNICODE and chr(code) not in used
        )
        self._words = words
        self._opening: dict[str, str] = {}
        self._closing: dict[str, str] = {}
        self._stand_ins: dict[str, str] = {}

    def around(self, label: str, text: str) -> str:
        """``text`` as a template is to see it. Of white space alone there is nothing to mark."""
        core = text.strip()
        if not core:
            return text
        at = text.index(core)
        opening, closing = next(self._free), next(self._free)
        self._opening[opening] = self._closing[closing] = label
        return f"{text[:at]}{opening}{self._escape(core)}{closing}{text[at + len(core) :]}"

    def _escape(self, text: str) -> str:
        found = {match.group() for match in self._words.found_in(text)}
        found |= {tag for pair in THOUGHT_TAGS for tag in pair if tag in text}
        for word in found:
            if word not in self._stand_ins:
                self._stand_ins[word] = next(self._free)
        for word in sorted(found, key=len, reverse=True):
            text = text.replace(word, self._stand_ins[word])
        return text

    def read(self, written: str) -> Rendering:
        """What was written, without the marks.

        Raises:
            Refused: a text was torn, or written more than once.
        """
        escaped = {char: word for word, char in self._stand_ins.items()}
        out: list[str] = []
        at, places, open_at, texts = 0, dict[str, Span](), dict[str, int](), list[Span]()
        for piece in _PRIVATE.split(written):
            if piece in self._opening:
                open_at[self._opening[piece]] = at
            elif piece in self._closing:
                label = self._closing[piece]
                if label not in open_at:
                    raise Refused(f"the chat template tears the text of the {label}")
                if label in places and label in (REPLY, THOUGHT):
                    raise Refused(f"the chat template writes the {label} twice")
                places[label] = (open_at.pop(label), at)
                texts.append(places[label])
            else:
                out.append(escaped.get(piece, piece))
                at += len(out[-1])
        if open_at:
            raise Refused(f"the chat template tears the text of the {next(iter(open_at))}")
        return Rendering("".join(out), places, tuple(texts))


def require_template(tokenizer: Any) -> None:
    """Refuse a tokenizer with several templates of which none is the default.

    Raises:
        GiveUp: ``base_unusable``.
    """
    template = tokenizer.chat_template
    if isinstance(template, dict) and "default" not in template:
        raise GiveUp(
            "base_unusable",
            f"its tokenizer has the chat templates {', '.join(sorted(template))}, and none called default",
            "put the right one beside its tokenizer as chat_template.jinja",
        )


def _with_day(source: str, day: date) -> dict[str, str]:
    """The template with a ``strftime_now`` of its own, by which it is noon of ``day`` in every rendering.

    A function that is given to transformers becomes text there, so it has to be a macro.
    """
    if "strftime_now" not in source:
        return {}
    noon = datetime.combine(day, time(12))
    said = {each: noon.strftime(each) for _, each in _DATE_FORMAT.findall(source)}
    known = "{%- set known = " + json.dumps(said) + " -%}"
    refusal = "{%- if format not in known %}{{ raise_exception('it computes the format of a date') }}{% endif -%}"
    macro = "{% macro strftime_now(format) -%}" + known + refusal + "{{ known[format] }}{%- endmacro %}\n"
    return {"chat_template": macro + source}


def template_source(tokenizer: Any) -> str:
    """The text of the template that is used; empty: there is none."""
    template = tokenizer.chat_template
    return str(template.get("default", "")) if isinstance(template, dict) else str(template or "")
