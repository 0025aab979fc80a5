"""What a base's chat template does with tools, found out by giving it some.

Learned as everything about a template is (``template_probing``): the same call with other arguments gives what stands
behind every call, and the same with a result behind it gives where the turn ends.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from sleepd.protocol.chat_example import Message, ToolCall

from .chat_template import NO_PLACE, ChatTemplate
from .control_tokens import ControlWords, Refused
from .marks import ARGUMENT, Rendering
from .messages import THOUGHT, THOUGHT_TAGS, Said, ThinkingMessage, user
from .template_limits import TemplateExceeded
from .tool_calls import USUAL_FORM, CallForm
from .turn_end import turn_end

_ASKED = (user("Where does moss grow?"),)
_TOOL = "find_moss"
_SAMPLES: tuple[dict[str, Any], ...] = ({"where": "Lofoten"}, {"where": "Lofoten", "days": 30}, {})
_OFFERED = json.dumps(
    [
        {
            "type": "function",
            "function": {
                "name": _TOOL,
                "description": "Finds moss.",
                "parameters": {
                    "type": "object",
                    "properties": {
                        "where": {"type": "string", "description": "A place."},
                        "days": {"type": "integer", "description": "How many days."},
                    },
                    "required": ["where"],
                },
            },
        }
    ]
)
_THOUGHT = "\nI must look for it.\n"
_RESULT = "Behind the old boathouse."
_FORMS = tuple(
    CallForm(is_text, empty, has_short_ids)
    for has_short_ids, is_text, empty in product((False, True), (False, True), ("", None))
)


@dataclass(frozen=True)
class ToolHabits:
    """What was found out."""

    problem: str = ""
    """Why no reply that calls tools can be written; empty: it can."""
    result_problem: str = ""
    """Why no result of a tool can be written; empty: it can."""
    form: CallForm = USUAL_FORM
    shows_tools: bool = False
    """Whether it writes the tools that are offered."""
    keeps_thoughts: bool = False
    """Whether it shows the thought before a call until the user speaks again, and none from before that."""
    ending: str = ""
    """What stands at the end of every conversation whose last reply calls tools."""
    rest: str = ""
    """What of it stands behind the end of the turn."""
    added: str = ""
    """Where the next turn's header is what ends a turn: the token of it at which generation stops."""
    end: str = ""
    """What ends the turn."""

    @property
    def note(self) -> str:
        """All of it in a sentence."""
        if self.problem:
            return f"experiences that call tools are left out: {self.problem}"
        if self.result_problem:
            return f"it writes calls of tools; experiences with their results are left out: {self.result_problem}"
        return "it writes calls of tools and their results" + ("" if self.shows_tools else ", but no list of tools")


def learn_tools(
    template: ChatTemplate,
    words: ControlWords,
    stops: Collection[str],
    flags: Mapping[str, Any],
    *,
    offered: bool,
) -> ToolHabits:
    """How it writes calls and results where tools are offered, or where none are.

    Args:
        template: the one to probe, in the form that it wants its messages in.
        words: the tokenizer's control words.
        stops: those at which generation of this base stops.
        flags: variables of the template.
        offered: whether tools are offered.
    """
    try:
        return _learned(_ToolProbe(template, flags, _OFFERED if offered else ""), words, stops)
    except TemplateExceeded as error:
        return ToolHabits(error.message, error.message)


def _learned(probe: _ToolProbe, words: ControlWords, stops: Collection[str]) -> ToolHabits:
    shows = _TOOL in probe.asked_with_tools()
    form, problem = probe.choose_form()
    if problem:
        return ToolHabits(problem, problem, shows_tools=shows)
    habits = ToolHabits(
        form=form,
        shows_tools=shows,
        result_problem=probe.result_problem(form),
        keeps_thoughts=probe.shows_thought(form) and not probe.shows_thought(form, user("And lichen?")),
    )
    try:
        return _with_end(probe, habits, words, stops)
    except Refused as error:
        return replace(habits, problem=f"the chat template of this base has no fixed end of tool calls: {error}")


@dataclass(frozen=True)
class _ToolProbe:
    template: ChatTemplate
    flags: Mapping[str, Any]
    tools: str

    def asked_with_tools(self) -> str:
        """What the model is asked with; empty: it fails on tools."""
        try:
            return self.template.render(_ASKED, tools=self.tools, asks=True, flags=self.flags).text
        except Refused:
            return ""

    def called(self, form: CallForm, arguments: Mapping[str, Any]) -> Rendering:
        """A conversation that ends with a call."""
        return self._render([*_ASKED, Said("", calls=(_call(arguments),))], form)

    def answered(self, form: CallForm, arguments: Mapping[str, Any], *, asks: bool = False) -> Rendering:
        """The same, and the tool's result behind it."""
        call = _call(arguments)
        result = Message(role="tool", text=_RESULT, call_id=call.id, name=_TOOL)
        return self._render([*_ASKED, Message(role="assistant", calls=(call,)), result], form, asks=asks)

    def _render(self, turns: list[Any], form: CallForm, *, asks: bool = False) -> Rendering:
        return self.template.render(turns, tools=self.tools, form=form, asks=asks, flags=self.flags)

    def choose_form(self) -> tuple[CallForm, str]:
        """The first form in which a call comes through, and of those alike the shortest; or why there is none."""
        first = ""
        written: list[tuple[int, CallForm]] = []
        for form in _FORMS:
            if written and (form.is_text, form.has_short_ids) != (written[0][1].is_text, written[0][1].has_short_ids):
                break
            try:
                found = [self.called(form, arguments) for arguments in _SAMPLES]
                problem = "" if all(map(_is_written, found, _SAMPLES)) else NO_PLACE
            except Refused as error:
                problem = str(error)
            if problem:
                first = first or problem
            else:
                written.append((len(found[0].text), form))
        return (min(written, key=lambda one: one[0])[1], "") if written else (USUAL_FORM, first)

    def result_problem(self, form: CallForm) -> str:
        """Why a tool's result cannot be written; empty: it can."""
        try:
            found = self.answered(form, _SAMPLES[0], asks=True)
        except Refused as error:
            return str(error)
        return "" if "turn 2" in found.places else NO_PLACE

    def shows_thought(self, form: CallForm, *more: Message) -> bool:
        """Whether the thought before a call stands there once its result, and ``more``, stand behind it."""
        call = _call(_SAMPLES[0])
        thinking = ThinkingMessage(role="assistant", calls=(call,), thought=_THOUGHT, tags=THOUGHT_TAGS[0], gap="\n\n")
        result = Message(role="tool", text=_RESULT, call_id=call.id, name=_TOOL)
        try:
            found = self._render([*_ASKED, thinking, result, *more], form, asks=True)
        except Refused:
            return False
        return f"turn 1, {THOUGHT}" in found.places


def _call(arguments: Mapping[str, Any]) -> ToolCall:
    # Each has an id of its own, for what differs is not a part of what ends every call.
    return ToolCall(name=_TOOL, arguments=json.dumps(arguments), id=f"call_{len(arguments)}")


def _is_written(found: Rendering, arguments: Mapping[str, Any]) -> bool:
    """Whether the call stands there, its arguments neither left out nor as Python would write them."""
    start = found.places["prompt"][1] if "prompt" in found.places else 0
    behind = found.text[start:]
    if _TOOL not in behind or any(label.startswith(ARGUMENT) for label in found.lost):
        return False
    quoted_otherwise = any(f"{mark}{key}{mark}:" in behind for key in arguments for mark in ("'", '\\"'))
    return not quoted_otherwise and all(key in behind for key in arguments)


def _with_end(probe: _ToolProbe, habits: ToolHabits, words: ControlWords, stops: Collection[str]) -> ToolHabits:
    found = [probe.called(habits.form, arguments).text for arguments in _SAMPLES]
    ending = _common_ending(found)
    place = len(found[0]) - len(ending)
    followed = ""
    if not habits.result_problem:
        answered = probe.answered(habits.form, _SAMPLES[0])
        if answered.text[:place] == found[0][:place]:
            followed = answered.text[place : answered.places["turn 2"][0]]
    until = turn_end(ending, followed, words, stops)
    if not until.strip() or not ending.startswith(until):
        raise Refused(f"it writes {ending!r} behind each of them")
    rest = ending[len(until) :]
    pieces = words.split(until)
    if not any(piece in stops for piece in pieces):
        header = next((piece for piece in words.split(followed.removeprefix(until)) if piece.strip()), "")
        if header in stops and not rest.strip():
            return replace(habits, ending=ending, rest=rest, added=header, end=header)
    return replace(habits, ending=ending, rest=rest, end=pieces[-1])


def _common_ending(texts: list[str]) -> str:
    shortest = min(map(len, texts))
    number = next((n for n in range(1, shortest + 1) if len({text[-n] for text in texts}) > 1), shortest + 1)
    return texts[0][len(texts[0]) - number + 1 :]
