"""Make a tiny random Llama with a tokenizer of its own, in a second.

What the self-test of a release and the worker's tests train.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def make_tiny_model(directory: Path) -> None:
    """Write config, weights, tokenizer and chat template of a random model (2 layers, 32 hidden) into ``directory``."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = make_tiny_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    state = torch.random.get_rng_state()
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(directory)
    torch.random.set_rng_state(state)
    tokenizer.save_pretrained(directory)


def make_tiny_tokenizer() -> Any:
    """A byte-level tokenizer: every text, nothing unknown, one token a byte."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate([*special, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=special[1],
        eos_token=special[2],
        pad_token=special[0],
        additional_special_tokens=special,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def main() -> int:
    """Make one."""
    parser = argparse.ArgumentParser(
        prog="python -m sleepd.worker.programs.tiny_model", description=__doc__.splitlines()[0]
    )
    parser.add_argument("directory", type=Path)
    make_tiny_model(parser.parse_args().directory)
    return 0


if __name__ == "__main__":
    sys.exit(main())
