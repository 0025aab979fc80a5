"""Trajectories of Hermes: a conversation whose tools and calls stand as tags in its texts.

Shape: ``conversations`` with ``from`` and ``value``. A system message holds ``<tools>``, a reply ``<think>`` and
``<tool_call>``, a message of the tools one or more ``<tool_response>``. They become tools, calls and results, which
the template of the base writes in its own way. What cannot be parsed stays text. The system message that Hermes makes
up when it saves explains the tags, so that it is left out; another one stays, without the list of tools.
Nothing becomes the salience. Left out and named: a run that failed or was interrupted (``completed`` false).
Source: NousResearch/hermes-agent, website/docs/developer-guide/trajectory-format.md
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from sleepd.buffer.conversation import Conversation, Turn
from sleepd.buffer.formats.format import (
    ROLES,
    Format,
    NotRead,
    Record,
    call_of,
    identifier_of,
    json_text,
    json_value,
    list_of,
    object_of,
    openai_tools,
    shown,
    text_of,
    with_thought,
)
from sleepd.protocol.chat_example import Message, MessageRole

_MADE_UP: Final = "You are a function calling AI model."
"""So begins the system message that Hermes makes up."""
_TAGS: Final = ("<tool_call>", "<tool_response>", "<tools>")
_ROLES: Final = ("system", "human", "gpt", "tool")
_OWN_KEYS: Final = ("completed", "tool_stats", "prompt_index", "toolsets_used")


def _recognises(record: Record) -> bool:
    listed = record.get("conversations")
    if not isinstance(listed, list):
        return False
    if any(name in record for name in _OWN_KEYS):
        return True
    said = [each for each in listed if isinstance(each, Mapping)]
    texts = [text for each in said if isinstance(text := each.get("value"), str)]
    return all(each.get("from") in _ROLES for each in said) and any(tag in text for text in texts for tag in _TAGS)


def _cut_out(text: str, tag: str) -> tuple[str, list[str]]:
    """A text without the parts between a tag and its end, and these parts."""
    first, *others = text.split(f"<{tag}>")
    kept, found = [first], []
    for other in others:
        inside, end, after = other.partition(f"</{tag}>")
        if end:
            found.append(inside.strip())
            kept.append(after)
        else:
            kept.append(f"<{tag}>{other}")
    return "".join(kept), found


def tagged_turns(said: Iterable[tuple[MessageRole, str]]) -> tuple[list[Turn], str]:
    """The messages of a conversation whose texts hold tags, and the tools that were offered.

    Raises:
        NotRead: a call or a tool is no object.
    """
    turns, tools = [], ""
    for role, text in said:
        if role == "system":
            rest, offered = _system(text)
            tools = tools or offered
            messages = [Message(role=role, text=rest)] if rest else []
        elif role == "assistant":
            messages = [_reply(text)]
        else:
            messages = list(_results(text)) if role == "tool" else [Message(role=role, text=text)]
        turns += [Turn(message=message) for message in messages]
    return turns, tools


def _system(text: str) -> tuple[str, str]:
    rest, found = _cut_out(text, "tools")
    offered = [json_value(each) for each in found]
    if not any(isinstance(each, list) for each in offered):
        return text, ""
    tools = openai_tools([tool for each in offered if isinstance(each, list) for tool in each])
    return "" if rest.startswith(_MADE_UP) else rest.strip(), tools


def _reply(text: str) -> Message:
    rest, found = _cut_out(text, "tool_call")
    asked = [json_value(each) for each in found]
    if not all(isinstance(each, Mapping) and isinstance(each.get("name"), str) for each in asked):
        rest, asked = text, []
    calls = tuple(call_of(each["name"], each.get("arguments"), each.get("id")) for each in asked)
    if rest.lstrip().startswith("<think>"):
        thought, end, answer = rest.lstrip().removeprefix("<think>").partition("</think>")
        rest = with_thought(thought, answer.strip()) if end else rest
    return Message(role="assistant", text=rest.strip() if calls else rest, calls=calls)


def _results(text: str) -> Iterator[Message]:
    _, found = _cut_out(text, "tool_response")
    if not found:
        yield Message(role="tool", text=text)
    for each in found:
        value = json_value(each)
        if isinstance(value, Mapping) and "content" in value:
            content = text_of(json_text(value["content"]), "tool_response")
            call, name = identifier_of(value.get("tool_call_id")), identifier_of(value.get("name"))
            yield Message(role="tool", text=content, call_id=call, name=name)
        else:
            yield Message(role="tool", text=each)


def _said(value: Any, name: str) -> tuple[MessageRole, str]:
    record = object_of(value, name)
    role = ROLES.get(str(record.get("from")))
    if role is None:
        raise NotRead(f"{name}.from: expected system, human, gpt or tool, found {shown(record.get('from'))}")
    return role, text_of(record.get("value"), f"{name}.value")


def _conversations(record: Record) -> Iterator[Conversation]:
    if record.get("completed") is False or record.get("partial") is True:
        raise NotRead("completed: the run failed or was interrupted, so that nothing of it is learned")
    listed = list_of(record["conversations"], "conversations")
    turns, tools = tagged_turns(_said(each, f"conversations[{place}]") for place, each in enumerate(listed))
    if not any(turn.message.role == "assistant" for turn in turns):
        raise NotRead("conversations: expected a message from gpt, found none")
    yield Conversation(
        turns=turns, id=identifier_of(record.get("id")), tools=tools or openai_tools(record.get("tools"))
    )


FORMAT = Format(
    name="hermes",
    title="Hermes trajectory",
    recognises=_recognises,
    conversations=_conversations,
    usual_place="`trajectory_samples.jsonl.gz` in the agent's folder, unpacked",
)
