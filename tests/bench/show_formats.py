"""Each format by a sample: the record, what was understood of it, and the tokens of one reply.

    python tests/bench/show_formats.py [--cycle] [NAME …]

A real daemon reads the sample of ``tests/format_samples.py`` from a file; ``sleepctl buffer --sample`` and
``sleepctl tokens`` show it. The tokenizer is the one of the tiny model, with a template for tools.

With ``--cycle`` the daemon then trains a cycle on the tiny model, from the sample and copies of it in other words, each
in a file of its own. A row of a table is printed for each format, and at the end the whole table.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2]))

from sleepd.protocol.chat_example import Message
from sleepd.protocol.control import Buffer, Show
from sleepd.protocol.status import BufferDetail, CycleDetail, QuarantineDetail
from sleepd.worker.programs.tiny_model import make_tiny_tokenizer
from tests.agents import TOPICS, changed, config_for
from tests.bench.agents_week import base_with_tools
from tests.bench.week import await_cycle
from tests.format_samples import SAMPLES
from tests.processes import DaemonProcess
from tests.worker.tool_templates import QWEN25

SHOWN = 400
"""Characters of a record."""
COPIES = 15
NAMES = re.compile(r"\b(pier|quay|mole|dock|slip|ford|weir|[socrt]-1|s1|c[12]|r[123]|o-2|00f1|f|chatcmpl-[19])\b")
"""Of conversations and replies in the samples."""
WORDS = re.compile(r"\b(nine|ten|three|four|Twelve|wind|Wind|Vent|water|dark|Yes|Hi|It is|High)\b")
"""What is said in the samples; letters alone, so that a word may stand in JSON within JSON and in HTML."""
COLUMNS = ("format", "turns", "supervised", "saliences", "trained", "held out", "verdict", "tokens")


def tokenizer_with_tools(directory: Path) -> Path:
    """A base of which only the tokenizer is there, with a template that writes tools."""
    tokenizer = make_tiny_tokenizer()
    tokenizer.chat_template = QWEN25
    tokenizer.save_pretrained(directory)
    (directory / "config.json").write_text('{"model_type": "llama", "eos_token_id": 2}')
    (directory / "model.safetensors").write_bytes(b"never opened")
    return directory


def sample_text(name: str) -> str:
    """The sample as JSON lines."""
    return "".join(json.dumps(record) + "\n" for record in SAMPLES[name])


def in_other_words(text: str, number: int) -> str:
    """A copy with other names and other words."""
    renamed = NAMES.sub(rf"\g<1>x{number}", text)
    first, other = TOPICS[number % 12], TOPICS[(number + number // 12 + 1) % 12]
    return WORDS.sub(rf"\g<1> {first} {other}", renamed)


def turns(sample: Iterable[QuarantineDetail]) -> int:
    """How many turns the replies and what stands before them make up."""
    said = set()
    for one in sample:
        whole = [*one.messages, Message(role="assistant", text=one.response, calls=one.calls)]
        said |= {tuple(whole[: place + 1]) for place in range(len(whole))}
    return len(said)


def show(name: str, base: Path, directory: Path, *, is_trained: bool) -> list[str]:
    """One format; returns its row of the table."""
    files = directory / "logs"
    files.mkdir(parents=True)
    (files / "sample.jsonl").write_text(sample_text(name))
    print(f"\n== {name}\n{json.dumps(SAMPLES[name][0])[:SHOWN]}", flush=True)
    config = config_for(directory, min_experiences=10, min_new_experiences=10, min_hours_between_sleep=0.0)
    config = changed(config, "buffer", path=str(files), settle_seconds=0.0)
    config = changed(changed(config, "model", base=str(base)), "worker", python=sys.executable)
    with DaemonProcess(directory, config) as daemon:
        daemon.await_true(lambda: daemon.status().buffer.total > 0, "the sample to be read")
        sample = daemon.call(Buffer(sample=20), BufferDetail).sample
        supervised = [one for one in sample if (one.salience or 0) >= 0]
        row = [name, str(turns(sample)), str(len(supervised)), _saliences(sample)]
        ran = daemon.sleepctl("buffer", "--sample")
        print(f"$ sleepctl buffer --sample\n{ran.stdout}{ran.stderr}", flush=True)
        row += _cycle(name, daemon, files) if is_trained else []
        ran = daemon.sleepctl("tokens", supervised[-1].entry.id, "--config", str(daemon.config_path))
        print(f"$ sleepctl tokens\n{ran.stdout}{ran.stderr}", flush=True)
        counted = re.findall(r"(\d+) tokens", ran.stdout)
        return [*row, " + ".join(counted)]


def _saliences(sample: Iterable[QuarantineDetail]) -> str:
    found = [one.salience or 0 for one in sample]
    return ", ".join(f"{found.count(each)} × {each:g}" for each in sorted(set(found), reverse=True))


def _cycle(name: str, daemon: DaemonProcess, files: Path) -> list[str]:
    """Write the copies and await the cycle; what was trained and held out, and the verdict."""
    started_at, copies = datetime.now(UTC), files.parent / "copies"
    copies.mkdir()
    for number in range(COPIES):
        (copies / f"{number}.jsonl").write_text(in_other_words(sample_text(name), number))
    copies.rename(files / "copies")  # at once, so that the cycle is planned with all of them
    await_cycle(daemon, 0, started_at)
    for command in (("report",), ("buffer",)):
        ran = daemon.sleepctl(*command)
        print(f"$ sleepctl {command[0]}\n{ran.stdout}{ran.stderr}", flush=True)
    cycle = daemon.call(Show(cycle=1), CycleDetail).summary
    return [str(cycle.trained), str(cycle.held_out), cycle.state]


def main() -> None:
    """All, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", choices=[*SAMPLES, []])
    parser.add_argument("--cycle", action="store_true", help="train a cycle from each")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as top:
        base = Path(top) / "base"
        (base_with_tools if options.cycle else tokenizer_with_tools)(base)
        rows = [show(name, base, Path(top) / name, is_trained=options.cycle) for name in options.names or SAMPLES]
    if options.cycle:
        print("\n".join(f"| {' | '.join(row)} |" for row in (COLUMNS, ["---"] * len(COLUMNS), *rows)))


if __name__ == "__main__":
    main()
