"""A base that hangs is found: what only computes is silent, and a chat template has limits of its own."""

from __future__ import annotations

import re
import resource
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from sleepd.protocol.job import Progress, decode_message
from sleepd.worker import channel as channel_module
from sleepd.worker.channel import Channel
from sleepd.worker.failure import GiveUp
from sleepd.worker.process.process_activity import LEAST_BYTES, Movement

LOOPS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
GROWS = (
    "{% set kept = namespace(text='x' * 1000) %}{% for a in range(40) %}{% set kept.text = kept.text * 2 %}{% endfor %}"
)


def test_computing_is_no_movement(tmp_path: Path) -> None:
    """Work without a file moves nothing; 64 KiB read do, and are counted once."""
    (tmp_path / "weights").write_bytes(bytes(LEAST_BYTES))
    movement = Movement()
    assert sum(range(1_000_000)) > 0
    assert not movement.has_moved()
    (tmp_path / "weights").read_bytes()
    assert movement.has_moved()
    assert not movement.has_moved()


class ToldMovement:
    """Moves as it is told, and lets a body wait until it was asked so often."""

    def __init__(self, *moves: bool) -> None:
        self._moves: Iterator[bool] = iter(moves)
        self.is_over = threading.Event()

    def has_moved(self) -> bool:
        try:
            return next(self._moves)
        except StopIteration:
            self.is_over.set()
            return False


@pytest.mark.parametrize(("seconds", "beats"), [(0.0, 2), (3600.0, 4)])
def test_loading_beats_only_where_bytes_move(monkeypatch: pytest.MonkeyPatch, seconds: float, beats: int) -> None:
    """While a body loads, there is a message for each beat with movement, or for each while it was given time."""
    movement = ToldMovement(True, False, False, True)
    monkeypatch.setattr(channel_module, "Movement", lambda: movement)
    monkeypatch.setattr(channel_module, "BEAT_SECONDS", 0.01)
    ours, theirs = socket.socketpair()
    with theirs, ours:
        channel = Channel(theirs)
        with channel.loading():
            channel.doing("loaded weights", seconds=seconds)
            assert movement.is_over.wait(30)
        theirs.shutdown(socket.SHUT_WR)
        first, *said = [decode_message(line) for line in ours.makefile("rb")]
    assert first == Progress(phase="loading")
    assert Progress(phase="loading", doing="loaded weights") in said
    assert len(said) == 1 + beats if not seconds else len(said) >= 1 + beats


@pytest.mark.parametrize(
    ("template", "words"),
    [(LOOPS, "took longer than 0.2 s"), (GROWS, "needs more than 64 MiB")],
)
def test_template_without_end_is_refused(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, template: str, words: str
) -> None:
    """One that loops or grows ends as a base that cannot be used, and the process has its own limits back."""
    from sleepd.worker.data import template_limits
    from sleepd.worker.data.examples import ChatFormat
    from sleepd.worker.programs.tiny_model import make_tiny_tokenizer

    monkeypatch.setattr(template_limits, "TEMPLATE_SECONDS", 0.2)
    monkeypatch.setattr(template_limits, "TEMPLATE_BYTES", 64 * 2**20)
    before = signal.getsignal(signal.SIGVTALRM), resource.getrlimit(resource.RLIMIT_AS)
    tokenizer = make_tiny_tokenizer()
    tokenizer.chat_template = template
    with pytest.raises(GiveUp, match=words) as caught:
        ChatFormat(tokenizer, "")
    assert (caught.value.kind, bool(caught.value.hint)) == ("base_unusable", True)
    assert (signal.getsignal(signal.SIGVTALRM), resource.getrlimit(resource.RLIMIT_AS)) == before
    assert signal.getitimer(signal.ITIMER_VIRTUAL)[0] == 0


SLOW_ON = (
    "{% for m in messages %}{% if 'slow' in m['content'] %}" + LOOPS + "{% endif %}"
    "<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
GROWS_ON = SLOW_ON.replace(LOOPS, GROWS)


def _encode(monkeypatch: pytest.MonkeyPatch, template: str, *prompts: str) -> tuple[list[str], list[str], object]:
    """The ids that are encoded, the notices, and the chat format; a rendering has 0.2 s and 64 MiB."""
    from sleepd.protocol.job import TrainingExample
    from sleepd.worker.data import chat_format, template_limits
    from sleepd.worker.data.examples import encode_examples
    from sleepd.worker.programs.tiny_model import make_tiny_tokenizer

    from .conftest import RecordingChannel

    monkeypatch.setattr(chat_format, "TEXT_SECONDS", 0.2)
    monkeypatch.setattr(chat_format, "LESS_SECONDS", 0.1)
    monkeypatch.setattr(template_limits, "TEMPLATE_BYTES", 64 * 2**20)
    tokenizer = make_tiny_tokenizer()
    tokenizer.chat_template = template
    form = chat_format.ChatFormat(tokenizer, "")
    channel = RecordingChannel()
    examples = [
        TrainingExample(id=str(n), prompt=one, response="Moss.", salience=0.5, role="train")
        for n, one in enumerate(prompts)
    ]
    found = encode_examples(form, examples, 500, channel)
    return [one.id for one in found], [notice.text for notice in channel.notices], form


@pytest.mark.parametrize(("template", "words"), [(SLOW_ON, "longer than 0.2 s"), (GROWS_ON, "more than 64 MiB")])
def test_slow_text_is_left_out_alone(monkeypatch: pytest.MonkeyPatch, template: str, words: str) -> None:
    """A text on which the base's template runs for ever, or grows, is left out with the reason; others are trained."""
    ids, notices, _ = _encode(monkeypatch, template, "North?", "A slow one?", "South?")
    assert ids == ["0", "2"]
    assert [text for text in notices if words in text and text.startswith("1 not trained or measured (1)")] == notices


def test_many_slow_texts_stop_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """After three of them each further one gets less time, however many there are; the good ones are trained."""
    prompts = [f"A slow one, {number}?" for number in range(5)]
    ids, notices, form = _encode(monkeypatch, SLOW_ON, *prompts, "South?")
    assert ids == ["5"]
    assert [re.findall(r"\d+", text.split(")")[0]) for text in notices] == [["3", "0", "1", "2"], ["2", "3", "4"]]
    assert (form.template.most_seconds, len(form.exceeded)) == (0.1, 5)


def test_each_layer_beats_both_ways(tiny_model: Path) -> None:
    """One pass forward and back through two layers is four signs of life, and the gradients are what they were."""
    import torch

    from sleepd.worker.model.adapter import load_base
    from sleepd.worker.process.layer_heartbeat import beat_at_each_layer

    model, _ = load_base(tiny_model, _cpu())
    weight = next(model.parameters()).requires_grad_()
    ids = torch.tensor([[3, 4, 5, 6]])

    def gradient() -> torch.Tensor:
        weight.grad = None
        model(ids, labels=ids).loss.backward()
        assert weight.grad is not None
        return weight.grad.clone()

    before, beats = gradient(), list[int]()
    beat_at_each_layer(model, lambda: beats.append(1))
    assert torch.equal(gradient(), before)
    assert len(beats) == 4


def _cpu() -> object:
    import torch

    from sleepd.worker.model.device import Device

    return Device(torch.device("cpu"), torch.float32, "cpu")
