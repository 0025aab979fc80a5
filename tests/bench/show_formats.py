"""Each format by a sample: the record, what was understood of it, and the tokens of one reply.

    python tests/bench/show_formats.py [NAME …]

A real daemon reads the sample of ``tests/format_samples.py`` from a file; ``sleepctl buffer --sample`` and
``sleepctl tokens`` show it. The tokenizer is the one of the tiny model, with a template for tools. A whole cycle on
each format is in ``tests/worker/test_formats_cycle.py``.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2]))

from sleepd.protocol.control import Buffer
from sleepd.protocol.status import BufferDetail
from sleepd.worker.programs.tiny_model import make_tiny_tokenizer
from tests.agents import changed, config_for
from tests.format_samples import SAMPLES
from tests.processes import DaemonProcess
from tests.worker.tool_templates import QWEN25

SHOWN = 400
"""Characters of a record."""


def tokenizer_with_tools(directory: Path) -> Path:
    """A base of which only the tokenizer is there, with a template that writes tools."""
    tokenizer = make_tiny_tokenizer()
    tokenizer.chat_template = QWEN25
    tokenizer.save_pretrained(directory)
    (directory / "config.json").write_text('{"model_type": "llama", "eos_token_id": 2}')
    (directory / "model.safetensors").write_bytes(b"never opened")
    return directory


def show(name: str, base: Path, directory: Path) -> None:
    """One format."""
    directory.mkdir()
    path = directory / "sample.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in SAMPLES[name]))
    print(f"\n== {name}\n{json.dumps(SAMPLES[name][0])[:SHOWN]}", flush=True)
    config = changed(config_for(directory, min_experiences=10**9), "buffer", path=str(path), settle_seconds=0.0)
    config = changed(changed(config, "model", base=str(base)), "worker", python=sys.executable)
    with DaemonProcess(directory, config) as daemon:
        daemon.await_true(lambda: daemon.status().buffer.total > 0, "the sample to be read")
        identifier = daemon.call(Buffer(sample=1), BufferDetail).sample[0].entry.id
        for command in (("buffer", "--sample"), ("tokens", identifier, "--config", str(daemon.config_path))):
            ran = daemon.sleepctl(*command)
            print(f"$ sleepctl {' '.join(command[:2])}\n{ran.stdout}{ran.stderr}", flush=True)


def main() -> None:
    """All, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", choices=[*SAMPLES, []])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as top:
        base = tokenizer_with_tools(Path(top) / "base")
        for name in options.names or SAMPLES:
            show(name, base, Path(top) / name)


if __name__ == "__main__":
    main()
