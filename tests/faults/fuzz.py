"""Fuzz: everything that is read from outside, given what no honest program writes.

Run: nice python tests/faults/fuzz.py --inputs 100000 [--target NAME …] [--seed 0]

Each target starts from valid documents, cuts each off after every byte, and then changes them (``mutations``). What
comes out must be a value or a ``SleepdError``; and what each target's check says of the accepted ones must hold: they
come back the same when written and read again, good records beside a bad one are kept, a file read in two pieces is the
file read at once. Anything else is printed with the number of its input, from which it comes again:

    python tests/faults/fuzz.py --target NAME --seed SEED --only NUMBER
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import NamedTuple

sys.path.append(str(Path(__file__).parents[2]))

import structlog

from sleepd.errors import SleepdError
from tests.faults.targets import TARGETS, Target

SHOWN_FAILURES = 5


class Failure(NamedTuple):
    """An input that brought out what it must not."""

    number: int
    document: bytes
    text: str


class Tally(NamedTuple):
    """What came of a target's inputs."""

    inputs: int
    refused: int
    accepted: int
    failures: Sequence[Failure]


def document_of(target: Target, number: int, seed: int) -> tuple[bytes, Random]:
    """Input ``number`` of a target, and what its check may draw from; every fourth is a document cut off."""
    random = Random(f"{seed} {target.name} {number}")
    place, is_mutated = divmod(number, 4)
    for document in () if is_mutated else target.documents:
        if place <= len(document):
            return document[:place], random
        place -= len(document) + 1
    return target.mutate(random, random.choice(target.documents)), random


def attempt(target: Target, number: int, seed: int) -> bool | Failure:
    """Whether input ``number`` is accepted; or how it failed."""
    document, random = document_of(target, number, seed)
    try:
        target.check(document, random)
    except SleepdError:
        return False
    except Exception:  # noqa: BLE001 - whatever it is, it is what is looked for here
        return Failure(number, document, traceback.format_exc(limit=-4))
    return True


def fuzz(target: Target, numbers: Sequence[int], seed: int) -> Tally:
    """Try so many inputs."""
    refused = accepted = 0
    failures = []
    for number in numbers:
        result = attempt(target, number, seed)
        if isinstance(result, Failure):
            failures.append(result)
        elif result:
            accepted += 1
        else:
            refused += 1
    return Tally(len(numbers), refused, accepted, failures)


def print_failure(failure: Failure) -> None:
    shown = failure.document if len(failure.document) < 400 else failure.document[:400] + b" ..."
    print(f"  input {failure.number}: {shown!r}\n    " + failure.text.strip().replace("\n", "\n    "))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=100_000, help="together, shared among the targets")
    parser.add_argument("--target", action="append", choices=list(TARGETS), metavar="NAME", help=", ".join(TARGETS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, metavar="NUMBER", help="this one input")
    options = parser.parse_args()
    names = options.target or list(TARGETS)
    share = -(-options.inputs // len(names))
    numbers = range(share) if options.only is None else [options.only]
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("critical"))
    print(f"{'target':<16} {'inputs':>8} {'refused':>8} {'accepted':>8} {'tracebacks':>10} {'seconds':>8}")
    total = [0, 0, 0, 0]
    for name in names:
        with ExitStack() as stack:
            target = TARGETS[name](Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fuzz"))), stack)
            start = time.monotonic()
            tally = fuzz(target, numbers, options.seed)
        row = [tally.inputs, tally.refused, tally.accepted, len(tally.failures)]
        total = [a + b for a, b in zip(total, row, strict=True)]
        _print_row(name, row, f"{time.monotonic() - start:.0f}")
        for failure in tally.failures[:SHOWN_FAILURES]:
            print_failure(failure)
    _print_row("together", total, "")
    return 1 if total[3] else 0


def _print_row(name: str, figures: list[int], seconds: str) -> None:
    inputs, refused, accepted, failures = figures
    print(f"{name:<16} {inputs:>8} {refused:>8} {accepted:>8} {failures:>10} {seconds:>8}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
