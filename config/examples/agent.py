#!/usr/bin/env python3
"""An agent that answers with the adapter in use and writes its experiences down.

    python agent.py --base DIRECTORY [--state /var/lib/sage-sleepd] [--buffer experiences.jsonl]

Each line of standard input is a prompt. The reply goes to standard output, and both go to the buffer as one experience.
The link ``current`` in the state directory says which adapter is in use. ``sleepd.serving.follow`` reads it before each
reply and exchanges the adapter when the link points to another directory. Without it the base model answers alone.

It needs sage-sleepd, torch, transformers and peft, and the group ``sage-sleepd`` to read the adapters.
"""

from __future__ import annotations

import argparse
import json
import sys
from datetime import datetime
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from sleepd.serving import follow

SALIENCE = 0.8
"""How much an experience matters, from 0 to 1. A real agent judges each experience by itself."""


class Agent:
    """A base model with the adapter that is in use.

    Args:
        base: the same model as ``model.base`` in the daemon's configuration, as a directory of safetensors.
        state: the daemon's state directory.
        system_prompt: the same text as ``model.system_prompt``.
    """

    def __init__(self, base: Path, state: Path, system_prompt: str) -> None:
        self._tokenizer = AutoTokenizer.from_pretrained(base)
        self._following = follow(AutoModelForCausalLM.from_pretrained(base).eval(), state)
        self._system_prompt = system_prompt
        self.adapter: Path | None = None
        """The directory of the adapter under which the last reply was given; None: the base model gave it alone."""

    def reply(self, prompt: str) -> str:
        """The reply to one prompt, with the adapter that is in use now."""
        self._following.update()
        self.adapter = self._following.adapter
        messages = [{"role": "user", "content": prompt}]
        if self._system_prompt:
            messages.insert(0, {"role": "system", "content": self._system_prompt})
        asked = self._tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        with torch.inference_mode():
            told = self._following.model.generate(**asked, max_new_tokens=64, do_sample=False)
        return self._tokenizer.decode(told[0, asked["input_ids"].shape[1] :], skip_special_tokens=True).strip()


def write_down(buffer: Path, prompt: str, response: str, adapter: Path | None) -> None:
    """Append one experience to a buffer of JSON lines, with the adapter under which the reply was given."""
    experience = {
        "prompt": prompt,
        "response": response,
        "salience": SALIENCE,
        "timestamp": datetime.now().astimezone().isoformat(timespec="seconds"),
        # If this adapter is rolled back, what was said under it is kept from training. None: the base model said it.
        "said_under": adapter.name if adapter else None,
    }
    with buffer.open("a", encoding="utf-8") as file:
        file.write(json.dumps(experience, ensure_ascii=False) + "\n")


def main() -> None:
    """Answer each line of standard input."""
    parser = argparse.ArgumentParser(description="An agent that answers with the adapter in use.")
    parser.add_argument("--base", type=Path, required=True, help="the base model: a directory of safetensors")
    parser.add_argument("--state", type=Path, default=Path("/var/lib/sage-sleepd"), help="the daemon's state directory")
    parser.add_argument("--buffer", type=Path, default=Path("experiences.jsonl"), help="where experiences are appended")
    parser.add_argument("--system-prompt", default="")
    options = parser.parse_args()
    agent = Agent(options.base, options.state, options.system_prompt)
    for line in sys.stdin:
        prompt = line.strip()
        if not prompt:
            continue
        response = agent.reply(prompt)
        if response:
            write_down(options.buffer, prompt, response, agent.adapter)
        print(response, flush=True)


if __name__ == "__main__":
    main()
