"""A whole cycle on what every format gives, and the tokens of one of its replies."""

from __future__ import annotations

import pytest

from sleepd.buffer.experience import Experience
from sleepd.protocol.job import TrainingExample
from sleepd.worker.data.chat_format import ChatFormat
from sleepd.worker.data.examples import encode_or_refuse
from tests.format_samples import SAMPLES, understood

from .conftest import BaseWith, RunHere, examples
from .test_chat_contract import base_with
from .tool_templates import QWEN25, chat_with

pytestmark = [pytest.mark.worker, pytest.mark.model]
__all__ = ["base_with"]


def supervised(chat: ChatFormat, one: Experience) -> str:
    """What of it is supervised, as text."""
    encoded = encode_or_refuse(chat, one, 4000)
    return str(chat.tokenizer.decode(encoded.ids[encoded.prompt_tokens :], clean_up_tokenization_spaces=False))


def samples() -> dict[str, list[Experience]]:
    """What is understood of each format's sample."""
    return {name: [one for one in understood(SAMPLES[name]) if isinstance(one, Experience)] for name in SAMPLES}


@pytest.mark.parametrize("name", SAMPLES)
def test_reply_of_every_format_is_supervised(name: str) -> None:
    """Supervised are the reply, its calls and its end."""
    found = samples()[name]
    assert found
    chat = chat_with("Qwen2.5")
    for one in found:
        text = supervised(chat, one)
        said = one.response.rpartition("</think>")[2].strip()
        assert said in text
        assert text.endswith("<|im_end|>")
        for call in one.calls:
            assert f'"name": "{call.name}"' in text
            assert call.arguments.replace(" ", "") in text.replace(" ", "")


def test_every_format_is_trained(run_here: RunHere, base_with: BaseWith) -> None:
    """A cycle trains what the samples of all formats hold, and leaves out none of it."""
    given = [
        TrainingExample(id=f"{name}{number}", salience=0.8, role="train", **one.parts())
        for name, found in samples().items()
        for number, one in enumerate(found)
    ]
    report = run_here([*given, *examples(4, 2)], base=str(base_with(QWEN25)))
    assert (report.trained, report.held_out) == (len(given) + 4, 2)
    assert [check for check in report.checks if not check.passed] == []
