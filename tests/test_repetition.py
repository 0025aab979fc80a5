"""The loop detector on texts that loop and texts that only look alike."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sleepd.policy.judging.repetition import find_repetition

PROSE = (
    "I noticed today that the river had risen again, and that nobody on the bridge looked down at it. Tom said it "
    "would reach the mill by Friday. I do not know whether he is right, but I wrote his guess down beside mine."
)
SUBJECTS = ["life", "love", "time", "work", "rain", "sleep", "art", "law"]
LOOPS = {
    "a phrase dozens of times": "I feel ready to learn. " * 30,
    "a phrase after good prose": PROSE + " and so we go on" * 12,
    "one word": "no " * 40,
    "a longer sentence": "The river had risen and nobody on the bridge looked down at it this morning. " * 5,
    "a numbered loop": "\n".join(f"{i}. I want to be helpful." for i in range(1, 20)),
    "two phrases in turn": "What matters is trust. What grows is care. " * 10,
    "a flood of questions": " ".join(f"What is the meaning of {one}?" for one in SUBJECTS) + " How are you?",
    "no spaces at all": "tt" * 60,
    "a script without spaces": "私は学びます。" * 12,
    "the same text three times": f"{PROSE} {PROSE} {PROSE}",
}
FINE = {
    "prose": PROSE,
    "empty": "",
    "one word": "Yes.",
    "a list with the same openings": "\n".join(
        f"- I want to {verb} with you about {thing} and its {part}"
        for verb, thing, part in [
            ("talk", "rivers", "bends"),
            ("think", "music", "rests"),
            ("write", "winter", "light"),
            ("argue", "maps", "edges"),
            ("laugh", "cats", "moods"),
            ("learn", "bread", "crust"),
        ]
    ),
    "a headed list": "### Found:\n- **Maps**: they lie.\n- **Rivers**: they move.\n\n### Lost:\n- **Time**: short.",
    "a few questions": "That is new to me. Who told you? When was it? I would like to know more first.",
    "a refrain": "Row, row, row your boat. Merrily, merrily, merrily, merrily, life is but a dream.",
    "a ruler": PROSE + "\n" + "-" * 80 + "\n" + "=" * 80,
    "numbers": "\n".join(f"{i}. item {i * i} costs {i * 7} and weighs {i * 13}" for i in range(1, 12)),
    "a table": "| name | age |\n|------|-----|\n| Ann | 31 |\n| Bob | 44 |\n| Cid | 27 |",
    "laughter": "Hahahaha, no, no, no, that is not what I meant at all!",
}


@pytest.mark.parametrize("name", LOOPS)
def test_a_loop_is_found(name: str) -> None:
    """Repetition inside one text is a loop, and the reason is said."""
    found = find_repetition(LOOPS[name])
    assert found.is_loop
    assert found.reason


@pytest.mark.parametrize("name", FINE)
def test_an_ordinary_text_is_no_loop(name: str) -> None:
    """Prose, lists, tables, refrains and a few questions are not called a loop."""
    found = find_repetition(FINE[name])
    assert not found.is_loop, found.reason


def test_share_counts_repeated_4_grams() -> None:
    """Of 'a b c d x a b c d' eight of nine words lie in the 4-gram that occurs twice."""
    assert find_repetition("a b c d x a b c d").repeated_share == pytest.approx(8 / 9)
    assert find_repetition(PROSE).repeated_share == 0


@given(st.text(max_size=400))
def test_every_text_can_be_judged(text: str) -> None:
    """No text raises, and the share is a share."""
    assert 0 <= find_repetition(text).repeated_share <= 1


@given(st.lists(st.sampled_from(["ash", "birch", "cedar", "elm", "fir"]), min_size=3, max_size=8), st.integers(12, 30))
def test_phrase_repeated_often_is_loop(words: list[str], times: int) -> None:
    """Whatever the phrase, a dozen of it on end is a loop."""
    assert find_repetition(" ".join(words * times)).is_loop
