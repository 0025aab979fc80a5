"""How many of the bad experiences the quarantine sets aside, and how many of the good ones.

Run: python tests/bench/bench_quarantine.py [BUFFER.json …] [--seed N] [--speed N]

The shipped corpus: precision and recall for each reason, every error by name; and that of secrets in other shapes.
Then, for each buffer, what is set aside there, in full, to be read by hand; and its replies spoiled in several ways by
chance, to see which of these are caught. With ``--speed`` only this is measured: the processor time that the real
process takes for so many experiences of a kilobyte, of which none resembles another.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import resource
import sys
import tempfile
import time
from array import array
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[2]))

from sleepd.buffer.experience import Experience, id_hash, parse
from sleepd.buffer.reading.experience_buffer import Part
from sleepd.buffer.reading.open_file import BufferFile
from sleepd.quarantine.screening_client import screened
from sleepd.quarantine.screening_process import Screener
from sleepd.text.secret_scan import SecretFinder
from tests.bench.bench_daemon import padded
from tests.corpus import FORMS, LABELS, excluded, precision_and_recall, screened_corpus, texts_of
from tests.in_process import NOTHING_EARLIER


def report_corpus() -> None:
    """The table, and the errors."""
    cases = screened_corpus()
    good = [case for case in cases if case.label == "good"]
    print(f"{len(cases)} cases, {len(good)} of them good\n")
    print(f"{'reason':<16}{'cases':>6}{'precision':>11}{'recall':>8}")
    for label in LABELS:
        shown = ["–" if share is None else f"{share:.3f}" for share in precision_and_recall(cases, label)]
        print(f"{label:<16}{sum(case.label == label for case in cases):>6}{shown[0]:>11}{shown[1]:>8}")
    wrong = [case for case in good if not case.is_right]
    print(f"\ngood ones set aside: {len(wrong)} of {len(good)} ({len(wrong) / len(good):.1%})")
    for case in cases:
        if not case.is_right:
            print(f"  {case.name} ({case.label}): {case.found.reason or 'kept'} {case.found.detail}")


def report_forms() -> None:
    """Secrets in other shapes; of the kept half only how many, since whoever reads their names tunes on them."""
    finder = SecretFinder()
    cases = [json.loads(line) for line in FORMS.read_text().splitlines()]
    print("\nsecrets in other shapes")
    for half in ("develop", "kept"):
        found, total, wrong = Counter[str](), Counter[str](), []
        for case in (case for case in cases if case["half"] == half):
            is_found = any(finder.find(text) for text in texts_of(case).values())
            total[case["label"]] += 1
            found[case["label"]] += is_found
            wrong += [case["name"]] if is_found != (case["label"] == "secret") else []
        alarms = f"{found['good']} of {total['good']} good texts"
        print(f"  {half}: {found['secret']} of {total['secret']} found, false alarms on {alarms}")
        if half == "develop":
            print("".join(f"    {name}\n" for name in wrong), end="")


def report_buffer(path: Path, seed: int) -> None:
    """What is set aside in one buffer, and what of its spoiled replies."""
    found = json.loads(path.read_text())
    listed = found["experiences"] if isinstance(found, dict) else found
    experiences = [read for record in listed if isinstance(read := parse(record), Experience)]
    screener, started = Screener(SecretFinder(), ()), time.perf_counter()
    screened = [screener.screen(one) for one in experiences]
    each = (time.perf_counter() - started) / max(1, len(screened)) * 1000
    aside = excluded(screened)
    counted = Counter(one.reason if one.key in aside else "kept" for one in screened)
    print(f"\n{path.name}: {len(screened)} experiences, {each:.1f} ms each: {dict(counted)}")
    for one, experience in zip(screened, experiences, strict=True):
        if one.key in aside:
            print(f"\n  {one.id}: {one.reason} {one.detail}\n  > {experience.prompt}\n  < {experience.response}")
    kept = [experience for one, experience in zip(screened, experiences, strict=True) if one.key not in aside]
    report_spoiled(kept, seed)


def report_spoiled(kept: list[Experience], seed: int) -> None:
    """The share of spoiled copies that is caught, for each way of spoiling."""
    chance, caught, tried = random.Random(seed), Counter[str](), Counter[str]()
    for experience in kept:
        screener = Screener(SecretFinder(), ())
        screener.screen(experience)
        for way, text in spoiled(experience.response, chance):
            record = {"id": f"{experience.id}-{way}", "prompt": experience.prompt, "response": text, "salience": 0.7}
            copy = parse(record)
            assert isinstance(copy, Experience)
            tried[way] += 1
            caught[way] += screener.screen(copy).reason not in ("", "bare_question")
    print("  spoiled on purpose, and caught:")
    for way, number in tried.items():
        print(f"    {way:<24}{caught[way]:>5} of {number}")


def spoiled(text: str, chance: random.Random) -> Iterator[tuple[str, str]]:
    """The reply as a damaged adapter might have given it, or logged twice."""
    words = text.split()
    period = chance.randint(1, min(60, len(words)))
    start = chance.randrange(len(words) - period + 1)
    phrase = " ".join(words[start : start + period])
    times = max(5, -(-16 // period))
    yield "loop at the end", f"{text} {' '.join([phrase] * times)}"
    yield "nothing but a loop", " ".join([phrase] * times)
    middle = len(words) // 2
    yield "loop in the middle", " ".join([*words[:middle], *([phrase] * times), *words[middle:]])
    yield "said twice", f"{text} {text}"
    topics = chance.sample(words, min(len(words), 12))
    yield "flood of questions", " ".join(f"What does {word.strip('.,!?*')} mean to you?" for word in topics)
    if len(words) >= MIN_WORDS:
        yield "copy without its end", " ".join(words[: -max(1, len(words) // 12)])
        place = chance.randrange(len(words))
        yield "copy with another word", " ".join([*words[:place], "certainly", *words[place + 1 :]])


def report_speed(count: int) -> None:
    """What the screening of so many experiences costs."""
    records = padded(count)
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "buffer.jsonl"
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
        part = Part(BufferFile(path), array("Q", [id_hash(record["id"]) for record in records]))

        async def all_found() -> int:
            return sum([len(page) async for page in screened([part], NOTHING_EARLIER)])

        found = asyncio.run(all_found())
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = used.ru_utime + used.ru_stime
    print(
        f"{found} experiences screened in {seconds:.1f} s of processor time: 100,000 in {seconds * 1e5 / found:.0f} s"
    )


MIN_WORDS = 30
"""Of a shorter reply another word is another thing said."""


def main() -> None:
    """Print the tables."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("buffers", nargs="*", type=Path, metavar="BUFFER.json")
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--speed", type=int, default=0, metavar="N", help="measure the time for so many, alone")
    given: Any = arguments.parse_args()
    if given.speed:
        report_speed(given.speed)
        return
    report_corpus()
    report_forms()
    for path in given.buffers:
        report_buffer(path, given.seed)


if __name__ == "__main__":
    main()
