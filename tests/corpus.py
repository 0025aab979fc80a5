"""The shipped corpus of good and bad experiences, screened as the daemon has it done.

Each line of ``data/quarantine_corpus.jsonl`` has a name, a label (``good``, ``loop``, ``questions``,
``near_duplicate``, ``secret``), a prompt and a response. A secret stands in ``parts``, in pieces, so that no scanner of
repositories takes ours for one that leaked; none was ever anybody's.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from sleepd.buffer.experience import Experience, id_hash, parse
from sleepd.buffer.learnables import Learnable, Learnables
from sleepd.quarantine.near_duplicates import Screened
from sleepd.quarantine.rules import Findings, Isolation
from sleepd.quarantine.screening_process import Screener, screen_wanted
from sleepd.text.secret_scan import SecretFinder
from tests.agents import columns

CORPUS = Path(__file__).parent / "data" / "quarantine_corpus.jsonl"
FORMS = CORPUS.with_name("secrets_corpus.jsonl")
"""Secrets in other shapes, and good texts written to provoke; the half ``kept`` is not looked at while tuning."""
LABELS = ("loop", "questions", "near_duplicate", "secret")


class Case(NamedTuple):
    """One case, and what was found in it."""

    name: str
    label: str
    found: Screened
    is_barred: bool

    @property
    def is_right(self) -> bool:
        """Whether it is set aside exactly if it is to be; which reason is said comes second."""
        return self.is_barred == (self.label != "good")


def records() -> list[dict[str, Any]]:
    """The corpus as an agent's records."""
    found = []
    for line in CORPUS.read_text().splitlines():
        case = json.loads(line)
        found.append({"id": case["name"], "salience": 0.7, "label": case["label"], **texts_of(case)})
    return found


def texts_of(case: dict[str, Any]) -> dict[str, str]:
    """Prompt and response of a line, with its secret in them."""
    secret = "".join(case.get("parts", ()))
    return {key: case[key].replace("{secret}", secret) for key in ("prompt", "response")}


def screen(given: Iterable[dict[str, Any]]) -> list[Screened]:
    """What is found in records, one after the other."""
    kept = list(given)
    keys = [id_hash(one.id) for record in kept if isinstance(one := parse(record), Experience)]
    return list(screen_wanted(learnables(kept), keys, Screener(SecretFinder(), ())))


def learnables(given: Iterable[dict[str, Any]]) -> Iterator[tuple[str, Learnable | str]]:
    """What can be learned of records."""
    return Learnables().read(("record", record) for record in given)


def excluded(found: Iterable[Screened]) -> set[int]:
    """The keys of those that a daemon would keep from training, where nothing is decided or rolled back."""
    kept, findings = list(found), Findings()
    for each in kept:
        findings.put(each)
    keys, groups = [each.key for each in kept], [each.group for each in kept]
    causes = Isolation(findings, {}, ()).causes(columns(keys, groups=groups), learned=(), min_salience=0.6)
    return {key for key, _ in causes}


def screened_corpus() -> list[Case]:
    """Every case with its finding."""
    given = records()
    screened = screen(given)
    aside = excluded(screened)
    return [
        Case(record["id"], record["label"], found, found.key in aside)
        for record, found in zip(given, screened, strict=True)
    ]


def precision_and_recall(cases: Iterable[Case], label: str) -> tuple[float | None, float | None]:
    """Of one reason: the share of its findings that are right, and the share of its cases that were set aside.

    None: there was no finding, or no case.
    """
    kept = list(cases)
    said = [case for case in kept if case.is_barred and case.found.reason == label]
    meant = [case for case in kept if case.label == label]
    right = sum(case.label != "good" for case in said)
    caught = sum(case.is_barred for case in meant)
    return (right / len(said) if said else None), (caught / len(meant) if meant else None)
