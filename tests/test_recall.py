"""The owner's questions with checkable answers: the file, and what counts as right."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from sleepd.cycles.running.planning import Order
from sleepd.errors import ConfigError
from sleepd.policy.judging.recall import MAX_FILE_BYTES, MAX_PROBES, is_recalled, parse_questions, read_questions
from sleepd.protocol.evidence import RecallQuestion
from sleepd.protocol.job import decode_job
from tests.stages import OpenSleeper, Stage

PROBES = """
[[probe]]
question = "Who looks after the orchard?"
expected = ["Mira", "the gardener"]

[[probe]]
question = "What colour is the gate?"
expected = "Blue"
"""


def test_a_file_of_probes_is_read(tmp_path: Path) -> None:
    """Expected is one text or several."""
    path = tmp_path / "probes.toml"
    path.write_text(PROBES)
    assert read_questions(str(path)) == [
        RecallQuestion(question="Who looks after the orchard?", expected=["Mira", "the gardener"]),
        RecallQuestion(question="What colour is the gate?", expected=["Blue"]),
    ]
    assert read_questions("") == []


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"probe = 5",
        b"[[probe]]\nquestion = 'Who?'",
        b"[[probe]]\nquestion = 'Who?'\nexpected = []",
        b"[[probe]]\nquestion = 'Who?'\nexpected = ''",
        b"[[probe]]\nquestion = 'Who?'\nexpected = [' ']",
        b"[[probe]]\nquestion = ' '\nexpected = 'Mira'",
        b"[[probe]]\nquestion = 'Who?'\nexpected = 'Mira'\nanswer = 'Mira'",
        b"[[probe]]\nquestion = 7\nexpected = 'Mira'",
        b"[[probe]\n",
        b"\xff\xfe",
        b"x = " + b"[" * 20000,
        b"[[probe]]\nquestion = 'Who?'\nexpected = 'Mira'\n" * (MAX_PROBES + 1),
        b"#" * (MAX_FILE_BYTES + 1),
    ],
)
def test_missing_probe_file_is_named(tmp_path: Path, text: bytes) -> None:
    """An empty answer too, which stands in every reply; the message is one printable line."""
    path = tmp_path / "probes.toml"
    path.write_bytes(text)
    with pytest.raises(ConfigError) as caught:
        read_questions(str(path))
    assert caught.value.message.startswith("evaluation.probes: ")
    assert "probes.toml" in caught.value.message
    assert caught.value.message.isprintable()
    assert "[[probe]]" in caught.value.hint


def test_pipe_is_not_waited_for(tmp_path: Path) -> None:
    """Nor a directory, nor nothing."""
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", ".", "absent", "zero\0byte"):
        with pytest.raises(ConfigError, match="cannot be read"):
            read_questions(str(tmp_path / name))


@given(st.binary(max_size=200))
def test_any_bytes_are_questions_or_error(content: bytes) -> None:
    """No other error."""
    try:
        assert parse_questions(content, "/p")
    except ConfigError as error:
        assert error.message.isprintable()


@pytest.mark.parametrize(
    ("reply", "expected", "is_right"),
    [
        ("It was MIRA who did it.", ["Mira"], True),
        ("The gardener\n  did.", ["the gardener did"], True),
        ("Straße", ["STRASSE"], True),
        ("Tom", ["Mira", "tom"], True),
        ("Tom", ["Mira"], False),
        ("", ["Mira"], False),
    ],
)
def test_any_expected_text_is_right(reply: str, expected: list[str], is_right: bool) -> None:
    """Case and white space aside."""
    assert is_recalled(reply, expected) == is_right


def _with_probes(stage: Stage, text: str) -> None:
    path = stage.directory / "probes.toml"
    path.write_text(text)
    evaluation = replace(stage.config.evaluation, probes=str(path), command="/bin/true --fast", seconds=7.0)
    stage.config = replace(stage.config, evaluation=evaluation)


def test_job_carries_current_questions(tmp_path: Path) -> None:
    """They are read for each cycle; the owner's command and the time go with them."""
    stage = Stage(tmp_path)
    stage.write(12)
    jobs = []
    for text in (PROBES, PROBES.replace("Mira", "Tom")):
        _with_probes(stage, text)

        async def scene(sleeper: OpenSleeper) -> None:
            cycle = await sleeper.begin(Order(force=True))
            jobs.append(decode_job((sleeper.parts.checkpoints.staging_path(cycle) / "work/job.json").read_bytes()))
            await sleeper.finished()

        stage.play(scene)
        stage.write(20)
    assert [job.questions[0].expected[0] for job in jobs] == ["Mira", "Tom"]
    assert (jobs[0].evaluation_command, jobs[0].evaluation_seconds) == ("/bin/true --fast", 7.0)


def test_broken_probe_file_stops_cycles(tmp_path: Path) -> None:
    """The refusal names the file, and nothing was planned."""
    stage = Stage(tmp_path)
    stage.write(12)
    _with_probes(stage, "[[probe]]\nquestion = 5")
    with pytest.raises(ConfigError, match=r"probes\.toml"):
        stage.sleep()
    assert not list((stage.state / "staging").glob("*"))
    _with_probes(stage, PROBES)
    assert stage.sleep().cycle == 1
