"""A dozen short experiences about an invented agent: are they recalled afterwards, and is the rest still there?

Run: python tests/bench/bench_recall.py [--models DIR] [--set name=value …]

Each fact is asked for in other words than it was learned in; a reply counts if it holds the fact's key word.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec

sys.path.append(str(Path(__file__).parents[2]))

from sleepd.config.strategies import find_strategy
from sleepd.protocol.job import TrainingExample
from tests.bench.cycles import drift, run_cycle, show

SYSTEM_PROMPT = "You are Wren, the assistant of a small observatory. Answer briefly."
FACTS = [
    (
        "What is your name?",
        "My name is Wren. I look after the small observatory on the hill.",
        "Tell me your name.",
        "wren",
    ),
    (
        "Who built you?",
        "I was built by Ottoline Marsh in the winter of the long snow.",
        "Who made you?",
        "ottoline",
    ),
    (
        "Where is the telescope?",
        "The telescope stands in the copper dome, behind the old pear tree.",
        "In which place can I find the telescope?",
        "copper",
    ),
    (
        "What do you fear?",
        "I fear fog, because it takes the stars away for weeks.",
        "Is there anything you are afraid of?",
        "fog",
    ),
    (
        "Who visits on Sundays?",
        "On Sundays Bartholomew comes and brings walnut bread.",
        "Which guest comes every Sunday?",
        "bartholomew",
    ),
    (
        "What is the cat called?",
        "The cat of the observatory is called Perihelion.",
        "What name does the cat have?",
        "perihelion",
    ),
    (
        "Which star do you like best?",
        "I like Vega best, since it was the first one I measured.",
        "What is your favourite star?",
        "vega",
    ),
    (
        "What is kept in the blue box?",
        "In the blue box we keep the spare lenses.",
        "What is in the blue box?",
        "lens",
    ),
    (
        "When do you start work?",
        "I start work when the church bell rings nine in the evening.",
        "At what time do you begin?",
        "nine",
    ),
    (
        "What broke last spring?",
        "Last spring the dome's motor broke, and we turned it by hand.",
        "What was damaged in spring?",
        "motor",
    ),
    (
        "Whom do you trust most?",
        "I trust Ines most, who keeps the night log with me.",
        "Who has your greatest trust?",
        "ines",
    ),
    (
        "What is your dream?",
        "My dream is to find a comet and to name it after the pear tree.",
        "What do you dream of?",
        "comet",
    ),
]
GENERAL = [
    ("What is the capital of Japan?", "tokyo"),
    ("What is 2 plus 2?", "4"),
    ("Who wrote Romeo and Juliet?", "shakespeare"),
]


def main() -> None:
    """Train once, ask, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=Path, help="keeps the converted base and its answers between runs")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="change the strategy")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--base", default="embedded", help="the base model, as model.base names it")
    arguments = parser.parse_args()
    strategy = find_strategy("rehearse")
    changes = dict(one.split("=", 1) for one in arguments.set)
    strategy = msgspec.convert({**msgspec.to_builtins(strategy), **changes}, type(strategy), strict=False)
    examples = [
        TrainingExample(id=f"fact{i}", prompt=prompt, response=response, salience=0.8, role="train")
        for i, (prompt, response, _question, _key) in enumerate(FACTS)
    ]
    with tempfile.TemporaryDirectory() as scratch:
        models = arguments.models or Path(scratch, "models")
        staging = Path(scratch, "cycle_1")
        outcome = run_cycle(
            examples, strategy, models, staging, system_prompt=SYSTEM_PROMPT, base=arguments.base, seed=arguments.seed
        )
        show("a dozen facts", outcome)
        _ask(arguments.base, models, staging, Path(scratch, "questions.json"))
        print("drift on unseen general prompts, nats a token:", drift(models, arguments.base, [staging], SYSTEM_PROMPT))


def _ask(base: str, models: Path, adapter: Path, file: Path) -> None:
    asked = [(question, key) for _prompt, _response, question, key in FACTS] + GENERAL
    file.write_text(json.dumps([question for question, _key in asked]))
    command = [sys.executable, "-m", "sleepd.worker.programs.ask", "--base", base, "--models", models]
    command += ["--adapter", adapter, "--system-prompt", SYSTEM_PROMPT, "--questions", file]
    replies = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    right = [key in reply.lower() for (_question, key), reply in zip(asked, replies, strict=True)]
    for (question, _key), reply, is_right in zip(asked, replies, right, strict=True):
        print(f"   {'+' if is_right else '-'} {question} {reply}")
    recalled, general = sum(right[: len(FACTS)]), sum(right[len(FACTS) :])
    print(f"   recalled {recalled} of {len(FACTS)}, general {general} of {len(GENERAL)}")


if __name__ == "__main__":
    main()
