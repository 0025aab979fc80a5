"""What of a long conversation stays: the system message, the tools, the last user's message, and then the newest."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sleepd.protocol.chat_example import ChatExample, Message, ToolCall
from sleepd.worker.data.chat_template import ChatTemplate
from sleepd.worker.data.control_tokens import Refused
from sleepd.worker.data.examples import asked_ids, encode_examples, encode_or_refuse

from .conftest import RecordingChannel
from .tool_templates import TOOLS, as_example, chat_with

pytestmark = pytest.mark.worker
SYSTEM = Message(role="system", text="Be brief.")


def user(text: str) -> Message:
    return Message(role="user", text=text)


def talk(turns: int, *, words: str = "And so on and on.") -> tuple[Message, ...]:
    """So many numbered questions and answers."""
    said = [SYSTEM]
    for number in range(turns):
        said += [user(f"Q{number:05}?"), Message(role="assistant", text=f"A{number:05}. {words}")]
    return tuple(said)


def called(number: int, text: str = "") -> tuple[Message, ...]:
    """A call and its result."""
    call = ToolCall(name="weather", arguments=f'{{"city": "C{number:05}"}}', id=f"call{number:05}")
    return Message(role="assistant", calls=(call,)), Message(role="tool", text=text or f"R{number:05}", call_id=call.id)


def behind(*context: Message) -> ChatExample:
    return ChatExample(prompt="Now?", response="Yes.", context=context, tools=TOOLS)


def text_of(name: str, example: ChatExample, limit: int) -> str:
    """What is left of it, as text."""
    chat = chat_with(name)
    one = encode_or_refuse(chat, example, limit)
    assert len(one.ids) <= limit
    return chat.tokenizer.decode(one.ids)


NAMES = ["Qwen2.5", "Llama 3.1", "Mistral v7", "gpt-oss"]


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(limit=st.integers(900, 1800), turns=st.integers(0, 20), tools=st.integers(0, 4))
def test_newest_turns_stay(name: str, limit: int, turns: int, tools: int) -> None:
    """Without a gap, beginning with a user's message, and as many as there is room for; nothing of the rest is cut."""
    chat = chat_with(name)
    loop = [message for number in range(tools) for message in called(number)]
    example = behind(*talk(turns), user("Now?"), *loop)
    one = encode_or_refuse(chat, example, limit)
    text = chat.tokenizer.decode(one.ids)
    assert len(one.ids) <= limit
    assert all(piece in text for piece in ("Be brief.", "Tells the weather.", "Now?", "Yes."))
    kept = [number for number in range(turns) if f"Q{number:05}" in text]
    assert kept == list(range(turns - len(kept), turns))
    assert [number for number in range(turns) if f"A{number:05}. And so on and on." in text] == kept
    results = [number for number in range(tools) if f"R{number:05}" in text]
    assert results == list(range(tools - len(results), tools))
    assert [number for number in range(tools) if f"C{number:05}" in text] == results
    assert one.lost_messages == 2 * (turns - len(kept) + tools - len(results))
    assert one.is_truncated == (one.lost_messages > 0)
    assert not kept or len(results) == tools
    if one.is_truncated and (len(results) == tools):
        more = behind(*talk(turns)[-2 * len(kept) - 2 :], user("Now?"), *loop)
        more = msgspec.structs.replace(more, context=(SYSTEM, *more.context))
        assert len(encode_or_refuse(chat, more, 10_000).ids) > limit


@pytest.mark.parametrize("turns", [2, 40, 400])
@pytest.mark.parametrize("place", [0, 0.5, 1])
@pytest.mark.parametrize("is_loop", [False, True])
def test_governing_system_message_stays(turns: int, place: float, is_loop: bool) -> None:
    """The last system message before what stays is kept, one before it is not, and the newest turns are."""
    earlier, later = Message(role="system", text="Be long."), Message(role="system", text="Be polite.")
    said = [user("Go."), *(one for n in range(turns) for one in called(n))] if is_loop else [*talk(turns)[1:]]
    cut = is_loop + 2 * int(place * (turns - 1))
    given = [SYSTEM, *said[:cut], earlier, later, *said[cut:], *([] if is_loop else [user("Now?")])]
    text = text_of("Qwen2.5", behind(*given), 700)
    assert ["Be brief." in text, "Be polite." in text, "Yes." in text] == [True, True, True]
    assert f"{'R' if is_loop else 'Q'}{turns - 1:05}" in text
    if turns > 100 and place == 0.5:
        assert "Be long." not in text


def test_last_results_lose_the_start_of_the_longest() -> None:
    """Where the last calls alone are too long, their results are cut, and not the calls."""
    long = "x" * 3000 + "the end"
    text = text_of("Qwen2.5", behind(SYSTEM, user("Now?"), *called(1), *called(2, long)), 800)
    assert ["C00001" in text, "C00002" in text, "x the end" in text.replace("xthe", "x the")] == [False, True, True]
    assert text.startswith("<|im_start|>system\nBe brief.")
    assert "user\nNow?<|im_end|>" in text
    assert text.endswith("Yes.<|im_end|>")


def test_several_long_texts_lose_their_starts() -> None:
    """They are cut to the same length, and what is shorter stays whole."""
    given = behind(SYSTEM, user("x" * 900 + " Now?"), *called(1, "y" * 1200 + " so it is"))
    text = text_of("Qwen2.5", given, 700)
    assert ["Now?" in text, "so it is" in text] == [True, True]


def test_what_may_not_go_is_refused() -> None:
    """A system message longer than the limit leaves no room for a reply."""
    with pytest.raises(Refused, match="within 300 tokens"):
        encode_or_refuse(chat_with("Qwen2.5"), behind(Message(role="system", text="s" * 400), user("Now?")), 300)


def test_long_replies_lose_their_end_last() -> None:
    """Also a call is cut in its middle, and then no turn ends."""
    call = ToolCall(name="weather", arguments='{"city": "' + "O" * 900 + '"}')
    given = msgspec.structs.replace(behind(*talk(3), user("Now?")), response="", calls=(call,))
    chat = chat_with("Qwen2.5")
    one = encode_or_refuse(chat, given, 600)
    assert (len(one.ids), one.lost_messages) == (600, 6)
    said = chat.tokenizer.decode(one.ids[one.prompt_tokens :])
    assert said.startswith('<tool_call>\n{"name": "weather", "arguments": {"city": "OOO')
    assert said.endswith("OOO")


def test_few_renderings_suffice(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many turns there are; what is far away is not even given to the template."""
    chat = chat_with("Qwen2.5")
    real, sizes = ChatTemplate.render, []

    def counting(self: Any, turns: Any, **given: Any) -> Any:
        sizes.append(len(turns))
        return real(self, turns, **given)

    monkeypatch.setattr(ChatTemplate, "render", counting)
    for turns in (100, 1000, 10_000):
        sizes.clear()
        one = encode_or_refuse(chat, behind(*talk(turns), user("Now?")), 1000)
        assert len(one.ids) > 900
        assert len(sizes) <= 6
        assert max(sizes) < 250
    sizes.clear()
    loop = [message for number in range(5000) for message in called(number)]
    one = encode_or_refuse(chat, behind(*talk(5), user("Now?"), *loop), 1000)
    assert len(one.ids) > 800
    assert len(sizes) <= 6
    assert max(sizes) < 250


def test_asked_as_it_is_trained() -> None:
    """A reply is generated behind the same tokens that it is trained behind, where those are not cut."""
    chat = chat_with("Qwen2.5")
    given = behind(*talk(3), user("Now?"), *called(1))
    one = encode_or_refuse(chat, given, 5000)
    assert asked_ids(chat, given, 5000) == list(one.ids[: one.prompt_tokens])
    assert len(asked_ids(chat, given, 500)) <= 500


def test_lost_turns_are_reported() -> None:
    """How many experiences were cut, and how many of them lost whole messages."""
    channel = RecordingChannel()
    given = [
        as_example("turns", behind(*talk(30), user("Now?"))),
        as_example("text", ChatExample(prompt="x" * 900, response="Yes.")),
        as_example("whole", ChatExample(prompt="Hi", response="Yes.")),
    ]
    assert len(encode_examples(chat_with("Qwen2.5"), given, 700, channel)) == 3
    (notice,) = [one for one in channel.notices if one.event == "experiences_truncated"]
    assert re.match("2 .* 700 tokens .*: turns, text; 1 ", notice.text)
