"""What a prompt would serve better: which replies are tried, what the prompt holds, and what is said of it."""

from __future__ import annotations

import msgspec
import pytest

from sleepd.protocol.evidence import RECALLED, RememberedLoss
from sleepd.worker.data.chat_format import ChatFormat
from sleepd.worker.data.examples import Encoded, encode_chat
from sleepd.worker.evaluation.remembered import MOST, encode_remembered
from sleepd.worker.programs.tiny_model import make_tiny_tokenizer

from .conftest import RunHere, examples

pytestmark = pytest.mark.worker


def encoded(chat: ChatFormat, most: int = 512) -> list[Encoded]:
    found = [encode_chat(chat, one.id, one, most) for one in examples(MOST + 4, 0)]
    return [one for one in found if one is not None]


def test_experience_stands_before_its_prompt() -> None:
    """The same reply is supervised; the prompt holds the experience, and the added tokens are counted."""
    chat = ChatFormat(make_tiny_tokenizer(), "")
    given = {one.id: one for one in examples(MOST + 4, 0)}
    own = {one.id: one for one in encoded(chat)}
    found = encode_remembered(chat, given.values(), list(own.values()), 512)
    assert len(found) == MOST
    for one in found:
        prompt = chat.tokenizer.decode(one.sequence.ids[: one.sequence.prompt_tokens])
        assert given[one.id].response in prompt
        assert prompt.count(given[one.id].prompt) == 2
        trained = own[one.id]
        assert one.sequence.ids[one.sequence.prompt_tokens :] == trained.ids[trained.prompt_tokens :]
        assert one.added == one.sequence.prompt_tokens - trained.prompt_tokens > 0


def test_too_long_ones_are_not_tried() -> None:
    """Where the experience does not fit beside its prompt, nothing is said of it."""
    chat = ChatFormat(make_tiny_tokenizer(), "")
    longest = max(len(one.ids) for one in encoded(chat))
    assert encode_remembered(chat, examples(MOST + 4, 0), encoded(chat, longest), longest) == []


def test_report_has_what_was_tried(run_here: RunHere) -> None:
    """Each tried reply has the adapter's loss, as measured elsewhere in the report, and the base's with the prompt."""
    report = run_here()
    newly = {one.id: one.candidate for one in report.evidence.newly_trained}
    tried = report.evidence.remembered
    assert {one.id for one in tried} <= set(newly)
    assert tried
    for one in tried:
        assert one.candidate == newly[one.id]
        assert one.in_prompt != one.candidate
        assert one.prompt_tokens > 0


@pytest.mark.parametrize(
    ("adapter", "prompt", "is_better"),
    [(1.5, 0.1, True), (0.1, 0.1, False), (1.5, 1.4, False), (0.1, 1.5, False), (RECALLED, 0.1, True)],
)
def test_prompt_is_better(adapter: float, prompt: float, is_better: bool) -> None:
    """Where the base recalls the reply from its prompt and the adapter does not; a tie is no advice."""
    one = RememberedLoss(id="a", tokens=10, candidate=adapter, in_prompt=prompt, prompt_tokens=30)
    assert one.is_better_in_prompt is is_better
    assert msgspec.json.decode(msgspec.json.encode(one), type=RememberedLoss) == one
