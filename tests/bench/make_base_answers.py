"""Make the shipped answers of the embedded base to all reference prompts, under the empty system prompt.

Run: python tests/bench/make_base_answers.py

A first cycle need not make them. Make them again when the reference prompts, the embedded base, or the way in
which it is asked change: a test compares the key.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from sleepd.worker.data.chat_format import ChatFormat
from sleepd.worker.evaluation import reference_answers as answers
from sleepd.worker.evaluation.system_messages import asked
from sleepd.worker.model.adapter import load_base
from sleepd.worker.model.device import choose_device
from sleepd.worker.model.generate import named_stops, stop_ids
from sleepd.worker.model.gguf.convert_gguf import open_base

PLACE = Path(answers.__file__).with_name(answers.SHIPPED)


def main() -> None:
    """Make and write them."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        directory, fingerprint = open_base("embedded", "", Path(scratch), print)
        device = choose_device("cpu")
        model, tokenizer = load_base(directory, device)
        chat = ChatFormat(tokenizer, "", stops=named_stops(model.generation_config))
        kinds = (answers.PROBE, answers.MONITOR, answers.REGULARISE)
        prompts = [asked(prompt) for kind in kinds for prompt in answers.reference_prompts(kind)]
        key = answers.answers_file(Path(scratch), fingerprint, "", chat).name
        found = answers.base_answers(
            model, device, chat, prompts, stop_ids(model, chat), None, lambda tokens: print(".", end="", flush=True)
        )
    told = {one.prompt: answer for one, answer in zip(prompts, found, strict=True)}
    PLACE.write_text(json.dumps({"key": key, "answers": told}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{len(told)} answers in {PLACE}")


if __name__ == "__main__":
    from sleepd.worker.environment import prepare_environment

    prepare_environment()
    main()
