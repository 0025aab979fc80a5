"""A Markdown table of what sleepbench measured."""

from __future__ import annotations

import json
import random
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

RESAMPLES = 2000
Line = dict[str, Any]


def table(files: Sequence[Path]) -> str:
    """One row for each series of nights: its figures by night, and the mean gain with a 95 % interval."""
    lines = [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    series: dict[tuple[str, str, int], dict[int, Line]] = {}
    for line in lines:
        # Of a night that was run twice, the later one.
        series.setdefault((line["task"], line["label"], line["buffer"], line["seed"]), {})[line["night"]] = line
    replayed = [_replay_row(key, nights) for key, nights in series.items() if key[0] == "replay"]
    recalled = [_recall_row(key, nights) for key, nights in series.items() if key[0] == "recall"]
    text = ""
    if replayed:
        text += (
            "| strategy | buffer, seed | gain on the next session, by night | mean [95 %] | most drift | loops |"
            " processor s | tokens |\n|---|---|---|---|---|---|---|---|\n" + "".join(replayed)
        )
    if recalled:
        text += (
            "\n| strategy | seed | recalled, by night | of the first night's, at the end | drift, by night |"
            " processor s | tokens |\n|---|---|---|---|---|---|---|\n" + "".join(recalled)
        )
    return text


def _replay_row(key: tuple[str, ...], nights: dict[int, Line]) -> str:
    lines = [nights[number] for number in sorted(nights)]
    mean = statistics.fmean(line["gain"] for line in lines)
    low, high = interval([line["pairs"] for line in lines])
    loops, replies, of_base = (sum(line[name] for line in lines) for name in ("loops", "replies", "base_loops"))
    gains = _by_night(lines, "gain", ".3f")
    drift = max(line["drift"] for line in lines)
    cost = f"{_total(lines, 'cpu_seconds')} | {_total(lines, 'tokens')}"
    return (
        f"| {key[1]} | {key[2].removeprefix('buffer_')}, {key[3]} | {gains} | {mean:.3f} [{low:.3f}, {high:.3f}] | "
        f"{drift:.4f} | {loops} of {replies}, base {of_base} | {cost} |\n"
    )


def _recall_row(key: tuple[str, ...], nights: dict[int, Line]) -> str:
    lines = [nights[number] for number in sorted(nights)]
    recalled = " ".join(f"{line['recalled']}/{line['asked']}" for line in lines)
    return (
        f"| {key[1]} | {key[3]} | {recalled} | {lines[-1]['first_night']} of 20 | {_by_night(lines, 'drift', '.4f')} | "
        f"{_total(lines, 'cpu_seconds')} | {_total(lines, 'tokens')} |\n"
    )


def interval(nights: Sequence[Sequence[Sequence[Any]]], *, seed: int = 1) -> tuple[float, float]:
    """95 % of the mean over nights of the gain, by resampling each night's experiences (percentile bootstrap).

    Args:
        nights: of each night, for each experience of the next session: id, tokens, the base's loss, the adapter's.
        seed: of the resampling.
    """
    chance = random.Random(seed)
    means = []
    for _ in range(RESAMPLES):
        gains = []
        for pairs in nights:
            drawn = chance.choices(pairs, k=len(pairs))
            gains.append(sum(base - after for _, _, base, after in drawn) / sum(tokens for _, tokens, _, _ in drawn))
        means.append(statistics.fmean(gains))
    means.sort()
    return means[round(0.025 * RESAMPLES)], means[round(0.975 * RESAMPLES) - 1]


def _by_night(lines: Sequence[Line], name: str, form: str) -> str:
    return " ".join(f"{line[name]:{form}}" for line in lines)


def _total(lines: Sequence[Line], name: str) -> str:
    return " ".join(f"{line[name]:.0f}" for line in lines)
