"""A fleet on paper: how fast an improvement reaches every box, what that costs, and who ever runs a bad adapter.

    python tests/bench/fleet.py [--days 14] [--bad 0.05] [--judge-minutes 20] …

Nothing is trained and nothing is sent: it is a simulation of `sleepctl sync` with the policy "take". Trainers promote
an adapter each day and put it into the shared directory. Each box reads the directory every few minutes, takes the
newest bundle of a trainer that it has not judged, judges it for so many minutes, and puts it in use or not. A box is
off for whole days (churn), and a transfer fails now and then and is tried again at the next round.

What is assumed, and can be changed: of better adapters the gates of a box pass `--power`; of those that are no better
`--chance` (1 - promotion.confidence); of bad ones, which their own trainer passed, `--miss`. Boxes err independently of
each other. A box that runs a bad adapter rolls it back after `--notice-hours`.

Boxes do not meet except through the directory, so that of a large fleet a sample of boxes is simulated; bytes are
multiplied up.
"""

from __future__ import annotations

import argparse
import random
import statistics
from dataclasses import dataclass, field

DAY = 24 * 60.0
COLUMNS = (
    *("boxes", "trainers", "hours to 50 %", "hours to 95 %"),
    *("GB a day, each", "GB a day, all", "judging", "ever ran a bad one"),
)
SAMPLE = 200
"""Boxes that are simulated."""
FLEETS = ((1, 1), (10, 1), (100, 1), (1000, 1), (10_000, 1), (100, 10), (10_000, 10), (100, 100), (10_000, 100))
"""Boxes and trainers."""


@dataclass
class Adapter:
    """One bundle in the directory."""

    trainer: int
    at: float
    """Minutes since the beginning."""
    worth: float
    is_bad: bool


@dataclass
class Box:
    """What became of one box."""

    reached: dict[int, float] = field(default_factory=dict)
    """Minutes after its promotion at which a record (by its number) was in use here, or something better was."""
    judged: int = 0
    failed_transfers: int = 0
    ran_bad: bool = False


def published(trainers: int, given: argparse.Namespace, rng: random.Random) -> list[Adapter]:
    """All bundles, oldest first; a good one is worth a little more than anything before it, or not."""
    found = []
    for trainer in range(trainers):
        at = rng.uniform(0, DAY)
        while at < given.days * DAY:
            is_bad = rng.random() < given.bad
            worth = at / DAY + rng.gauss(0, 1)  # later ones have learned more, and no two the same
            found.append(Adapter(trainer, at, -10.0 if is_bad else worth, is_bad))
            at += DAY
    return sorted(found, key=lambda each: each.at)


def records(adapters: list[Adapter]) -> list[int]:
    """Those that are better than everything before them: the improvements that are to reach everyone."""
    found, best = [], float("-inf")
    for number, each in enumerate(adapters):
        if each.worth > best and not each.is_bad:
            found.append(number)
            best = each.worth
    return found


def live(adapters: list[Adapter], improvements: list[int], given: argparse.Namespace, rng: random.Random) -> Box:
    """One box from the beginning to the end."""
    box, now, worth, bad_until = Box(), rng.uniform(0, given.look_minutes), float("-inf"), float("-inf")
    judged, newest, come = set[int](), dict[int, int](), 0
    off = [rng.random() < given.churn for _ in range(int(given.days) + 1)]
    while now < given.days * DAY:
        if off[int(now / DAY)]:
            now = (int(now / DAY) + 1) * DAY
            continue
        while come < len(adapters) and adapters[come].at <= now:
            newest[adapters[come].trainer] = come
            come += 1
        waiting = [number for number in newest.values() if number not in judged]
        if not waiting or rng.random() < given.loss:
            box.failed_transfers += bool(waiting)
            now += given.look_minutes
            continue
        number = max(waiting)
        judged.add(number)
        box.judged += 1
        now += given.judge_minutes
        chosen = adapters[number]
        passes = given.miss if chosen.is_bad else given.power if chosen.worth > worth else given.chance
        if rng.random() < passes:
            box.ran_bad |= chosen.is_bad
            if chosen.is_bad:
                bad_until = now + given.notice_hours * 60
            else:
                worth = chosen.worth
        if now >= bad_until:
            for each in improvements:
                if each not in box.reached and adapters[each].at <= now and worth >= adapters[each].worth:
                    box.reached[each] = now - adapters[each].at
    return box


def row(boxes: int, trainers: int, given: argparse.Namespace) -> str:
    """One fleet as a line of the table."""
    rng = random.Random(f"{given.seed} {boxes} {trainers}")
    adapters = published(trainers, given, rng)
    # Those of the last two days have not had the time to arrive.
    improvements = [each for each in records(adapters) if adapters[each].at < (given.days - 2) * DAY]
    lived = [live(adapters, improvements, given, rng) for _ in range(min(boxes, SAMPLE))]
    half, most = (_hours(improvements, lived, share) for share in (0.5, 0.95))
    judged = statistics.mean(each.judged for each in lived) / given.days
    transfers = statistics.mean(each.judged + each.failed_transfers for each in lived) / given.days
    gigabytes = transfers * given.megabytes / 1000
    busy = judged * given.judge_minutes / DAY
    bad = statistics.mean(each.ran_bad for each in lived)
    cost = (f"{gigabytes:.2f}", f"{gigabytes * boxes:,.0f}", f"{busy:.0%}", f"{bad:.0%}")
    columns = (f"{boxes:,}", trainers, half, most, *cost)
    return f"| {' | '.join(map(str, columns))} |"


def _hours(improvements: list[int], lived: list[Box], share: float) -> str:
    """The median over the improvements of the time until this share of the boxes had it."""
    times = []
    for each in improvements:
        reached = sorted(box.reached.get(each, float("inf")) for box in lived)
        times.append(reached[min(len(reached) - 1, int(share * len(reached)))] / 60)
    median = statistics.median(times) if times else float("inf")
    return "never" if median == float("inf") else f"{median:.1f}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default, what in (
        ("days", 14.0, "how long it is watched"),
        ("bad", 0.05, "share of bad adapters"),
        ("loss", 0.1, "share of transfers that fail"),
        ("churn", 0.1, "share of days on which a box is off"),
        ("power", 0.8, "share of better ones that the gates pass"),
        ("chance", 0.05, "share of ones that are no better that they pass"),
        ("miss", 0.02, "share of bad ones that they pass"),
        ("look-minutes", 10.0, "sync.minutes"),
        ("judge-minutes", 20.0, "how long a box judges one adapter"),
        ("notice-hours", 24.0, "until a bad adapter in use is rolled back"),
        ("megabytes", 20.0, "of a bundle"),
    ):
        parser.add_argument(f"--{name}", type=float, default=default, help=f"{what} (default: {default:g})")
    parser.add_argument("--seed", type=int, default=1, help="default: 1")
    parser.add_argument("--most-boxes", type=int, default=10_000, help="leave larger fleets out (default: 10000)")
    given = parser.parse_args()
    print(f"| {' | '.join(COLUMNS)} |")
    print("|---" * len(COLUMNS) + "|")
    for boxes, trainers in FLEETS:
        if boxes <= given.most_boxes:
            print(row(boxes, trainers, given), flush=True)


if __name__ == "__main__":
    main()
