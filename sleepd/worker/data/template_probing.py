"""What a base's chat template does with a conversation, found out by giving it some: no name and no family is known.

Learned by comparing renderings: the reply with and without a turn behind it gives the end of the reply's turn; with and
without a thought, what becomes of thoughts; the same conversation up to the reply, what the model is asked with.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from sleepd.protocol.chat_example import Message
from sleepd.worker.failure import GiveUp

from .chat_template import ChatTemplate
from .control_tokens import ControlWords, Refused
from .marks import Rendering
from .messages import (
    PROMPT,
    REPLY,
    SYSTEM,
    THOUGHT,
    THOUGHT_TAGS,
    Said,
    Turn,
    closes_thought,
    opened_thought,
    tags_in,
    user,
)
from .turn_end import common_pieces, shared_length, turn_end

_PROMPT = "Which way is north?"
_ASKED = (user(_PROMPT),)
_UNDER_SYSTEM = (Message(role="system", text="Be brief."), *_ASKED)
_REPLY = "ValidationCheck for moss."
_INDENT = "    "
_THOUGHT = "They are lost."
_FOLLOW_UP = "And south?"
_SWITCHES = ("enable_thinking", "thinking", "reasoning")
"""Variables that set whether a template thinks."""
_NOT_TO_THINK: Mapping[str, Any] = dict.fromkeys(_SWITCHES, False)
_TO_THINK: Mapping[str, Any] = dict.fromkeys(_SWITCHES, True)
_WAY_OUT = "use a template that writes each message's content once and ends each turn: chat_template.jinja"


@dataclass
class Habits:
    """What was found out."""

    end: str = ""
    """What ends the reply's turn, and is supervised with it."""
    tail: str = ""
    """All that the template writes behind a reply that stands last."""
    thought_tail: str = ""
    """As ``tail``, for a reply with a thought."""
    flags: Mapping[str, Any] = field(default_factory=dict)
    """Variables of the template for a reply without a thought."""
    thought_flags: Mapping[str, Any] = field(default_factory=dict)
    """Variables of the template for a reply with one."""
    closed_lead: str | None = None
    """Where the generation prompt closes a thought of which the rendered reply has none, so that the reply is trained
    behind that prompt: what the template writes there before the reply. None: it is trained as it is rendered."""
    can_think: bool = True
    """Whether a thought can follow the generation prompt: not if that always closes one."""
    opened: tuple[str, str] | None = None
    """Tags of the thought that the generation prompt opens."""
    headers: list[re.Pattern[str]] = field(default_factory=list)
    """What opens a turn and is made of plain characters."""
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def learn(template: ChatTemplate, words: ControlWords, stops: Collection[str], *, has_system: bool) -> Habits:
    """Everything about ``template``, which is then in the form that it wants its messages in.

    Args:
        template: the one to probe.
        words: the tokenizer's control words.
        stops: those at which generation of this base stops.
        has_system: whether there is a system prompt.

    Raises:
        GiveUp: ``base_unusable``: it loses a text, opens what it never closes, or fails.
    """
    habits = Habits()
    try:
        _choose_form(template, habits, has_system=has_system)
        template.folds_system = template.folds_system if has_system else _must_fold(template)
        _learn_thoughts(template, habits, words)
        _learn_flags(template, habits, words)
        _learn_end(template, habits, words, stops)
        _learn_headers(template, habits, words)
        _compare_with_marks(template, habits, words, stops)
    except Refused as error:
        given = f"given the prompt {_PROMPT!r} and the reply {_REPLY!r}, {error}"
        raise GiveUp("base_unusable", f"its chat template cannot be used: {given}", _WAY_OUT) from error
    return habits


def _choose_form(template: ChatTemplate, habits: Habits, *, has_system: bool) -> None:
    first = ""
    for template.takes_parts in (False, True):
        for template.folds_system in (False, True) if has_system else (False,):
            problem = _problem(template, has_system=has_system)
            if not problem:
                if template.takes_parts:
                    habits.notes.append("it wants each content as a list of parts, and gets it so")
                if template.folds_system:
                    habits.notes.append("it knows no system role, so the system prompt opens the user's turn")
                return
            first = first or problem
    template.takes_parts = template.folds_system = False
    if not has_system and not _problem(template, _UNDER_SYSTEM, has_system=True):
        raise GiveUp(
            "base_unusable",
            f"its chat template wants a system message, and there is none: {first}",
            "set model.system_prompt to the system prompt that the agent runs with",
        )
    raise GiveUp("base_unusable", f"its chat template cannot be used: {first}", _WAY_OUT)


def _must_fold(template: ChatTemplate) -> bool:
    """Whether a conversation's own system message has to open the user's turn."""
    template.folds_system = False
    if not _problem(template, _UNDER_SYSTEM, has_system=True):
        return False
    template.folds_system = True
    return not _problem(template, _UNDER_SYSTEM, has_system=True)


def _problem(template: ChatTemplate, turns: Sequence[Turn] = _ASKED, *, has_system: bool) -> str:
    """Why it cannot be used in this form; empty: it can."""
    given = f"given the prompt {_PROMPT!r} and the reply {_REPLY!r}"
    try:
        whole = template.render([*turns, Said(_REPLY)])
        asked = template.render(turns, asks=True)
    except Refused as error:
        return f"{given}, {error}"
    for rendering, wanted in ((whole, (PROMPT, REPLY)), (asked, (PROMPT,))):
        lost = [label for label in (*((SYSTEM,) if has_system else ()), *wanted) if label not in rendering.places]
        if lost:
            return f"{given}, it loses the text of the {lost[0]} and writes {_shown(rendering.text)}"
    return ""


def _learn_thoughts(template: ChatTemplate, habits: Habits, words: ControlWords) -> None:
    for key in ("reasoning_content", "thinking", "reasoning", "content"):
        template.thought_key = key
        template.own_tags = _own_tags(template, words) if key == "content" else None
        if _keeps_thought(template) and not template.own_tags:
            how = "" if key == "content" else ", without the white space around it"
            habits.notes.append(f"a thought that was said is kept (given as {key}{how})")
            break
    else:
        template.thought_key = ""
        how = f"between {' and '.join(template.own_tags)}" if template.own_tags else "as it was said"
        habits.notes.append(
            f"it leaves the thought of a reply out; one that was said is trained {how}, behind the generation prompt"
        )
    asked = [(flags, template.render(_ASKED, asks=True, flags=flags).text) for flags in ({}, _TO_THINK)]
    open_ones = [(flags, text) for flags, text in asked if not closes_thought(text)]
    habits.can_think = bool(open_ones)
    habits.thought_flags, text = next(
        ((flags, text) for flags, text in open_ones if _thought_follows(template, text, flags)), (open_ones or asked)[0]
    )
    habits.opened = opened_thought(text)
    if habits.opened:
        habits.notes.append(f"its generation prompt opens a thought ({habits.opened[0]})")


def _own_tags(template: ChatTemplate, words: ControlWords) -> tuple[str, str] | None:
    """Tags that its source names, and not those that everybody writes; none where an answer has tags of its own."""
    whole = template.render([*_ASKED, Said(_REPLY)])
    named = next((tags for tags in THOUGHT_TAGS if all(tag in template.source for tag in tags)), THOUGHT_TAGS[0])
    is_bare = len(words.found_in(whole.text[whole.places[REPLY][1] :])) == 1
    return named if is_bare and named != THOUGHT_TAGS[0] else None


def _keeps_thought(template: ChatTemplate) -> bool:
    """Whether it writes a thought before its reply, and no other one before that."""
    try:
        whole = template.render([*_ASKED, Said(_REPLY, _THOUGHT)])
    except Refused:
        return False
    places = whole.places
    if not (THOUGHT in places and REPLY in places and places[THOUGHT] < places[REPLY]):
        return False
    before = whole.text[places[PROMPT][1] : places[THOUGHT][0]]
    return not any(closing in before for _, closing in THOUGHT_TAGS)


def _thought_follows(template: ChatTemplate, asked: str, flags: Mapping[str, Any]) -> bool:
    if not template.thought_key:
        return True
    return template.render([*_ASKED, Said(_REPLY, _THOUGHT)], flags=flags).text.startswith(asked)


def _learn_flags(template: ChatTemplate, habits: Habits, words: ControlWords) -> None:
    """For a reply without a thought: asked not to think, or by default, or else the model is asked as it is trained."""
    chosen, quiet = _whole_and_asked(template, {}), _whole_and_asked(template, _NOT_TO_THINK)
    if quiet != chosen and (_is_clean(*quiet) or closes_thought(quiet[1].text)):
        chosen, habits.flags = quiet, _NOT_TO_THINK
        habits.notes.append(f"replies without a thought are rendered and asked for with {', '.join(_SWITCHES)} = false")
    if not _is_clean(*chosen) and closes_thought(chosen[1].text):
        habits.closed_lead = _closed_lead(*chosen, words)
    if habits.closed_lead is not None:
        closed = chosen[1].text[chosen[1].places[PROMPT][1] :]
        habits.notes.append(f"a reply without a thought is trained behind its generation prompt, {_shown(closed)}")
        return
    if not _is_clean(*chosen):
        habits.notes.append("a reply without a thought is trained, and asked for, behind what it writes before replies")
    _check_before_reply(chosen[0], habits)


def _closed_lead(whole: Rendering, asked: Rendering, words: ControlWords) -> str:
    """What ``whole`` has before the reply and ``asked`` has not, but for what closes a thought."""
    place = whole.places[REPLY][0]
    lead = whole.text[shared_length(whole.text[:place], asked.text, words) : place].removesuffix(_INDENT)
    return "" if tags_in(lead) else lead


def _check_before_reply(whole: Rendering, habits: Habits) -> None:
    before = whole.text[whole.places[PROMPT][1] : whole.places[REPLY][0]]
    for opening, closing in THOUGHT_TAGS:
        if before.rfind(opening) > before.rfind(closing):
            raise Refused(f"it writes {_shown(before)} before the reply and never closes {opening}")
        if opening in before:
            habits.notes.append("it writes an empty thought before a reply without one, which is not supervised")
    if not whole.text[: whole.places[REPLY][0]].endswith(_INDENT):
        habits.notes.append(
            "it takes the white space before a reply's first word off, so an indent there is not trained"
        )


def _whole_and_asked(template: ChatTemplate, flags: Mapping[str, Any]) -> tuple[Rendering, Rendering]:
    whole = template.render([*_ASKED, Said(_INDENT + _REPLY)], flags=flags)
    return whole, template.render(_ASKED, asks=True, flags=flags)


def _is_clean(whole: Rendering, asked: Rendering) -> bool:
    """Whether what the model is asked with is followed by the reply, and by no thought that nobody had."""
    start = whole.places[REPLY][0]
    is_followed = whole.text.startswith(asked.text) and len(asked.text) <= start
    return is_followed and not tags_in(whole.text[len(asked.text) : start])


def _learn_end(template: ChatTemplate, habits: Habits, words: ControlWords, stops: Collection[str]) -> None:
    alone = template.render([*_ASKED, Said(_REPLY)], flags=habits.flags)
    thinking = template.render([*_ASKED, Said(_REPLY)], flags=habits.thought_flags)
    habits.tail, habits.thought_tail = (one.text[one.places[REPLY][1] :] for one in (alone, thinking))
    following = _following(template, habits)
    # Some write the generation prompt behind every conversation; a reply without an end has nothing else behind it.
    unasked, asked = (template.render(_ASKED, asks=asks, flags=habits.flags).text for asks in (False, True))
    is_header = bool(habits.tail.strip()) and unasked.endswith(habits.tail) and asked.endswith(habits.tail)
    is_endless = is_header and not any(piece in words.words for piece in common_pieces(habits.tail, following, words))
    habits.end = turn_end("" if is_endless else habits.tail, following, words, stops)
    is_ended = any(stop in habits.end for stop in stops)
    rest = habits.tail if is_endless else habits.tail.removeprefix(habits.end)
    further = "".join(piece for piece in words.split(rest) if piece not in stops)
    if further.strip() and not (is_ended and unasked.endswith(rest)):
        raise Refused(f"it goes on behind the reply, which stands last, with {_shown(further)} and never ends it")
    if further.strip():
        habits.notes.append(f"it writes {_shown(rest)} behind every conversation, which is not trained")
    if not is_ended:
        named = ", ".join(sorted(stops)) or "nothing"
        end = f"ends with {habits.end!r}" if habits.end.strip() else "has no end"
        habits.warnings.append(f"a reply {end}, and generation of this base stops at {named}")


def _following(template: ChatTemplate, habits: Habits) -> str:
    """What stands between a reply and the prompt behind it."""
    try:
        followed = template.render([*_ASKED, Said(_REPLY), user(_FOLLOW_UP)], flags=habits.flags)
    except Refused:
        return ""
    if REPLY not in followed.places or "turn 2" not in followed.places:
        return ""
    return followed.text[followed.places[REPLY][1] : followed.places["turn 2"][0]]


def _learn_headers(template: ChatTemplate, habits: Habits, words: ControlWords) -> None:
    """Headers of nothing but plain characters, which a text can forge, and of more than a word that anybody uses."""
    asked = template.render(_ASKED, asks=True, flags=habits.flags)
    for header in (_following(template, habits).removeprefix(habits.end), asked.text[asked.places[PROMPT][1] :]):
        plain = header.strip()
        if re.search(r"[^\w\s]", plain) and not words.found_in(header) and not tags_in(plain):
            at_line_start = r"^[ \t]*" if "\n" in header[: header.index(plain)] else ""
            habits.headers.append(re.compile(at_line_start + re.escape(plain), re.MULTILINE))
    if habits.headers:
        shown = ", ".join(
            sorted({pattern.pattern.removeprefix(r"^[ \t]*").replace("\\", "") for pattern in habits.headers})
        )
        habits.notes.append(f"its headers are plain characters ({shown}); texts that contain them are skipped")


def _compare_with_marks(template: ChatTemplate, habits: Habits, words: ControlWords, stops: Collection[str]) -> None:
    """By ``{% generation %}`` a template says itself what is the model's: that may only say where the turn ends."""
    marked = template.assistant_spans([*_ASKED, Said(_REPLY)], habits.flags)
    if not marked:
        return
    whole = template.render([*_ASKED, Said(_REPLY)], flags=habits.flags)
    start, end = whole.places[REPLY]
    is_whole = not _gaps(whole.text, marked) and marked[0][0] <= start and marked[-1][1] >= end
    if not is_whole or marked[0][0] < whole.places[PROMPT][1]:
        shown = "".join(whole.text[a:b] for a, b in marked)
        habits.warnings.append(
            f"its {{% generation %}} marks {_shown(shown)} as the model's, which is not the reply {_REPLY!r}; what is "
            "supervised was found by the reply's place instead"
        )
        return
    by_marks = turn_end(whole.text[end : marked[-1][1]], "", words, stops)
    if by_marks and by_marks != habits.end and by_marks.startswith(habits.end):
        habits.end = by_marks
    if by_marks == habits.end:
        habits.notes.append("its {% generation %} marks agree")
    else:
        habits.warnings.append(
            f"its {{% generation %}} marks end the reply with {by_marks!r}; {habits.end!r} is supervised, as it is "
            "what stands there when a turn follows"
        )


def _gaps(text: str, spans: list[tuple[int, int]]) -> bool:
    return any(text[before[1] : after[0]].strip() for before, after in pairwise(spans))


def _shown(text: str) -> str:
    return repr(text if len(text) <= 300 else f"{text[:150]} … {text[-150:]}")
