"""Our own JSON lines: what an agent writes into its buffer, one record a line.

The JSON Schema that is shipped is made of these structures, and ``ExperienceLog`` checks what it writes against them. A
key that is not named here belongs to the agent. Most keys that are optional may also be ``null``.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

MAX_LINE_BYTES: Final = 16 * 1024 * 1024
"""A longer line is skipped without being held."""

Portion = Annotated[float, Meta(ge=0.0, le=1.0)]
Identifier = Annotated[str, Meta(max_length=256)] | Annotated[int, Meta(ge=-(2**63) + 1, le=2**63 - 1)]
# A line end at the end of the text is refused, in Python too, where $ alone would allow it.
Cycle = Annotated[str, Meta(max_length=4096, pattern=r"(^|[/\\])cycle_[0-9]{1,9}[/\\]?$(?!\n)")]


class Salience(msgspec.Struct, frozen=True, kw_only=True):
    """A salience with its parts; only the total is used."""

    total: Portion


class TextPart(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="text"):
    """A part of a message's content."""

    text: str


class ImagePart(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="image_url"):
    """An image. A reply to a message with one is not trained; so it is for the two below."""


class AudioPart(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="input_audio"):
    """A recording."""


class FilePart(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="file"):
    """A file."""


Content = str | list[TextPart | ImagePart | AudioPart | FilePart] | None


class CalledFunction(msgspec.Struct, frozen=True, kw_only=True):
    """The tool that is called."""

    name: Annotated[str, Meta(min_length=1)]
    arguments: Annotated[str | dict[str, Any] | None, Meta(description="JSON text, or an object.")] = None


class FunctionCall(msgspec.Struct, frozen=True, kw_only=True):
    """One call of a tool, in the form of OpenAI."""

    function: CalledFunction
    id: str | None = None
    type: Literal["function"] = "function"


class OfferedFunction(msgspec.Struct, frozen=True, kw_only=True):
    """What the model is told of a tool."""

    name: Annotated[str, Meta(min_length=1)]
    description: str | None = None
    parameters: Annotated[dict[str, Any] | None, Meta(description="A JSON Schema of the arguments.")] = None


class OfferedTool(msgspec.Struct, frozen=True, kw_only=True):
    """A tool that the model may call, in the form of OpenAI."""

    function: OfferedFunction
    type: Literal["function"] = "function"


class SystemMessage(msgspec.Struct, frozen=True, kw_only=True, tag_field="role", tag="system"):
    """What the operator tells the model."""

    content: Content = None


class DeveloperMessage(SystemMessage, frozen=True, kw_only=True, tag_field="role", tag="developer"):
    """Another name for a system message."""


class UserMessage(msgspec.Struct, frozen=True, kw_only=True, tag_field="role", tag="user"):
    """What the user says."""

    content: Content = None


class AssistantMessage(msgspec.Struct, frozen=True, kw_only=True, tag_field="role", tag="assistant"):
    """What the model replied: text, calls of tools, or both."""

    content: Content = None
    tool_calls: Annotated[
        list[FunctionCall] | None, Meta(description="The tools that the reply calls, in the form of OpenAI.")
    ] = None
    reasoning_content: Annotated[
        str | None, Meta(description="What the model thought before it replied; see `training.thoughts`.")
    ] = None
    salience: Annotated[
        Portion | Salience | None, Meta(description="Of this reply, instead of the salience of the record.")
    ] = None
    weight: Annotated[Literal[0, 1] | None, Meta(description="0: this reply is only context and is not trained.")] = (
        None
    )
    id: Annotated[Identifier | None, Meta(description="Names this reply.")] = None


class ToolMessage(msgspec.Struct, frozen=True, kw_only=True, tag_field="role", tag="tool"):
    """What a tool returned."""

    content: Content = None
    tool_call_id: Annotated[str | None, Meta(description="The `id` of the call that this answers.")] = None
    name: Annotated[str | None, Meta(description="The name of the tool.")] = None


Message = SystemMessage | DeveloperMessage | UserMessage | AssistantMessage | ToolMessage


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What every record may have."""

    salience: Annotated[
        Portion | Salience | None,
        Meta(
            description="How much it matters: a number from 0 to 1, or an object with such a number as `total`. "
            "In a conversation it is that of each trained reply without its own."
        ),
    ] = None
    id: Annotated[
        Identifier | None,
        Meta(description="A text of at most 256 characters, or a number. Without it the id is made of the texts."),
    ] = None
    conversation: Annotated[Identifier | None, Meta(description="Names the conversation that this belongs to.")] = None
    said_under: Annotated[
        Cycle | Annotated[int, Meta(ge=1, lt=10**9)] | None,
        Meta(
            description='The adapter under which the replies were given: `"cycle_007"`, a path that ends in it, or '
            "the number 7. `null`: no adapter, or another model."
        ),
    ] = None
    timestamp: Annotated[
        str | float | None,
        Meta(
            description="When the reply was said: a Unix time, or a date of ISO 8601 with its zone. Where nothing "
            "names the adapter, the service takes the one that was proved to be served then."
        ),
    ] = None
    model: Annotated[
        str | None,
        Meta(
            description="The model that replied, where it is not the one in service (`serve.model`): the time then "
            "names no adapter."
        ),
    ] = None
    phase: Annotated[Any, Meta(description="The agent's own. It may be one of `triggers.breakthrough_marks`.")] = None
    tags: Annotated[Any, Meta(description="The agent's own. One of a list may be such a mark.")] = None
    metadata: Annotated[
        dict[str, Any] | None,
        Meta(
            description="The agent's own. Without `said_under`, `adapter` in it means the same, and `sleep_cycle` is "
            "the number of the cycle. A value may be one of `triggers.breakthrough_marks`."
        ),
    ] = None


class ReplyRecord(Record, frozen=True, kw_only=True):
    """A prompt and its reply."""

    prompt: Annotated[str, Meta(description="What the user said.")]
    response: Annotated[str, Meta(pattern=r"\S", description="The reply. `completion` is another name for it.")]


class CompletionRecord(Record, frozen=True, kw_only=True):
    """A prompt and its reply, which has its other name here."""

    prompt: str
    completion: Annotated[str, Meta(pattern=r"\S")]


class ConversationRecord(Record, frozen=True, kw_only=True):
    """A conversation. Each supervised reply is one training example; the messages before it are its context."""

    messages: Annotated[list[Message], Meta(min_length=1, description="The messages in their order, see below.")]
    tools: Annotated[
        list[OfferedTool] | None, Meta(description="The tools that the model was offered, in the form of OpenAI.")
    ] = None
    supervised: Annotated[
        Literal["all", "last"],
        Meta(
            description='Which replies are trained: `"all"` (where it is absent), or `"last"`: the last one alone, and '
            "the replies before it are its context."
        ),
    ] = "all"
    conversation_hash: Annotated[
        Annotated[str, Meta(pattern=r"^[0-9a-f]{16}$(?!\n)")] | None,
        Meta(description="Written by `sleepctl import`: records that bear the same one are held out together."),
    ] = None


RECORDS: Final = (ReplyRecord, CompletionRecord, ConversationRecord)


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a line."""
    kinds, parts = msgspec.json.schema_components(RECORDS, ref_template="#/$defs/{name}")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A line of an experience buffer of sage-sleepd",
        "anyOf": list(kinds),
        "$defs": parts,
    }
