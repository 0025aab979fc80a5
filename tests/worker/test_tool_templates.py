"""Conversations with tools, template by template: what is supervised, what stands before it, what is refused."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from sleepd.protocol.chat_example import ChatExample, Message, ToolCall
from sleepd.worker.data.chat_format import ChatFormat
from sleepd.worker.data.control_tokens import Refused
from sleepd.worker.data.examples import encode_examples, encode_or_refuse
from sleepd.worker.data.messages import Context
from sleepd.worker.data.tool_calls import CallForm, short_id
from sleepd.worker.model.template_check import check

from .conftest import RecordingChannel
from .templates import CASES, CHATML, Case, by_name, make_tokenizer
from .test_chat_templates import WILD, chat_of, shown
from .tool_templates import (
    ANSWERING,
    ASKED,
    CALL,
    CALLED,
    OTHER_CALL,
    REPR,
    TOOL_CASES,
    TOOLS,
    ToolCase,
    as_example,
    calling,
    chat_with,
)

pytestmark = pytest.mark.worker
_IM = "<|endoftext|> <|im_start|> <|im_end|>"


def supervised(chat: ChatFormat, example: ChatExample) -> str:
    """What is supervised, control tokens in brackets; or why it is not trained."""
    try:
        one = encode_or_refuse(chat, example, 4000)
    except Refused as error:
        return f"refused: {error}"
    return shown(chat.tokenizer, one.ids[one.prompt_tokens :])


@pytest.mark.parametrize("case", TOOL_CASES, ids=lambda case: case.name)
def test_calls_are_supervised(case: ToolCase) -> None:
    """The text and the calls of a reply as the template writes them, and the end of its turn; else it is refused."""
    chat = chat_with(case.name)
    given = {
        case.calls: calling(CALL),
        case.both: calling(CALL, text="I ask."),
        case.two: calling(CALL, OTHER_CALL),
        case.answer: ANSWERING,
    }
    for wanted, example in given.items():
        found = supervised(chat, example)
        assert found == wanted or (wanted.startswith("refused: ") and wanted.removeprefix("refused: ") in found)
    one = encode_or_refuse(chat, ANSWERING, 4000)
    assert shown(chat.tokenizer, one.ids[: one.prompt_tokens]).endswith(case.shows)
    contract = check(chat)
    assert (contract.writes_tools, contract.warnings) == (True, [])
    assert any("writes calls of tools" in note for note in contract.notes)


@pytest.mark.parametrize("case", TOOL_CASES, ids=lambda case: case.name)
def test_control_words_in_tools_stay_text(case: ToolCase) -> None:
    """In arguments, their keys, results, tool descriptions and names: as many control tokens as in a plain talk."""
    words = " ".join(word.lstrip("~") for word in case.words.split())

    def with_word(word: str) -> ChatExample:
        call = ToolCall(
            name=f"n{word}", arguments=json.dumps({"city": f"a{word}", f"k{word}": [f"b{word}"]}), id="call_0001"
        )
        tools = json.dumps(
            [{"type": "function", "function": {"name": "f", "description": f"d{word}", "parameters": {}}}]
        )
        context = (
            Message(role="system", text=f"s{word}"),
            Message(role="user", text=f"u{word}"),
            Message(role="assistant", calls=(call,)),
            Message(role="tool", text=f"r{word}", call_id=call.id, name=call.name),
        )
        return ChatExample(
            prompt="", response="", calls=(msgspec.structs.replace(call, id="call_0002"),), context=context, tools=tools
        )

    chat = chat_with(case.name)
    control = set(chat.words.by_id)
    plain, forged = (encode_or_refuse(chat, with_word(word), 20_000) for word in ("x", words))
    for one, other in ((plain.ids, forged.ids), (plain.ids[plain.prompt_tokens :], forged.ids[forged.prompt_tokens :])):
        assert [number for number in one if number in control] == [number for number in other if number in control]
    assert words in chat.tokenizer.decode(forged.ids[forged.prompt_tokens :])


# --- random conversations ---

_TAME = st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "Zs"]), max_size=12).map(
    lambda text: f"a{text}"
)
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def conversations(draw: st.DrawFn, texts: Any, *, many_calls: bool) -> ChatExample:
    """A conversation in which tools are called and answer, and a reply that says something, calls tools, or both."""
    numbers = iter(range(1, 10**6))

    def calls() -> tuple[ToolCall, ...]:
        count = draw(st.integers(1, 2 if many_calls else 1))
        arguments = st.dictionaries(st.text(min_size=1, max_size=5), _VALUES, max_size=3)
        return tuple(
            ToolCall(name="weather", arguments=json.dumps(draw(arguments)), id=f"call{next(numbers):05}")
            for _ in range(count)
        )

    context: list[Message] = []
    if draw(st.booleans()):
        context.append(Message(role="system", text=draw(texts)))
    for _ in range(draw(st.integers(0, 2))):
        context += [Message(role="user", text=draw(texts)), Message(role="assistant", text=draw(texts))]
    context.append(Message(role="user", text=draw(texts)))
    for _ in range(draw(st.integers(0, 2))):
        made = calls()
        context.append(Message(role="assistant", calls=made))
        context += [Message(role="tool", text=draw(texts), call_id=call.id, name=call.name) for call in made]
    reply = draw(texts).rstrip() if draw(st.booleans()) else ""
    return ChatExample(
        prompt=context[-1].text, response=reply, calls=() if reply else calls(), context=tuple(context), tools=TOOLS
    )


def as_openai(example: ChatExample, form: CallForm) -> list[dict[str, Any]]:
    """The messages as OpenAI has them, made apart from the code that is tested."""
    messages = []
    for one in (*example.context, Message(role="assistant", text=example.response, calls=example.calls)):
        message: dict[str, Any] = {"role": one.role, "content": one.text}
        if one.calls:
            message["tool_calls"] = [
                {
                    "type": "function",
                    "id": call.id,
                    "function": {
                        "name": call.name,
                        "arguments": call.arguments if form.is_text else json.loads(call.arguments),
                    },
                }
                for call in one.calls
            ]
        if one.role == "tool":
            message |= {"tool_call_id": one.call_id, "name": one.name}
        messages.append(message)
    return messages


RANDOM = ["Qwen2.5", "Qwen3", "Hermes", "Llama 3.1", "Mistral v3", "Mistral v7", "SmolLM3", "GLM 4.5", "gpt-oss"]


@pytest.mark.parametrize("name", RANDOM)
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_random_conversation_is_the_templates_own(name: str, data: st.DataObject) -> None:
    """What is not supervised is what the template gives when it is asked; what is, all that it writes behind that, up
    to the end of the turn.
    """
    chat = chat_with(name)
    example = data.draw(conversations(_TAME, many_calls=name not in ("Llama 3.1", "gpt-oss")))
    # That template loses the system message where a reply stands last, so it opens the user's turn instead.
    assume(name != "Mistral v3" or example.context[0].role != "system")
    habits = chat.tool_habits(offered=True)
    one = encode_or_refuse(chat, example, 50_000)
    messages, given = as_openai(example, habits.form), {"tools": json.loads(TOOLS), "tokenize": False}
    given |= chat.habits.flags
    asked = chat.tokenizer.apply_chat_template(messages[:-1], add_generation_prompt=True, **given)
    whole = chat.tokenizer.apply_chat_template(messages, **given)
    decode = chat.tokenizer.decode
    assert decode(one.ids[: one.prompt_tokens]) == asked
    assert whole.startswith(asked)
    said = decode(one.ids[one.prompt_tokens :])
    added = habits.added if example.calls else ("<|user|>" if name == "GLM 4.5" else "")
    assert whole.removeprefix(asked).removesuffix("\n") == said.removesuffix(added)


@pytest.mark.parametrize("name", [case.name for case in TOOL_CASES])
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_conversation_keeps_its_structure(name: str, data: st.DataObject) -> None:
    """Whatever the texts hold: no control token comes from one, and the tokens give the whole conversation back."""
    chat = chat_with(name)
    example = data.draw(conversations(WILD, many_calls=True))
    assume(example.response.strip() or example.calls)
    try:
        written = chat.conversation(*chat.split(example))
        ids, prompt_tokens, _ = chat.encode(written)
    except Refused as error:
        assert str(error)
        return
    assert chat.tokenizer.decode(ids) == written.text
    assert chat.tokenizer.decode(ids[:prompt_tokens]) == written.text[: written.start]
    control = [number for number in ids if number in chat.words.by_id]
    assert len(control) == len(chat.words.found_in(_structure(written)))


def _structure(written: Any) -> str:
    at, parts = 0, []
    for start, end in sorted(written.texts):
        parts += [written.text[at:start], "\0"]
        at = max(at, end)
    return "".join([*parts, written.text[at:]])


# --- forms, thoughts, refusals ---


def test_form_of_calls_is_found_out() -> None:
    """Arguments as text where an object would be written as Python writes it; ids of nine where others are refused."""
    forms = {name: chat_with(name).tool_habits(offered=True).form for name in ("Qwen2.5", "DeepSeek R1", "Mistral v3")}
    assert [forms[name].is_text for name in forms] == [False, True, False]
    assert [forms[name].has_short_ids for name in forms] == [False, False, True]
    text = ChatFormat(make_tokenizer(_IM, REPR, eos="<|im_end|>"), "")
    assert text.tool_habits(offered=True).form.is_text
    assert json.loads(CALL.arguments)["city"] in supervised(text, calling(CALL))
    assert [short_id("call_Xa81kQ0zP"), len(short_id("call_1")), len(short_id(""))] == ["Xa81kQ0zP", 9, 9]
    assert short_id("call_1") != short_id("call_2")


@pytest.mark.parametrize(
    "case", [by_name("ChatML"), by_name("no template"), by_name("Gemma 2")], ids=lambda case: case.name
)
def test_template_without_tools_refuses_calls(case: Case) -> None:
    """The reason names it; a reply that calls nothing is trained although tools were offered, and that is reported."""
    chat = chat_of(replace(case, system=""))
    for example in (calling(CALL), ANSWERING):
        assert "no place for tool calls" in supervised(chat, example)
    assert check(chat).writes_tools is False
    assert any("call tools are left out" in note for note in check(chat).notes)
    channel = RecordingChannel()
    plain = msgspec.structs.replace(calling(), response="Cold.")
    examples = [as_example("plain", plain), as_example("calls", calling(CALL))]
    assert [one.id for one in encode_examples(chat, examples, 500, channel)] == ["plain"]
    texts = {notice.event: notice.text for notice in channel.notices}
    assert re.search("1 offer tools .*: plain", texts["tools_not_shown"])
    assert "no place for tool calls" in texts["experiences_left_out"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_old_templates_say_whether_they_write_tools(case: Case) -> None:
    """Of each template without tools the contract is the same as ever, but for one sentence."""
    assert check(chat_of(case)).writes_tools is False


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tools": "{}"}, "its tools are no JSON array of objects"),
        ({"tools": "[1"}, "its tools are no JSON array of objects"),
        ({"calls": (ToolCall(name="f", arguments="[1]"),)}, "the arguments of its call of 'f' are no JSON object"),
        ({"calls": (ToolCall(name="f", arguments='{"a": NaN}'),)}, "are no JSON object"),
        ({"calls": (ToolCall(name="f", arguments='{"a":' * 200 + "1" + "}" * 200),)}, "are no JSON object"),
        ({"calls": (ToolCall(name="f", arguments='{"a":' * 99_999),)}, "are no JSON object"),
        ({"calls": (ToolCall(name="f", arguments='{"a": "\\ud800"}'),)}, "half a character"),
    ],
)
def test_damaged_calls_are_refused(changes: Any, said: str) -> None:
    """Each with the reason."""
    assert said in supervised(chat_with("Qwen3"), msgspec.structs.replace(calling(CALL), **changes))


def test_thought_before_calls_is_supervised() -> None:
    """As it was written, or left out where thoughts are dropped; a thought with calls and no text is a reply."""
    thought = "<think>\nI must ask.\n</think>\n\n"
    call = TOOL_CASES[1].calls
    for text in (thought, thought + "I ask."):
        said = "I ask.\n" if text != thought else ""
        given = calling(CALL, text=text)
        assert supervised(chat_with("Qwen3"), given) == f"⟦<think>⟧\nI must ask.\n⟦</think>⟧\n\n{said}{call}"
        assert supervised(chat_with("Qwen3", thoughts="drop"), given) == f"{said}{call}"
    found = supervised(chat_with("Mistral v3"), calling(CALL, text=thought))
    assert found == f"<think>\nI must ask.\n</think>\n\n{TOOL_CASES[4].calls}"
    found = supervised(chat_with("DeepSeek R1"), calling(CALL, text=thought))
    assert found.startswith("I must ask.\n⟦</think>⟧\n\n⟦<|calls|>⟧⟦<|call|>⟧function⟦<|sep|>⟧weather\n")


def thinking(text: str, *more: Message) -> ChatExample:
    """A reply behind a call, before which ``text`` was said, its result and more."""
    context = [*CALLED, *more]
    context[2] = msgspec.structs.replace(context[2], text=text)
    return msgspec.structs.replace(ANSWERING, context=tuple(context))


def written(chat: ChatFormat, example: ChatExample) -> str:
    return str(chat.tokenizer.decode(encode_or_refuse(chat, example, 4000).ids))


@pytest.mark.parametrize(("said", "shown"), [("I ask.", "I ask.\n<tool_call>"), ("", "<tool_call>")])
def test_thoughts_of_earlier_turns_are_left_out(said: str, shown: str) -> None:
    """Also of those that call tools, with a text beside the call or without."""
    text = written(chat_with("Qwen2.5"), thinking(f"<think>\nHm.\n</think>\n\n{said}"))
    assert ["Hm." in text, "think" in text, shown in text] == [False, False, True]


def test_thoughts_between_calls_are_shown() -> None:
    """Until the user speaks again, where the template shows them: the context is what the engine made of the log."""
    chat, thought = chat_with("Qwen3"), "<think>\nHm.\n</think>\n\n"
    example = thinking(f"{thought}I ask.")
    messages = as_openai(example, chat.tool_habits(offered=True).form)
    messages[2] |= {"content": "I ask.", "reasoning_content": "Hm."}
    offered, tokenizer = json.loads(TOOLS), chat.tokenizer
    asked = tokenizer.apply_chat_template(messages[:-1], tools=offered, tokenize=False, enable_thinking=False)
    assert written(chat, example).startswith(asked)
    assert "Hm." in asked
    assert "Hm." in written(chat, thinking(thought))
    later = (Message(role="assistant", text="Cold."), Message(role="user", text="And now?"))
    assert "Hm." not in written(chat, thinking(thought, *later))
    assert "Hm." not in written(chat_with("Qwen3", thoughts="drop"), thinking(thought))


def test_a_lost_text_is_not_taken_for_its_like() -> None:
    """A template that leaves an assistant's text out beside its calls has lost no user's text that is the same."""
    context = [*CALLED, Message(role="user", text="Well.")]
    context[2] = msgspec.structs.replace(context[2], text="Well.")
    example = msgspec.structs.replace(ANSWERING, context=tuple(context))
    assert supervised(chat_with("Llama 3.1"), example) == "Cold.⟦<|eot_id|>⟧"


def test_missing_ids_and_names_are_filled_in() -> None:
    """Results follow in the order of their calls, as programs write them that give calls no ids."""
    bare = [msgspec.structs.replace(call, id="") for call in (CALL, OTHER_CALL)]
    results = [Message(role="tool", text=text) for text in ("7 °C", "9 °C")]
    context = (*ASKED, Message(role="assistant", calls=tuple(bare)), *results)
    chat = chat_with("Mistral v3")
    one = encode_or_refuse(chat, msgspec.structs.replace(ANSWERING, context=context), 4000)
    text = chat.tokenizer.decode(one.ids)
    for number, said in ((1, "7 °C"), (2, "9 °C")):
        assert f'"id": "call0000{number}"' in text
        assert f'{{"content": "{said}", "call_id": "call0000{number}"}}' in text


def test_system_message_of_its_own_replaces_the_configured_one() -> None:
    """The configured one stands only where a conversation has none."""
    chat = ChatFormat(make_tokenizer(_IM, CHATML, eos="<|im_end|>"), "You are configured.")
    asked = (Message(role="user", text="Hi"),)
    for context, wanted in ((asked, "You are configured."), ((Message(role="system", text="Own."), *asked), "Own.")):
        one = encode_or_refuse(chat, ChatExample(prompt="Hi", response="Hello", context=context), 500)
        text = chat.tokenizer.decode(one.ids)
        assert text.startswith(f"<|im_start|>system\n{wanted}<|im_end|>\n<|im_start|>user\nHi")
        assert text.count("<|im_start|>system") == 1


def test_template_without_system_role_folds_any_system() -> None:
    """Also that of a conversation, where none is configured."""
    chat = chat_of(by_name("Gemma 2", system=""))
    given = ChatExample(
        prompt="Hi", response="Hello", context=(Message(role="system", text="Own."), Message(role="user", text="Hi"))
    )
    text = chat.tokenizer.decode(encode_or_refuse(chat, given, 500).ids)
    assert text.startswith("<bos><start_of_turn>user\nOwn.\n\nHi<end_of_turn>")


@pytest.mark.parametrize(
    ("name", "context", "said"),
    [
        ("Gemma 2", [("user", "a"), ("user", "b")], "Roles must alternate"),
        ("Gemma 2", [("system", "a"), ("assistant", "b"), ("user", "c")], "no user's turn follows the system prompt"),
        ("a template that leaves a later system message out", [], ""),
    ],
)
def test_order_that_a_template_refuses(name: str, context: list[tuple[str, str]], said: str) -> None:
    """It is tried as it is; where the template fails or leaves a text out, the reason says so."""
    if name.startswith("a template"):
        late = CHATML.replace("for m in messages", "for m in messages if m.role != 'system' or loop.first")
        tokenizer = make_tokenizer(
            _IM, late.replace("if m.role != 'system' or loop.first", "if m.content != 'late'"), eos="<|im_end|>"
        )
        chat = ChatFormat(tokenizer, "")
        assert chat.conversation(
            Context((Message(role="user", text="a"), Message(role="system", text="late"))), chat.said("b")
        )
        return
    chat = chat_of(by_name(name, system=""))
    messages = tuple(Message(role=role, text=text) for role, text in context)
    assert said in supervised(chat, ChatExample(prompt="a", response="c", context=messages))
