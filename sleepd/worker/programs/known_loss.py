"""A self-test of the libraries: the tiny model in a directory, trained a few steps, has two known losses.

A library that computes something else than the tested ones is noticed here, and not only one that crashes: the
tokenizer and its chat template, the model, the adapter, the optimiser. The weights are made by Python's own generator,
whose numbers never change, so that the losses do not depend on torch's.
"""

from __future__ import annotations

import argparse
import random
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from .tiny_model import make_tiny_model

if TYPE_CHECKING:
    import torch

KNOWN: Final = {"before": 5.7338, "after": 4.1691}
"""Nats a token in float32, before and after the steps: torch 2.13.0, transformers 5.24.0, peft 0.21.2, 2026-11-27."""
TOLERANCES: Final = {"float32": 0.002, "bfloat16": 0.06}
"""Nats a token. With one thread and with two float32 gave the same to 1e-6; bfloat16 differed by 0.0012 and 0.017."""
OTHER_LOSS: Final = 3
"""The exit status where a loss is another one."""
STEPS: Final = 8
_LEARNING_RATE: Final = 0.02
_SCALE: Final = 0.25
_TEXTS: Final = [(f"What is rule {n}?", f"Rule {n} is to keep it in order.") for n in range(4)]


def known_losses(directory: Path, *, dtype: str) -> dict[str, float]:
    """The losses of the model in ``directory``, computed in ``float32`` or ``bfloat16``."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True)
    model = AutoModelForCausalLM.from_pretrained(directory, local_files_only=True, dtype=torch.float32)
    shape = LoraConfig(r=4, lora_alpha=8, lora_dropout=0.0, target_modules=["q_proj", "v_proj", "down_proj"])
    adapted: Any = get_peft_model(model, shape)
    _fill(adapted)
    batch = _batch(tokenizer)
    trainable = [each for each in adapted.parameters() if each.requires_grad]
    optimiser = torch.optim.AdamW(trainable, lr=_LEARNING_RATE)

    def loss() -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
            found: torch.Tensor = adapted(input_ids=batch, labels=batch).loss
        return found

    before = float(loss().detach())
    for _ in range(STEPS):
        optimiser.zero_grad()
        loss().backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return {"before": before, "after": float(loss().detach())}


def _fill(model: torch.nn.Module) -> None:
    """Give every matrix numbers that are the same with every torch; the adapter's second ones stay zero."""
    import torch

    numbers = random.Random(20)  # noqa: S311 - not a secret
    with torch.no_grad():
        for name, matrix in sorted(model.named_parameters()):
            if matrix.dim() == 2 and "lora_B" not in name:
                flat = [(2 * numbers.random() - 1) * _SCALE for _ in range(matrix.numel())]
                matrix.copy_(torch.tensor(flat).reshape(matrix.shape))


def _batch(tokenizer: Any) -> torch.Tensor:
    import torch

    rows = []
    for prompt, reply in _TEXTS:
        messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": reply}]
        rows.append(tokenizer(tokenizer.apply_chat_template(messages, tokenize=False)).input_ids)
    return torch.tensor(rows)


def difference(found: dict[str, float], dtype: str) -> str:
    """What differs from the known losses, in a sentence; empty: nothing."""
    for name, known in KNOWN.items():
        if not abs(found[name] - known) <= TOLERANCES[dtype]:  # nan is within nothing
            return (
                f"expected a loss of {known:.4f} ± {TOLERANCES[dtype]:g} nats a token {name} {STEPS} steps in {dtype}, "
                f"found {found[name]:.4f}"
            )
    return ""


def main() -> int:
    """Make the model, and compare."""
    import torch

    parser = argparse.ArgumentParser(
        prog="python -m sleepd.worker.programs.known_loss", description=__doc__.splitlines()[0]
    )
    parser.add_argument("directory", type=Path)
    directory = parser.parse_args().directory
    torch.set_num_threads(1)
    make_tiny_model(directory)
    for dtype in TOLERANCES:
        wrong = difference(known_losses(directory, dtype=dtype), dtype)
        if wrong:
            sys.stderr.write(f"{wrong}\n")
            return OTHER_LOSS
    return 0


if __name__ == "__main__":
    sys.exit(main())
