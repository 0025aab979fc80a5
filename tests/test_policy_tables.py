"""What the smaller rules of the policy say of many cases, as it is kept: speech, intervals, relevance, retention.

The kept files are in ``tests/data/said/``; ``kept.py`` says how they are written anew.
"""

from __future__ import annotations

import re
from typing import Any

import pytest

from sleepd.config.schema import StateConfig
from sleepd.errors import ConfigError
from sleepd.policy.judging import relevance_gate
from sleepd.policy.judging.collapse_gate import speech_figures
from sleepd.policy.judging.confidence import gain_interval, independent
from sleepd.policy.judging.recall import MAX_FILE_BYTES, MAX_PROBES, is_recalled, parse_questions, read_questions
from sleepd.policy.judging.relevance_gate import relevance_figure
from sleepd.policy.judging.repetition import WINDOW, find_repetition
from sleepd.policy.judging.reply_statistics import describe, words_of
from sleepd.policy.retention import Keep, Stored, to_prune
from sleepd.protocol.evidence import Collapse, Relevance, ReplyLosses
from tests.kept import kept
from tests.test_policy_figures import shown
from tests.test_promotion import collapse, speech


def one_way(mode: str, **changes: Any) -> list[Collapse]:
    """What was measured in one way of asking."""
    return [each for each in collapse(mode, **changes) if each.mode == mode]


NOTHING = {"replies": 0, "mean_words": 0.0, "distinct_2": None, "similar_pairs_share": None}
SPEECHES: dict[str, list[Collapse]] = {
    "as the base": collapse(),
    "not measured": [],
    "no reply in talk": collapse("talk", candidate=NOTHING),
    "one reply in talk": collapse("talk", candidate={"replies": 1}),
    "one way alone": one_way("sampled", candidate={"loops": 2}),
    "two loops in each way": [
        Collapse(mode=mode, base=speech(), parent=speech(), candidate=speech(loops=2, question_floods=1))
        for mode in ("greedy", "sampled", "talk")
    ],
    "the parent loops more": collapse(base={"loops": 1}, parent={"loops": 5}, candidate={"loops": 8}),
    "the base floods more": collapse(base={"question_floods": 4}, parent={}, candidate={"question_floods": 9}),
    "more loops than replies": collapse(base={"loops": 30}, candidate={"loops": 16}),
    "similar at the limit": collapse(candidate={"similar_pairs_share": 0.5}),
    "similar above it": collapse(candidate={"similar_pairs_share": 0.51}),
    "similar as the parent": collapse(parent={"similar_pairs_share": 0.7}, candidate={"similar_pairs_share": 0.7}),
    "similar above the base": collapse(base={"similar_pairs_share": 0.6}, candidate={"similar_pairs_share": 0.61}),
    "no pair before": collapse(base={"similar_pairs_share": None}, candidate={"similar_pairs_share": 0.4}),
    "one reply has no pair": collapse(candidate={"similar_pairs_share": None}),
    "varied at the limit": collapse(base={"distinct_2": 1.0}, candidate={"distinct_2": 0.7}),
    "varied below it": collapse(base={"distinct_2": 1.0}, candidate={"distinct_2": 0.69}),
    "varied as the parent": collapse(parent={"distinct_2": 0.3}, candidate={"distinct_2": 0.3}),
    "the base has no bigram": collapse(base={"distinct_2": None}, candidate={"distinct_2": 0.1}),
    "the parent has no bigram": collapse(parent={"distinct_2": None}, candidate={"distinct_2": 0.6}),
    "the candidate has no bigram": collapse(candidate={"distinct_2": None}),
    "two words": collapse(candidate={"mean_words": 2.0}),
    "fewer than two": collapse(candidate={"mean_words": 1.9}),
    "as short as the parent": collapse(base={}, parent={"mean_words": 1.0}, candidate={"mean_words": 1.0}),
    "a twentieth of a long base": collapse(base={"mean_words": 100.0}, candidate={"mean_words": 5.0}),
    "less than that": collapse(base={"mean_words": 100.0}, candidate={"mean_words": 4.9}),
    "sixty words of a short base": collapse(base={"mean_words": 5.0}, candidate={"mean_words": 60.0}),
    "more than that": collapse(base={"mean_words": 5.0}, candidate={"mean_words": 60.5}),
    "four times a base of twenty": collapse(base={"mean_words": 20.0}, candidate={"mean_words": 80.0}),
    "as long as the parent": collapse(
        base={"mean_words": 5.0}, parent={"mean_words": 90.0}, candidate={"mean_words": 90.0}
    ),
}


def test_speech_figures_are_as_kept() -> None:
    """Each figure of each way of asking has the kept value, limit and sentence, at and beside every limit."""
    said, usual = "", speech_figures(collapse(), 0.95)
    for name, measured in SPEECHES.items():
        figures = speech_figures(measured, 0.99 if name == "two loops in each way" else 0.95)
        new = figures if measured == collapse() else [figure for figure in figures if figure not in usual]
        said += f"# {name}\n{''.join(map(shown, new))}"
    assert said == kept("speech", said)


UNEVEN = [(120, 3.0, 2.5), (60, 2.0, 2.2), (240, 3.5, 2.9), (80, 2.5, 2.5), (10, 4.0, 1.0), (150, 3.1, 2.8)]
INTERVALS: dict[str, tuple[list[tuple[int, float, float]], float, list[str]]] = {
    "two": (UNEVEN[:2], 0.95, []),
    "three": (UNEVEN[:3], 0.95, []),
    "six": (UNEVEN, 0.95, []),
    "six, less sure": (UNEVEN, 0.8, []),
    "six, surer": (UNEVEN, 0.99, []),
    "one without tokens": ([*UNEVEN[:3], (0, 9.0, 0.0)], 0.95, []),
    "one of one token": ([*UNEVEN[:3], (1, 9.0, 0.0)], 0.95, []),
    "twice six": (UNEVEN * 2, 0.95, []),
    "a skewed one": ([*UNEVEN * 4, (200, 1.0, 4.0)], 0.95, []),
    "two conversations": (UNEVEN, 0.95, ["a", "a", "b", "b", "b", "a"]),
    "conversations and single ones": (UNEVEN, 0.95, ["a", "", "a", "", "b", "b"]),
    "one conversation": (UNEVEN, 0.95, ["a"] * 6),
}


def test_intervals_are_as_kept() -> None:
    """Each interval has the kept estimate and bounds; replies of one conversation count as one experience."""
    said = "".join(f"# {name}\n{shown(gain_interval(*given))}" for name, given in INTERVALS.items())
    assert said == kept("intervals", said)
    assert [independent(given[2]) for given in INTERVALS.values()][-3:] == [2, 4, 1]
    with pytest.raises(ValueError, match="shorter"):
        gain_interval(UNEVEN, 0.95, ["a"])


def losses(count: int, gain: float, *others: float, prompts: int = 4, replies: int | None = None) -> Relevance:
    """So many replies, each likelier by that much after its own prompt, or by one of these in turn."""
    gains = [(gain, *others)[number % (1 + len(others))] for number in range(count)]
    found = [ReplyLosses(id=str(n), tokens=10 + n, own=3.0, other=3.0 + one) for n, one in enumerate(gains)]
    return Relevance(prompts=prompts, replies=count if replies is None else replies, losses=found)


RELEVANCES: dict[str, Relevance | None] = {
    "not measured": None,
    "no losses": losses(0, 0.0, prompts=9, replies=20),
    "fifteen replies": losses(15, 0.2),
    "sixteen": losses(16, 0.2),
    "three prompts": losses(16, 0.2, prompts=3),
    "uneven": losses(17, 0.3, -0.05, 0.25),
    "no effect": losses(16, 0.2, -0.2),
    "negative": losses(16, -0.2),
    "prompts make a difference of exactly the least": losses(16, 0.0625, prompts=5),
    "too small a difference": losses(16, 0.019),
    "just enough of a difference": losses(16, 0.021),
    "not above zero": losses(16, 0.5, -0.125, -0.125, -0.125),
}


def test_relevance_figures_are_as_kept() -> None:
    """Each figure has the kept bound and sentence, and is binding where enough was measured."""
    said = "".join(f"# {name}\n{shown(relevance_figure(found))}" for name, found in RELEVANCES.items())
    assert said == kept("relevance", said)


def test_a_bound_of_zero_is_not_above(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lower bound of exactly zero does not meet the limit; a difference of exactly the least one decides."""
    monkeypatch.setattr(relevance_gate, "LEAST_PROMPT_EFFECT", 0.0)
    figure = relevance_figure(losses(16, 0.0))
    assert (figure.value, figure.is_met, figure.is_binding) == (0.0, False, True)
    assert figure.text.startswith("nothing shows ")
    monkeypatch.setattr(relevance_gate, "LEAST_PROMPT_EFFECT", 0.25)
    assert relevance_figure(losses(16, 0.25)).is_met


def counted(count: int, word: str = "w") -> str:
    """So many different words."""
    return " ".join(f"{word}{number}" for number in range(count))


TEXTS: dict[str, str] = {
    "nothing": "",
    "three words": "a b c",
    "a 4-gram twice": "a b c d x a b c d",
    "a 4-gram thrice": f"a b c d {counted(9)} a b c d {counted(9, 'x')} a b c d",
    "eleven words of one phrase": "a b c d e a b c d e a",
    "twelve words of four": "a b c a b c a b c a b c",
    "ten words three times": f"{counted(10)} {counted(10)} {counted(10)}",
    "ten words twice": f"{counted(10)} {counted(10)} {counted(4, 'y')}",
    "forty words twice": f"{counted(40)} {counted(40)}",
    "thirty-nine words twice": f"{counted(39)} {counted(39)} {counted(40, 'z')}",
    "two hundred words twice": f"{counted(200)} {counted(200)}",
    "more words twice": f"{counted(201)} {counted(201)}",
    "a loop behind a good beginning": f"{counted(300)} {' '.join(['go on and on'] * 40)}",
    "a loop of two phrases": " ".join(f"we go {one} and stay" for one in ("up", "up", "down") * 9),
    "four phrases in no order": " ".join(f"the {'ABCD'[int(one)]} keeps his boat" for one in "01203102132033102"),
    "twenty-three words of three": " ".join("ababcabcabcdcabcababcab"),
    "twenty-four words of four": " ".join("ababcdabcdabcabcdababcab"),
    "exactly half of the 4-grams": " ".join("abcabcdabcabababcababcabc"),
    "one more than half": " ".join("abcdabcdabcdbaabcabcabcab"),
    "eleven words behind another": "x y z a b c a b c a b c a b",
    "a phrase and then more": f"{'a b c ' * 4}and done",
    "fourteen words twice": f"{counted(14)} x {counted(14)}",
    "scattered": " ".join(f"the tide {number % 3} comes in" for number in range(60)),
    "a letter stuck": f"Well {'a' * 24}",
    "one fewer": f"Well {'a' * 23}",
    "a syllable stuck": f"So {'abcdefgh' * 24}",
    "symbols stuck": "🙂" * 24,
    "symbols apart": "🙂 " * 24,
    "a frame": "-" * 90 + "=" * 90,
    "numbered": "\n".join(f"{number}. I keep the boat" for number in range(9)),
    "numbered in brackets": "\n".join(f"  {number}) I keep the boat" for number in range(9)),
    "seven questions": "Who is it? " + " ".join(f"Is it {one}?" for one in "abcdef"),
    "eight questions": "Who is it? " + " ".join(f"Is it {one}?" for one in "abcdefg"),
    "eight of twelve": " ".join(f"Is it {one}? " for one in "abcdefgh") + "No. So. Ja. Da.",
    "eight of thirteen": " ".join(f"Is it {one}? " for one in "abcdefgh") + "No. So. Ja. Da. Oh.",
    "questions in other scripts": "誰？" * 8 + "من؟ ",
    "a mark by itself": "Is it? ? ? ? ? ? ? ? ?",
    "capitals": "No no NO no nO no No no NO no nO no",
    "Chinese": "我学我学我学我学我学我学",
    "long behind the window": f"{counted(WINDOW + 10)} {' '.join(['so it is now'] * 20)}",
}


def test_repetitions_are_as_kept() -> None:
    """Each text is the kept kind of loop or none, with the kept share and reason; and the figures of all are kept."""
    said = "".join(f"# {name}\n{shown(vars(find_repetition(text)))}" for name, text in TEXTS.items())
    groups = {
        "none": [],
        "one": ["One word."],
        "two without a word": ["", "!"],
        "the same": ["I am here now.", "now HERE, i am"],
        "all texts": list(TEXTS.values())[:24],
        "loops and questions": [TEXTS["ten words three times"], TEXTS["eight questions"], TEXTS["eight questions"]],
    }
    said += "".join(f"# {name}\n{shown(describe(replies))}" for name, replies in groups.items())
    assert said == kept("repetitions", said)
    assert words_of("So IT is: 私は.") == ["so", "it", "is", "私", "は"]


WRONG: dict[str, tuple[bytes, str]] = {
    "no TOML": (b"[[probe]\n", ""),
    "no UTF-8": (b"\xff\xfe", "0xff"),
    "another key": (b"[[probe]]\nquestion = 'Who?'\nexpected = 'Mira'\nanswer = 'Mira'", "answer"),
    "another table": (b"[[probe]]\nquestion = 'Who?'\nexpected = 'Mira'\n[more]\n", "more"),
    "no probe": (b"probe = []", "probe"),
    "no answer": (b"[[probe]]\nquestion = 'Who?'\nexpected = []", "expected"),
    "a blank answer": (b"[[probe]]\nquestion = 'Who?'\nexpected = ' '", "expected"),
    "a blank question": (b"[[probe]]\nquestion = ' '\nexpected = 'x'", "question"),
    "a long answer": (b"[[probe]]\nquestion = 'Who?'\nexpected = '%s'" % (b"x" * 501), "500"),
    "many answers": (b"[[probe]]\nquestion = 'Who?'\nexpected = [%s]" % (b"'x'," * 21), "20"),
    "a long question": (b"[[probe]]\nquestion = '%s'\nexpected = 'x'" % (b"x" * 2001), "2000"),
    "a long complaint": (b"%s = 5\n" % (b"x" * 400), "x" * 200),
}
WHOLE = b"\xef\xbb\xbf[[probe]]\nquestion = '%s'\nexpected = [%s'%s']" % (b"x" * 2000, b"'x'," * 19, b"y" * 500)


@pytest.mark.parametrize(("content", "named"), WRONG.values(), ids=list(WRONG))
def test_wrong_questions_are_refused(content: bytes, named: str) -> None:
    """The refusal names key, file and limit in one short printable line, and shows how a file looks."""
    with pytest.raises(ConfigError) as refused:
        parse_questions(content, "/etc/a\x1bb.toml")
    before, _, why = refused.value.message.partition("/etc/a\\x1bb.toml: ")
    assert before == "evaluation.probes: "
    assert named in why
    assert 1 < len(why) <= 300
    assert why.isprintable()
    assert 'question = "…" and expected = ["…"]' in refused.value.hint


def test_questions_may_reach_each_limit() -> None:
    """Questions, answers and their numbers may be as large as the limits say; a mark of the byte order is skipped."""
    (whole,) = parse_questions(WHOLE, "x")
    assert (len(whole.question), len(whole.expected), len(whole.expected[-1])) == (2000, 20, 500)
    probes = "[[probe]]\nquestion = 'Who?'\nexpected = 'Mira'\n" * MAX_PROBES
    assert len(parse_questions(probes.encode(), "x")) == MAX_PROBES


def test_file_of_questions_may_be_full(tmp_path: Any) -> None:
    """A file of exactly the most bytes is read, also through a link; one byte more is refused with the figure."""
    path, link = tmp_path / "probes.toml", tmp_path / "link.toml"
    whole = b"[[probe]]\nquestion = 'Who?'\nexpected = 'Mira'\n"
    path.write_bytes(whole + b"#" * (MAX_FILE_BYTES - len(whole)))
    link.symlink_to(path)
    assert [each.expected for each in read_questions(str(link))] == [["Mira"]]
    with path.open("ab") as file:
        file.write(b"#")
    with pytest.raises(ConfigError, match=f" {MAX_FILE_BYTES} bytes, "):
        read_questions(str(path))


@pytest.mark.parametrize(("name", "why"), [("absent\x1b.toml", "No such file"), ("zero\0byte", "null byte")])
def test_unreadable_questions_name_their_file(name: str, why: str) -> None:
    """The refusal names the file in printable characters, and the reason in the system's words."""
    with pytest.raises(ConfigError) as refused:
        read_questions(name)
    assert ascii(name)[1:-1] in refused.value.message
    assert why in refused.value.message


def test_refusal_keeps_the_whole_reason() -> None:
    """No character of the reason is lost at its ends."""
    with pytest.raises(ConfigError) as refused:
        parse_questions(WRONG["another table"][0], "x")
    assert re.search(": Object .*`more`$", refused.value.message)


def test_blanks_are_one_blank() -> None:
    """A run of white space in the reply or in the answer is one blank, and words are not joined."""
    assert is_recalled("the\t old\n\nmill", ["The  Old mill"])
    assert not is_recalled("theold mill", ["the old mill"])


def test_prunings_are_as_kept() -> None:
    """The reason names the kind and how many newer ones are kept; at least one promoted checkpoint is."""
    config = StateConfig(keep_promoted=3, keep_rejected=2)
    keeps = [Keep.of(config, promoted) for promoted in (None, 5, 1, 0, -2)]
    assert [(keep.promoted, keep.rejected) for keep in keeps] == [(3, 2), (5, 2), (1, 2), (1, 2), (1, 2)]
    stored = [Stored(cycle=cycle, kind="rejected" if cycle % 3 == 0 else "promoted") for cycle in (4, 1, 9, 3, 6, 2, 8)]
    assert to_prune(stored, keeps[2], in_use={8, 1}) == [
        (2, "promoted, and 1 newer ones are kept"),
        (3, "rejected, and 2 newer ones are kept"),
        (4, "promoted, and 1 newer ones are kept"),
    ]
