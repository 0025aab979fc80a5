"""A conversation up to the end of its last reply's turn, as text, and where in it what is supervised begins.

Supervised is what the model would have to generate: all that stands behind the generation prompt, up to the end of the
reply's turn. Where a template writes something else before a reply than what it asks with, the reply is put behind what
it asks with; its calls, whose form only the template knows, are then cut out of what the template writes for them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from .chat_template import ChatTemplate
from .control_tokens import ControlWords, Refused, Span
from .marks import ARGUMENT, Rendering
from .messages import ANY_REPLY, REPLY, THOUGHT, THOUGHT_TAGS, Context, Said, Turn, labels, tags_in
from .template_probing import Habits
from .tool_calls import USUAL_FORM, texts_of
from .tool_probing import ToolHabits, learn_tools
from .turn_end import shared_length


@dataclass(frozen=True)
class RenderedConversation:
    """A conversation up to the end of its last reply's turn, as text."""

    text: str
    texts: tuple[Span, ...]
    """What in it people and the model said."""
    places: Mapping[str, Span]
    """Where each text stands, by what it is called (``messages.labels``)."""
    start: int
    """Where what is supervised begins."""
    reply_end: int


class ConversationWriter:
    """Writes conversations by a template of which the habits are known."""

    def __init__(
        self, template: ChatTemplate, habits: Habits, words: ControlWords, stop_words: Collection[str]
    ) -> None:
        self._template = template
        self._habits = habits
        self._words = words
        self._stop_words = stop_words
        self._tool_habits: dict[bool, ToolHabits] = {}

    def tool_habits(self, *, offered: bool) -> ToolHabits:
        """How calls of tools and their results are written where tools are offered, or where none are."""
        if offered not in self._tool_habits:
            known = self._habits.flags
            self._tool_habits[offered] = learn_tools(
                self._template, self._words, self._stop_words, known, offered=offered
            )
        return self._tool_habits[offered]

    def write(self, context: Context, reply: Said) -> RenderedConversation:
        """A reply and what stands before it.

        Raises:
            Refused: it cannot be written as what it is.
        """
        self._refuse_headers(context, reply)
        self._refuse_tools(context, reply)
        written = self._of_thought(context, reply) if reply.thought.strip() else self._of_answer(context, reply)
        for one, label in zip(context.messages, labels(context.messages), strict=True):
            # Beside its calls some templates leave a reply's text out, and so does the engine that asks by them.
            if one.role != "assistant" and one.text.strip() and label not in written.places:
                raise Refused(f"the chat template loses the text of the {label}")
        return written

    def asked(self, context: Context) -> RenderedConversation:
        """What stands before a reply of which nothing is known.

        Raises:
            Refused: as :meth:`write`.
        """
        self._refuse_tools(context, ANY_REPLY)
        return self._of_answer(context, ANY_REPLY)

    def _refuse_headers(self, context: Context, reply: Said) -> None:
        turns: list[Turn] = [*context.messages, reply]
        for turn, label in zip(turns, labels(turns), strict=True):
            is_system = not isinstance(turn, Said) and turn.role == "system"
            for text in () if is_system or not self._habits.headers else texts_of(turn):
                found = next((found for header in self._habits.headers if (found := header.search(text))), None)
                if found:
                    what = THOUGHT if isinstance(turn, Said) and text == turn.thought else label
                    raise Refused(f"its {what} holds {found.group().strip()!r}, which begins a turn in this template")

    def _refuse_tools(self, context: Context, reply: Said) -> None:
        if not (context.uses_tools or reply.calls):
            return
        habits = self.tool_habits(offered=bool(context.tools))
        if habits.problem and (reply.calls or any(one.calls for one in context.messages)):
            raise Refused(habits.problem)
        if habits.result_problem and any(one.role == "tool" for one in context.messages):
            raise Refused(habits.result_problem)

    def _of_answer(self, context: Context, reply: Said) -> RenderedConversation:
        flags = self._habits.flags
        asked = self._render(context, asks=True, flags=flags)
        if self._habits.closed_lead is not None:
            return self._behind(asked, context, reply, flags, self._habits.closed_lead)
        whole = self._render(context, reply, flags=flags)
        place, behind = self._begin(whole, context, reply, flags), len(asked.text)
        if whole.text.startswith(asked.text) and behind <= place and not tags_in(whole.text[behind:place]):
            return self._to_the_end(whole, behind, context, reply)
        if reply.answer[:1].isspace():
            # White space before its first word is the reply's only if it is not there before another reply.
            other = self._render(context, ANY_REPLY, flags=flags)
            at = _place(other, REPLY)[0]
            place = at if whole.text.startswith(other.text[:at]) else place
        return self._to_the_end(whole, place, context, reply)

    def _render(self, context: Context, reply: Said | None = None, **given: Any) -> Rendering:
        form = USUAL_FORM
        if context.uses_tools or (reply is not None and reply.calls):
            form = self.tool_habits(offered=bool(context.tools)).form
        turns: list[Turn] = [*context.messages, *([] if reply is None else [reply])]
        return self._template.render(turns, tools=context.tools, form=form, **given)

    def _begin(self, whole: Rendering, context: Context, reply: Said, flags: Mapping[str, Any]) -> int:
        """Where a reply begins: its text, or what the template writes for calls alone and not before any reply."""
        if reply.answer.strip() or not reply.calls:
            return _place(whole, REPLY)[0]
        other = self._render(context, ANY_REPLY, flags=flags)
        return shared_length(whole.text, other.text[: _place(other, REPLY)[0]], self._words)

    def _of_thought(self, context: Context, reply: Said) -> RenderedConversation:
        flags, key = self._habits.thought_flags, self._template.thought_key
        asked = self._render(context, asks=True, flags=flags)
        if not key and not self._habits.can_think:
            raise Refused("it has a thought, and this base is asked behind a closed one: set training.thoughts to drop")
        if not key:
            return self._behind(asked, context, self._in_own_tags(reply), flags)
        whole = self._render(context, reply, flags=flags)
        if reply.calls and THOUGHT not in whole.places:
            # It leaves out what stands before calls, as others leave every thought out.
            return self._behind(asked, context, reply, flags)
        place = _place(whole, THOUGHT)[0]
        if whole.text.startswith(asked.text) and len(asked.text) <= place:
            return self._to_the_end(whole, len(asked.text), context, reply)
        if self._habits.opened:
            return self._behind(asked, context, reply, flags)
        opens_at = max(whole.text.rfind(opening, 0, place) for opening, _ in THOUGHT_TAGS)
        return self._to_the_end(whole, place if opens_at < 0 else opens_at, context, reply)

    def _in_own_tags(self, reply: Said) -> Said:
        tags = self._template.own_tags
        if tags is None or tags == reply.tags:
            return reply
        return replace(reply, thought=f"\n{reply.thought.strip()}\n", tags=tags, gap="")

    def _behind(
        self, asked: Rendering, context: Context, reply: Said, flags: Mapping[str, Any], lead: str = ""
    ) -> RenderedConversation:
        """The reply as it was said, behind the generation prompt; its calls as the template writes them."""
        said = self._render(context, asks=True, flags=flags, continuation=replace(reply, calls=()), lead=lead)
        if not reply.calls:
            return self._to_the_end(
                _joined(said, Rendering(self._habits.tail, {}, ())), len(asked.text), context, reply
            )
        whole = self._render(context, replace(reply, thought=""), flags=flags)
        if reply.answer.strip():
            calls = _behind_place(whole, _place(whole, REPLY)[1])
        else:
            calls = _behind_place(whole, self._begin(whole, context, reply, flags))
        return self._to_the_end(_joined(said, calls), len(asked.text), context, reply)

    def _to_the_end(self, whole: Rendering, start: int, context: Context, reply: Said) -> RenderedConversation:
        if reply.calls:
            return self._to_the_last_call(whole, start, context, reply)
        end = _place(whole, REPLY)[1]
        if whole.text[end:] not in (self._habits.tail, self._habits.thought_tail):
            raise Refused("the chat template ends this reply otherwise than others")
        return RenderedConversation(whole.text[:end] + self._habits.end, whole.texts, whole.places, start, end)

    def _to_the_last_call(self, whole: Rendering, start: int, context: Context, reply: Said) -> RenderedConversation:
        lost = next((one for one in whole.lost if one in (REPLY, THOUGHT) or one.startswith(ARGUMENT)), None)
        if lost:
            raise Refused(f"the chat template loses the text of the {lost} beside its calls")
        habits = self.tool_habits(offered=bool(context.tools))
        if not whole.text.endswith(habits.ending):
            raise Refused("the chat template ends this reply, which calls tools, otherwise than others")
        text = whole.text[: len(whole.text) - len(habits.rest)] + habits.added
        at = whole.places[REPLY][1] if REPLY in whole.places else start
        for call in reply.calls:
            at = text.find(call.name, at)
            if at < 0:
                raise Refused(f"the chat template loses the call of {call.name[:80]!r}")
            at += len(call.name)
        return RenderedConversation(text, whole.texts, whole.places, start, len(text) - len(habits.end))


def _place(whole: Rendering, label: str) -> Span:
    if label not in whole.places:
        raise Refused(f"the chat template loses the text of the {label}")
    return whole.places[label]


def _behind_place(whole: Rendering, place: int) -> Rendering:
    """What stands behind ``place``; of what stands before it nothing is known any more."""
    texts = tuple((a - place, b - place) for a, b in whole.texts if a >= place)
    return Rendering(whole.text[place:], {}, texts, tuple(one for one in whole.lost if one.startswith(ARGUMENT)))


def _joined(one: Rendering, other: Rendering) -> Rendering:
    shift = len(one.text)
    texts = tuple((a + shift, b + shift) for a, b in other.texts)
    return Rendering(one.text + other.text, one.places, (*one.texts, *texts), (*one.lost, *other.lost))
