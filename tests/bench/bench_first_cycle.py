"""Two cycles on a real buffer: what a first cycle gains on experiences it never saw, and what a second one adds.

Run: python tests/bench/bench_first_cycle.py BUFFER.json [--models DIR] [--set name=value …]

The older experiences (in the buffer's order) are learned in the first cycle, the newest quarter in the second with some
of the older ones replayed; a fifth of all is held out of both. Drift is measured on prompts neither ever sees.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import msgspec

sys.path.append(str(Path(__file__).parents[2]))

from sleepd.config.strategies import find_strategy
from sleepd.protocol.job import TrainingExample
from sleepd.protocol.strategy import Strategy
from tests.bench.cycles import Outcome, as_example, drift, is_holdout, read_experiences, run_cycle, show

SYSTEM_PROMPT = (
    "You are an agent of the SAGE project. You speak plainly about what you notice, and you remember the people you "
    "work with and what you learned together. Answer in a few sentences, and say when you do not know something."
)


def main() -> None:
    """Run both cycles and print their figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("buffer", type=Path)
    parser.add_argument("--models", type=Path, help="keeps the converted base and its answers between runs")
    parser.add_argument("--strategy", default="consolidate")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="change the strategy")
    parser.add_argument("--second-share", type=float, default=0.25, help="newest experiences kept for the second cycle")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--base", default="embedded", help="the base model, as model.base names it")
    arguments = parser.parse_args()
    changes = dict(one.split("=", 1) for one in arguments.set)
    strategy = find_strategy(arguments.strategy)
    strategy = msgspec.convert({**msgspec.to_builtins(strategy), **changes}, type(strategy), strict=False)
    experiences = read_experiences(arguments.buffer, 0.6)
    held_out = [as_example(one, "holdout") for one in experiences if is_holdout(one)]
    learned = [one for one in experiences if not is_holdout(one)]
    cut = round(len(learned) * (1 - arguments.second_share))
    first = [as_example(one, "train") for one in learned[:cut]]
    second = [as_example(one, "train") for one in learned[cut:]]
    replay = [as_example(one, "replay") for one in learned[:cut]][:: max(1, round(cut / (1 + len(second) / 2)))]
    with tempfile.TemporaryDirectory() as scratch:
        models = arguments.models or Path(scratch, "models")
        adapters = [Path(scratch, "cycle_1"), Path(scratch, "cycle_2")]
        show("first cycle", _cycle(arguments, strategy, models, adapters[0], [*first, *held_out], None))
        if second:
            examples = [*second, *replay, *held_out]
            show("second cycle", _cycle(arguments, strategy, models, adapters[1], examples, adapters[0]))
        made = adapters if second else adapters[:1]
        drifts = drift(models, arguments.base, made, SYSTEM_PROMPT)
        print("drift on unseen general prompts, nats a token:", [round(one, 4) for one in drifts])


def _cycle(
    arguments: argparse.Namespace,
    strategy: Strategy,
    models: Path,
    staging: Path,
    examples: list[TrainingExample],
    parent: Path | None,
) -> Outcome:
    return run_cycle(
        examples,
        strategy,
        models,
        staging,
        parent=parent,
        system_prompt=SYSTEM_PROMPT,
        base=arguments.base,
        seed=arguments.seed,
    )


if __name__ == "__main__":
    main()
