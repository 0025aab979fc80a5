"""Cycles on conversations with tools, and what is measured on them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sleepd.protocol.capability import BaseCheck, SeenTokens, ShownText
from sleepd.protocol.chat_example import Message, ToolCall
from sleepd.protocol.job import TrainingExample
from sleepd.worker.data.chat_format import ChatFormat
from sleepd.worker.evaluation import probe_generation, reference_answers
from sleepd.worker.evaluation.relevance import encode_both
from sleepd.worker.evaluation.system_messages import MOST, ROOM, occurring_systems, system_of, under
from sleepd.worker.programs import check_base, show_tokens
from sleepd.worker.programs.tiny_model import make_tiny_tokenizer

from .conftest import BaseWith, RecordingChannel, RunHere, examples, said_by
from .templates import pair
from .test_chat_contract import base_with
from .tool_templates import CALL, QWEN25, TOOLS, as_example, calling, chat_with

pytestmark = pytest.mark.worker
__all__ = ["base_with"]


def conversation(number: int, role: str = "train") -> TrainingExample:
    """Every second one ends with a call, the others with an answer behind a tool's result."""
    call = ToolCall(name="weather", arguments=json.dumps({"city": f"City {number}"}), id=f"call{number:05}")
    context: tuple[Message, ...] = (
        Message(role="system", text=f"You are agent {number % 2}."),
        Message(role="user", text=f"Hello {number}"),
        Message(role="assistant", text="Hello."),
        Message(role="user", text=f"How is city {number}?"),
    )
    fields = {"id": f"c{number}", "salience": 0.8, "role": role, "tools": TOOLS, "prompt": f"How is city {number}?"}
    if number % 2:
        return TrainingExample(**fields, response="", calls=(call,), context=context)
    result = Message(role="tool", text=f"{number} degrees", call_id=call.id)
    context = (*context, Message(role="assistant", calls=(call,)), result)
    return TrainingExample(**fields, response=f"It is {number} degrees.", context=context)


def conversations(trained: int = 18, held_out: int = 4) -> list[TrainingExample]:
    return [conversation(number, "train" if number < trained else "holdout") for number in range(trained + held_out)]


def test_conversations_with_tools_are_trained(run_here: RunHere, base_with: BaseWith, tmp_path: Path) -> None:
    """A whole cycle: calls are supervised, the loss falls, replies are generated behind the whole context, and drift is
    measured under the system messages that occur.
    """
    channel = RecordingChannel()
    base = base_with(QWEN25)
    report = run_here(conversations(), base=str(base), channel=channel, models_directory=str(tmp_path / "own"))
    assert (report.trained, report.held_out) == (18, 4)
    assert all(check.passed for check in report.checks)
    assert report.epoch_losses[-1] < report.epoch_losses[0]
    assert report.chat.writes_tools
    assert "experiences_left_out" not in {notice.event for notice in report.notices}
    assert [reply.prompt for reply in report.replies] == [f"How is city {number}?" for number in range(18, 22)]
    assert report.evidence.drift.candidate > 0
    assert report.evidence.relevance.prompts == 18
    assert len(list((tmp_path / "own").glob("answers-*.json"))) == 2


def test_calls_without_place_are_left_out(run_here: RunHere) -> None:
    """A template without tools leaves the calls out with the reason, and trains the rest."""
    given = [*examples(6, 2), conversation(1)]
    report = run_here(given)
    assert report.trained == 6
    (text,) = [notice.text for notice in report.notices if notice.event == "experiences_left_out"]
    assert re.fullmatch(r"1 .* \(c1\): .* tool calls", text)


def test_tokens_show_calls_as_supervised(base_with: BaseWith) -> None:
    """``show_tokens`` reads the whole chat example, and so does ``check_base``, which measures the longest row."""
    given = msgspec.convert(msgspec.to_builtins(calling(CALL, text="I ask.")), ShownText)
    base, content = base_with(QWEN25), msgspec.json.encode(given)
    seen = msgspec.json.decode(said_by(show_tokens.main, "--base", base, given=content), type=SeenTokens)
    assert (seen.problem, seen.is_truncated) == ("", False)
    supervised = "".join(piece.text for piece in seen.pieces if piece.is_supervised)
    assert supervised == (
        'I ask.\n<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo", "days": 3}}\n</tool_call><|im_end|>'
    )
    asked = "".join(piece.text for piece in seen.pieces if not piece.is_supervised)
    assert asked.startswith("<|im_start|>system\nBe brief.\n# Tools\n")
    checked = said_by(check_base.main, "--base", base, "--longest", given=content)
    assert msgspec.json.decode(checked, type=BaseCheck).is_buffer_seen


# --- system messages ---


def under_system(text: str, number: int) -> TrainingExample:
    context = (Message(role="system", text=text), Message(role="user", text="Hi"))
    return as_example(f"s{number}", msgspec.structs.replace(pair("Hi", "Hello"), context=context))


def test_frequent_system_messages_are_used() -> None:
    """The most frequent ones that leave room, with their numbers; without any, the configured one."""
    chat = ChatFormat(make_tiny_tokenizer(), "Configured.")
    given = [under_system(f"Agent {number % 7}.", number) for number in range(20)]
    given += [
        *examples(5, 0),
        under_system("Configured.", 98),
        under_system("x" * 2000, 99),
        under_system("x" * 2000, 9),
    ]
    found = occurring_systems(chat, given, "Configured.", 2048)
    assert found == {"": 6, **{f"Agent {number}.": 3 for number in range(3)}}
    assert len(found) == MOST
    assert occurring_systems(chat, examples(3, 0), "Configured.", 2048) == {"": 3}
    assert occurring_systems(chat, [under_system("x" * 400, 1)], "", 400 + ROOM) == {"": 1}


def test_prompts_are_shared_out_by_weight() -> None:
    """Each prompt has the same system message each time; a frequent one has more of them."""
    prompts = [f"Question {number}?" for number in range(400)]
    shared = under({"": 3, "Own.": 1}, prompts)
    assert shared == under({"Own.": 1, "": 3}, prompts)
    own = [one for one in shared if system_of(one, "") == "Own."]
    assert 60 < len(own) < 140
    assert [message.role for message in own[0].context] == ["system", "user"]
    assert [one.prompt for one in shared] == prompts


def test_answers_depend_on_the_system_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each system message has its own file, and what was made under one is not taken for another; few files stay."""
    chat = ChatFormat(make_tiny_tokenizer(), "")
    made: list[str] = []

    def answering(_model: Any, _device: Any, batch: list[Any], **_more: Any) -> list[list[int]]:
        made.extend(chat.tokenizer.decode(one.prompt) for one in batch)
        return [[40 + len(made)] for _ in batch]

    monkeypatch.setattr(reference_answers, "batched_replies", answering)

    def answers(*systems: str) -> list[str | None]:
        asked = [one for system in systems for one in under({system: 1}, ["Who?"])]
        return reference_answers.base_answers(
            None, None, chat, asked, frozenset(), lambda system: tmp_path / f"answers-{system}.json", lambda _: None
        )

    first = answers("", "Own.")
    assert ["Own." in text for text in made] == [False, True]
    assert answers("Own.", "") == first[::-1] or len(set(first)) == 1
    assert len(made) == 2
    for number in range(reference_answers.KEPT_FILES + 3):
        answers(f"{number}")
    assert len(list(tmp_path.glob("answers-*.json"))) == reference_answers.KEPT_FILES


def test_other_prompt_moves_the_last_user_turn() -> None:
    """What the tool gave for the other question is moved with it; the rest of the conversation stays as it is."""
    chat = chat_with("Qwen2.5")
    given = [conversation(number) for number in range(4)]
    for number, (own, other, _) in enumerate(encode_both(chat, given, 5000)):
        assert own.ids[own.prompt_tokens :] == other.ids[other.prompt_tokens :]
        prompts = [chat.tokenizer.decode(one.ids[: one.prompt_tokens]) for one in (own, other)]
        another = (number + 2) % 4  # every second one ends with a call
        expected = prompts[0]
        for text in ("How is city {}?", "City {}", "{} degrees"):
            expected = expected.replace(text.format(number), text.format(another))
        assert prompts[1] == expected
        assert f"Hello {number}" in prompts[1]


def test_unlike_turns_move_the_question_alone() -> None:
    """Where no other reply follows calls in the same order, the calls and results of the reply stay with it."""
    chat = chat_with("Qwen2.5")
    (first, *_) = encode_both(chat, [conversation(0), conversation(1)], 5000)
    texts = [chat.tokenizer.decode(one.ids) for one in (first.own, first.other)]
    assert texts[1] == texts[0].replace("How is city 0?", "How is city 1?")


def test_probes_are_asked_under_their_systems() -> None:
    """The key of kept replies changes with the system messages, and is the old one where only one is configured."""
    chat = ChatFormat(make_tiny_tokenizer(), "")
    asked = [probe_generation.questions([], [], systems) for systems in ({"": 1}, {"": 9}, {"Own.": 1})]
    device = type("Device", (), {"kind": "cpu"})
    keys = [probe_generation.answers_key("base", "", one.probes, chat, device, None) for one in asked]
    assert keys[0] == keys[1] != keys[2]


def test_few_files_of_replies_stay(tmp_path: Path) -> None:
    """What the base replied under system messages of other days goes; a checkpoint's own replies stay."""
    said = probe_generation.Answers(greedy=["a"], sampled=["b"], talk=["c"])
    for number in range(reference_answers.KEPT_FILES + 3):
        probe_generation.keep_answers(tmp_path / f"replies-{number}.json", "key", said)
    probe_generation.keep_answers(tmp_path / "replies.json", "key", said)
    assert len(list(tmp_path.glob("replies-*.json"))) == reference_answers.KEPT_FILES
    assert probe_generation.kept_answers(tmp_path / "replies.json", "key") == said
