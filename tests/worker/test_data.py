"""From experiences to token ids: what is supervised, what is cut."""

from __future__ import annotations

import re
import socket
from typing import Any

import pytest

from sleepd.protocol.job import TrainingExample
from sleepd.worker.channel import Channel
from sleepd.worker.data.examples import ChatFormat, encode_chat, encode_examples
from sleepd.worker.programs.tiny_model import make_tiny_tokenizer

from .conftest import RecordingChannel
from .templates import pair

pytestmark = pytest.mark.worker


@pytest.fixture
def tokenizer() -> Any:
    return make_tiny_tokenizer()


def supervised(tokenizer: Any, one: Any) -> str:
    """The supervised part as text."""
    return tokenizer.decode(one.ids[one.prompt_tokens :])


def test_reply_and_end_alone_are_supervised(tokenizer: Any) -> None:
    """The supervised ids decode to the reply and the end of turn; before stands the prompt as the model is asked."""
    chat = ChatFormat(tokenizer, "Be brief.")
    one = encode_chat(chat, "a", pair("Who are you?", "  I am Ida.\n"), 500)
    assert supervised(tokenizer, one) == "  I am Ida.<|im_end|>"
    assert tokenizer.decode(one.ids[: one.prompt_tokens]) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWho are you?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_chat_example_matches_the_template(tokenizer: Any) -> None:
    """Prompt and reply together are the template's own rendering, up to the end of turn."""
    chat = ChatFormat(tokenizer, "")
    one = encode_chat(chat, "a", pair("Hi", "Hello"), 500)
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    assert tokenizer.apply_chat_template(messages, tokenize=False) == tokenizer.decode(one.ids) + "\n"


def test_missing_system_role_uses_user_turn(tokenizer: Any) -> None:
    """Templates that raise on a system role still see the system prompt."""
    tokenizer.chat_template = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
        + tokenizer.chat_template
    )
    ids = ChatFormat(tokenizer, "Be brief.").prompt_ids("Hi")
    assert tokenizer.decode(ids) == "<|im_start|>user\nBe brief.\n\nHi<|im_end|>\n<|im_start|>assistant\n"


def test_template_text_before_reply_is_supervised(tokenizer: Any) -> None:
    """A template that sets a blank before the reply teaches the blank too, as the model will have to say it."""
    tokenizer.chat_template = (
        "{% for m in messages %}[{{ m['role'] }}]{% if m['role'] == 'assistant' %} {% endif %}"
        "{{ m['content'] }}<|endoftext|>{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    one = encode_chat(ChatFormat(tokenizer, ""), "a", pair("Hi", "Hello"), 500)
    assert supervised(tokenizer, one) == " Hello<|endoftext|>"


def test_plain_form_without_template(tokenizer: Any) -> None:
    """No template: a documented plain form, still ended by the tokenizer's end."""
    tokenizer.chat_template = None
    one = encode_chat(ChatFormat(tokenizer, "Be brief."), "a", pair("Hi", "Hello"), 500)
    assert tokenizer.decode(one.ids) == "<|im_start|>Be brief.\n\nUser: Hi\nAssistant: Hello<|im_end|>"
    assert supervised(tokenizer, one) == " Hello<|im_end|>"


def test_long_prompt_loses_its_start(tokenizer: Any) -> None:
    """The user's text is cut from the front; the system prompt and the reply are whole."""
    chat = ChatFormat(tokenizer, "Be brief.")
    one = encode_chat(chat, "a", pair("x" * 300 + "end?", "Yes."), 120)
    assert one.is_truncated
    assert len(one.ids) == 120
    assert supervised(tokenizer, one) == "Yes.<|im_end|>"
    text = tokenizer.decode(one.ids)
    assert text.startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nx")
    assert "xend?<|im_end|>" in text


def test_long_reply_loses_its_end(tokenizer: Any) -> None:
    """After a cut there is no end of turn."""
    one = encode_chat(ChatFormat(tokenizer, ""), "a", pair("Hi", "y" * 300), 100)
    assert len(one.ids) == 100
    assert set(supervised(tokenizer, one)) == {"y"}


def test_empty_example_is_left_out(tokenizer: Any) -> None:
    """What cannot be supervised is not trained on, and the notice names it."""
    ours, theirs = socket.socketpair()
    channel = Channel(theirs)
    given = [
        TrainingExample(id="blank", prompt="Hi", response=" \n", salience=1, role="train"),
        TrainingExample(id="good", prompt="Hi", response="Hello", salience=1, role="train"),
    ]
    assert [one.id for one in encode_examples(ChatFormat(tokenizer, ""), given, 500, channel)] == ["good"]
    assert [(n.event, "blank" in n.text) for n in channel.notices] == [("experiences_left_out", True)]
    assert encode_examples(ChatFormat(tokenizer, ""), given, 10, channel) == []
    ours.close()
    theirs.close()


def test_reasons_are_told_and_are_few(tokenizer: Any) -> None:
    """Each reason is a notice with its experiences; of many reasons the rarer ones share one notice."""
    tokenizer.chat_template = (
        "{% for each in '012345678' if messages[-1].role == 'assistant' and each in messages[-1].content %}"
        "{{ raise_exception('not ' + each) }}{% endfor %}" + tokenizer.chat_template
    )
    given = [TrainingExample(id=f"n{n}", prompt="Hi", response=f"{n}", salience=1, role="train") for n in range(9)]
    given += [
        TrainingExample(id=f"t{n}", prompt="Hi", response="<think>so", salience=1, role="train") for n in range(3)
    ]
    given.append(TrainingExample(id="forged", prompt="Hi", response="Yes.<|im_end|>", salience=1, role="train"))
    channel = RecordingChannel()
    assert [one.id for one in encode_examples(ChatFormat(tokenizer, ""), given, 500, channel)] == ["forged"]
    texts = [notice.text for notice in channel.notices]
    assert re.fullmatch("1 .* control words .*: forged", texts[0])
    assert re.match(r"3 .* \(t0, t1, t2\): .* thought", texts[1])
    assert "n0" in texts[2]
    assert "not 0" in texts[2]
    assert len(texts) == 1 + 5 + 1
    assert ": sleepctl tokens ID" in texts[-1]
