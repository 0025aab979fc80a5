#!/usr/bin/env python3
"""An evaluation command: how many questions are answered with the expected word, and how long the replies are.

    [evaluation]
    command = "/opt/sage-sleepd/current/worker/bin/python /etc/sage-sleepd/evaluate.py"

    [promotion]
    limits = ["accuracy >= 0.6", "mean_words >= parent - 20"]

The worker starts this command for the champion and for the candidate. The last argument is the adapter's directory.
There is no argument when the base model itself is evaluated. The environment names the base (``SLEEPD_BASE``), its
quantization (``SLEEPD_QUANTIZATION``) and the system prompt (``SLEEPD_SYSTEM_PROMPT``). The command prints one JSON
object of numbers on standard output and ends with 0.
"""

from __future__ import annotations

import json
import os
import sys

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

QUESTIONS = {
    "What is the capital of Japan?": "tokyo",
    "What is two plus two?": "4",
    "What do bees make?": "honey",
}
"""Questions that matter to you, and a word that must stand in the right answer."""
NF4 = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}
"""How the worker loads a base with model.quantization = "nf4"."""


def main() -> None:
    """Ask every question and print the figures."""
    base, system_prompt = os.environ["SLEEPD_BASE"], os.environ["SLEEPD_SYSTEM_PROMPT"]
    tokenizer = AutoTokenizer.from_pretrained(base)
    packed = {"quantization_config": BitsAndBytesConfig(**NF4)} if os.environ["SLEEPD_QUANTIZATION"] == "nf4" else {}
    model = AutoModelForCausalLM.from_pretrained(base, **packed)
    if len(sys.argv) > 1:
        model = PeftModel.from_pretrained(model, sys.argv[1])
    model.eval()
    replies = []
    for question in QUESTIONS:
        messages = [{"role": "user", "content": question}]
        if system_prompt:
            messages.insert(0, {"role": "system", "content": system_prompt})
        asked = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        with torch.inference_mode():
            told = model.generate(**asked, max_new_tokens=32, do_sample=False)
        replies.append(tokenizer.decode(told[0, asked["input_ids"].shape[1] :], skip_special_tokens=True))
    right = sum(word in reply.lower() for word, reply in zip(QUESTIONS.values(), replies, strict=True))
    words = sum(len(reply.split()) for reply in replies)
    print(json.dumps({"accuracy": right / len(replies), "mean_words": words / len(replies)}))


if __name__ == "__main__":
    main()
