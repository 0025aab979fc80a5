"""The reservoir: which texts stay, and what of a checkpoint's is read back."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sleepd.buffer.experience import Experience
from sleepd.config.strategies import STRATEGIES
from sleepd.errors import CheckpointInvalid
from sleepd.protocol.checkpoint.checkpoint_files import RESERVOIR_FILE
from sleepd.protocol.job import Job, TrainingExample, encode
from sleepd.store import reservoir
from sleepd.store.reservoir import encode_reservoir, next_reservoir, read_reservoir, renewed


def experience(number: int, text: str = "so it is") -> Experience:
    return Experience(id=f"e{number}", prompt=f"what is {number}?", response=text, salience=0.7)


@given(
    numbers=st.lists(st.integers(0, 40), max_size=60),
    cuts=st.lists(st.integers(0, 60), max_size=4),
    most=st.integers(1, 20),
)
def test_sample_ignores_arrival_cycle(numbers: list[int], cuts: list[int], most: int) -> None:
    """Renewed night by night, it is what all experiences together give: a sample of everything, however long ago."""
    kept: list[Experience] = []
    places = [0, *sorted(cuts), len(numbers)]
    for start, end in itertools.pairwise(places):
        kept = renewed([*kept, *map(experience, numbers[start:end])], most=most)
    assert kept == renewed(map(experience, numbers), most=most)
    assert len(kept) == min(most, len(set(numbers)))


def test_later_text_of_an_id_stays() -> None:
    """An experience whose text the agent changed is rehearsed as it was trained last."""
    assert renewed([experience(1, "old"), experience(1, "new")], most=5) == [experience(1, "new")]


def test_written_reservoir_is_read_back(tmp_path: Path) -> None:
    """Line by line; no file is no reservoir, and a damaged one is an error with its name."""
    assert read_reservoir(tmp_path) == []
    some = [experience(number, "a line\nand another ☾") for number in range(3)]
    (tmp_path / "reservoir.jsonl").write_bytes(encode_reservoir(some))
    assert read_reservoir(tmp_path) == some
    (tmp_path / RESERVOIR_FILE).write_bytes(b'{"id": 3}\n')
    with pytest.raises(CheckpointInvalid, match=r"reservoir\.jsonl"):
        read_reservoir(tmp_path)


def test_the_file_has_a_greatest_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Long texts are fewer texts, and no text is cut; what fills the size to the last byte stays."""
    two = encode_reservoir(experience(number, "x" * 60) for number in range(2))
    for most, kept in ((len(two), two), (len(two) + 60, two), (len(two) - 1, two[: len(two) // 2])):
        monkeypatch.setattr(reservoir, "MAX_BYTES", most)
        assert encode_reservoir(experience(number, "x" * 60) for number in range(10)) == kept


def test_next_reservoir_adds_trained(tmp_path: Path) -> None:
    """New and replayed ones join; what was held out never does; none is kept where none is asked for."""
    parent, staging = tmp_path / "cycle_001", tmp_path / "staging"
    parent.mkdir()
    (staging / "work").mkdir(parents=True)
    (parent / RESERVOIR_FILE).write_bytes(encode_reservoir([experience(1)]))
    roles = {2: "train", 3: "replay", 4: "holdout"}
    examples = (
        TrainingExample(id=e.id, prompt=e.prompt, response=e.response, salience=e.salience, role=role)
        for e, role in ((experience(number), role) for number, role in roles.items())
    )
    (staging / "work/experiences.jsonl").write_bytes(b"".join(map(encode, examples)))
    job = Job(
        cycle=2,
        base="b",
        models_directory="m",
        staging=str(staging),
        parent=str(parent),
        strategy=STRATEGIES["gentle"],
        reservoir=9,
    )
    (content,) = next_reservoir(job, staging).values()
    (staging / RESERVOIR_FILE).write_bytes(content)
    assert {one.id for one in read_reservoir(staging)} == {"e1", "e2", "e3"}
    none = Job(cycle=2, base="b", models_directory="m", staging=str(staging), strategy=STRATEGIES["gentle"])
    assert next_reservoir(none, staging) == {}
