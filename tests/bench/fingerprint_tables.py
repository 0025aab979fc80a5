"""The tables of ``bench_fingerprint.py rates``, as Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from sleepd.policy import answer_distance, identification
from sleepd.protocol.deployment.adapter_fingerprint import REPLY_STEPS
from sleepd.serving.proof import ASKED_AGAIN
from tests.bench.identification_rates import (
    Adapters,
    Answered,
    Case,
    by_all,
    by_one,
    cases,
    distances,
    nearest_before,
    other_generation,
    same_texts,
)

OFF = 1e9
"""So large that the limit has no effect."""
LIMITS = {
    "MOST_RATIO": (0.5, 0.6, 0.7, 0.8),
    "DIAL_ROOM": (0.15, 0.2, 0.25, 0.5),
    "DIAL_NOISE": (0.25, 0.35, 0.45, OFF),
    "MOST_NOISE": (0.4, 0.45, 0.5, 0.7),
    "DECISIVE": (3.0, 4.0, 5.0, OFF),
    "SURE": (2.0, 2.5, 3.0, OFF),
    "LEAST_GAP": (0.0, 0.05, 0.2),
}
SAME = (0.01, 0.02, 0.04, 0.08)
ALL_PROMPTS = 99
COMPARED = (*((steps, ALL_PROMPTS) for steps in range(1, REPLY_STEPS + 1)), (1, 8), (1, 4))
"""Steps, and trained prompts."""
GIVEN = (20, 10, 5, 1)
"""Log-probabilities for a token."""
_COLUMNS = ("right", "false this cycle", "false base", "false other cycle", "alike", "neither", "too_coarse")


def print_rates(adapters: Adapters, served: Sequence[Answered], draws: int) -> None:
    """All of them."""
    every = list(cases(adapters, served, draws, ALL_PROMPTS))
    _print_distances(adapters, every)
    _print_outcomes("one fingerprint alone", by_one(adapters, every))
    _print_outcomes("all fingerprints that were asked, the expected one first", by_all(adapters, every))
    nearest = nearest_before(adapters, every)
    _print_outcomes("the same, and the engine was proved before", by_all(adapters, every, nearest))
    own = [case for case in every if case.served.alone is not None or case.asked in case.served.on]
    _print_outcomes("as the first, what is on in part by its own fingerprints alone", by_all(adapters, own))
    _print_outcomes("the same, and the engine was proved before", by_all(adapters, own, nearest))
    _table("what is compared", ("steps", "trained prompts", *_SUMMARY))
    kept = answer_distance.COMPARED_STEPS
    for steps, prompts in COMPARED:
        answer_distance.COMPARED_STEPS = steps
        with_less = cases(adapters, served, draws, prompts)
        _row(steps, "all" if prompts == ALL_PROMPTS else prompts, *_summary(by_all(adapters, with_less)))
    answer_distance.COMPARED_STEPS = kept
    _table("other limits, one at a time", ("limit", "value", *_SUMMARY))
    for name, values in LIMITS.items():
        kept = getattr(identification, name)
        for value in values:
            setattr(identification, name, value)
            _row(name, f"**{value}**" if value == kept else value, *_summary(by_all(adapters, every)))
        setattr(identification, name, kept)
    _table("what the server gives for a token", ("log-probabilities", *_SUMMARY))
    for given in GIVEN:
        fewer = [one.with_at_most(given) for one in served]
        _row(given, *_summary(by_all(adapters, cases(adapters, fewer, draws, ALL_PROMPTS))))
    _print_texts(adapters, served)
    _print_others(adapters, served, draws)


def _print_distances(adapters: Adapters, every: Iterable[Case]) -> None:
    _table("distances", ("base", "server runs", "fingerprint of", "distances, the nearest first", "dial"))
    for case in every:
        found = sorted(distances(adapters, case).items(), key=lambda one: one[1])
        shown = ", ".join(f"{name} {distance:.3f}" for name, distance in found)
        dial = "" if case.whole.dial is None else f"{case.whole.dial:.2f}"
        _row(case.served.base, case.served.text, case.asked, shown, dial)


def _print_outcomes(title: str, rows: Mapping[str, Counter[str]]) -> None:
    _table(f"share of the draws, {title}", ("the server runs", "draws", *_COLUMNS))
    for name, row in rows.items():
        _row(name, row.total(), *(f"{row[column] / row.total():.2%}" for column in _COLUMNS))


_SUMMARY = ("false this cycle", "false base", "false other cycle", "of four fifths", "known and not named")
_WEAKER = "four fifths of one"


def _summary(rows: Mapping[str, Counter[str]]) -> list[str]:
    """The errors, those of four fifths of an adapter by themselves; of what the fingerprint knows, what is unnamed."""
    whole = sum((row for name, row in rows.items() if name != _WEAKER), Counter[str]())
    weaker = rows.get(_WEAKER, Counter[str]())
    known = sum((row for name, row in rows.items() if name in ("its own adapter", "its parent", "the base")), Counter())
    named = sum(known[column] for column in _COLUMNS[:5])
    shares = [whole[column] / whole.total() for column in _SUMMARY[:3]]
    shares.append(sum(weaker[column] for column in _SUMMARY[:3]) / max(1, weaker.total()))
    return [f"{share:.2%}" for share in (*shares, 1 - named / known.total())]


def _print_texts(adapters: Adapters, served: Sequence[Answered]) -> None:
    _table(
        "replies that are word for word the recorded ones",
        ("the server runs", "recorded of", "same", "at least", "at most"),
    )
    found: dict[tuple[str, str], list[float]] = {}
    for relation, kind, hits, count in same_texts(adapters, served):
        found.setdefault((relation, kind), []).append(hits / count)
    for (relation, kind), shares in found.items():
        _row(relation, kind, f"{sum(shares) / len(shares):.0%}", f"{min(shares):.0%}", f"{max(shares):.0%}")


def _print_others(adapters: Adapters, served: Sequence[Answered], draws: int) -> None:
    columns = [f"at most {limit}" for limit in SAME]
    _table("another generation, taken for the same by the prompts that are asked again", ("server", *columns, "median"))
    for name, worst in other_generation(adapters, served, ASKED_AGAIN, draws):
        shares = [f"{sum(each <= limit for each in worst) / len(worst):.1%}" for limit in SAME]
        if min(worst) <= 2 * SAME[-1]:
            _row(name, *shares, f"{sorted(worst)[len(worst) // 2]:.3f}")


def _table(title: str, columns: Sequence[str]) -> None:
    print(f"\n{title}\n")
    _row(*columns)
    _row(*("---" for _ in columns))


def _row(*cells: object) -> None:
    print("|", " | ".join(map(str, cells)), "|", flush=True)
