"""Tiny models of many architectures, each made from its configuration class in less than a second.

``BY_NAME`` says for each what a cycle on it comes to: trained, with the notices that it must give, or refused with
words that the refusal must hold.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

COMMON = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
LINEAR = {
    "head_dim": 8,
    "layer_types": ["linear_attention", "full_attention"],
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}
OLD = {"n_embd": 32, "n_layer": 2, "n_head": 4}
STATE = {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 8}


@dataclass(frozen=True)
class Architecture:
    """One row of the matrix."""

    prefix: str
    """Of the library's classes: ``Llama`` for LlamaConfig and LlamaForCausalLM."""
    values: dict[str, Any] = field(default_factory=dict)
    """Beside ``COMMON``, or in its place where ``is_own``."""
    is_own: bool = False
    model: str = ""
    """The model's class, where it is not called after the prefix."""
    notices: frozenset[str] = frozenset()
    refused: str = ""
    is_quick: bool = False
    """Whether it is in the ordinary tests."""


ROWS_ALONE = frozenset({"packing_off"})
LEFT_OUT = frozenset({"adapter_modules_chosen", "packing_off"})

BY_NAME: dict[str, Architecture] = {
    "llama": Architecture("Llama"),
    "mistral": Architecture("Mistral"),
    "qwen2": Architecture("Qwen2"),
    "qwen3": Architecture("Qwen3", {"head_dim": 8}),
    "gemma": Architecture("Gemma", {"head_dim": 8}),
    "gemma2": Architecture("Gemma2", {"head_dim": 8}, is_quick=True),
    "gemma3": Architecture(
        "Gemma3Text", {"head_dim": 8, "sliding_window": 32}, model="Gemma3ForCausalLM", notices=ROWS_ALONE
    ),
    "phi": Architecture("Phi"),
    "phi3": Architecture("Phi3", {"pad_token_id": 0}),
    "olmo2": Architecture("Olmo2"),
    "granite": Architecture("Granite"),
    "gpt_neox": Architecture("GPTNeoX"),
    "stablelm": Architecture("StableLm"),
    "starcoder2": Architecture("Starcoder2"),
    "smollm3": Architecture("SmolLM3", {"head_dim": 8, "pad_token_id": 0}),
    "cohere": Architecture("Cohere"),
    "cohere2": Architecture("Cohere2"),
    "nemotron": Architecture("Nemotron"),
    "glm": Architecture("Glm", {"pad_token_id": 0}),
    "glm4": Architecture("Glm4", {"pad_token_id": 0}),
    "exaone4": Architecture("Exaone4"),
    "apertus": Architecture("Apertus"),
    "arcee": Architecture("Arcee"),
    "persimmon": Architecture("Persimmon"),
    "gpt2": Architecture("GPT2", {**OLD, "n_positions": 512}, is_own=True, model="GPT2LMHeadModel", is_quick=True),
    "gptj": Architecture("GPTJ", {**OLD, "n_positions": 2048, "rotary_dim": 4}, is_own=True),
    "codegen": Architecture("CodeGen", {**OLD, "n_positions": 2048, "rotary_dim": 4}, is_own=True),
    "gpt_neo": Architecture(
        "GPTNeo",
        {
            "hidden_size": 32,
            "num_layers": 2,
            "num_heads": 4,
            "attention_types": [[["global", "local"], 1]],
            "max_position_embeddings": 512,
        },
        is_own=True,
    ),
    "opt": Architecture(
        "OPT",
        {
            "hidden_size": 32,
            "ffn_dim": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "word_embed_proj_dim": 32,
            "max_position_embeddings": 512,
        },
        is_own=True,
    ),
    "bloom": Architecture(
        "Bloom", {"hidden_size": 32, "n_layer": 2, "n_head": 4}, is_own=True, notices=ROWS_ALONE, is_quick=True
    ),
    "mpt": Architecture(
        "Mpt", {"d_model": 32, "n_layers": 2, "n_heads": 4}, is_own=True, notices=ROWS_ALONE, is_quick=True
    ),
    "falcon": Architecture(
        "Falcon", {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}, is_own=True
    ),
    "mixtral": Architecture("Mixtral", {"num_local_experts": 4, "num_experts_per_tok": 2}, is_quick=True),
    "qwen3_moe": Architecture("Qwen3Moe", {"head_dim": 8, **EXPERTS}),
    "olmoe": Architecture("Olmoe", {"num_experts": 4, "num_experts_per_tok": 2}),
    "granitemoe": Architecture("GraniteMoe", {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "gpt_oss": Architecture(
        "GptOss",
        {"head_dim": 8, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 32},
        notices=ROWS_ALONE,
    ),
    "qwen3_next": Architecture(
        "Qwen3Next", {**LINEAR, **EXPERTS, "shared_expert_intermediate_size": 16}, notices=LEFT_OUT
    ),
    "qwen3_5": Architecture("Qwen3_5Text", LINEAR, model="Qwen3_5ForCausalLM", notices=LEFT_OUT),
    "lfm2": Architecture("Lfm2", {"layer_types": ["conv", "full_attention"]}, notices=ROWS_ALONE, is_quick=True),
    "mamba": Architecture("Mamba", STATE, is_own=True, notices=LEFT_OUT, is_quick=True),
    "mamba2": Architecture(
        "Mamba2",
        {**STATE, "num_heads": 8, "head_dim": 8, "n_groups": 1, "chunk_size": 16},
        is_own=True,
        notices=LEFT_OUT,
    ),
    "falcon_h1": Architecture(
        "FalconH1",
        {
            "mamba_d_ssm": 64,
            "mamba_n_heads": 8,
            "mamba_d_head": 8,
            "mamba_d_state": 8,
            "mamba_chunk_size": 16,
        },
        notices=LEFT_OUT,
    ),
    "granite_hybrid": Architecture(
        "GraniteMoeHybrid",
        {
            "layer_types": ["mamba", "attention"],
            "mamba_n_heads": 8,
            "mamba_d_head": 8,
            "mamba_d_state": 8,
            "mamba_n_groups": 1,
            "mamba_chunk_size": 16,
            "num_local_experts": 0,
            "num_experts_per_tok": 0,
            "shared_intermediate_size": 64,
        },
        notices=LEFT_OUT,
    ),
    "rwkv": Architecture(
        "Rwkv",
        {"hidden_size": 32, "num_hidden_layers": 2, "attention_hidden_size": 32, "intermediate_size": 64},
        is_own=True,
        notices=ROWS_ALONE,
    ),
    "recurrent_gemma": Architecture("RecurrentGemma", refused="cannot reply"),
}


def make(name: str, directory: Path) -> None:
    """Write a random model of that architecture into ``directory``, with a tokenizer that writes one token a byte."""
    import torch
    import transformers

    from sleepd.worker.programs.tiny_model import make_tiny_tokenizer

    one = BY_NAME[name]
    tokenizer = make_tiny_tokenizer()
    ids = {f"{kind}_token_id": getattr(tokenizer, f"{kind}_token_id") for kind in ("bos", "eos", "pad")}
    values = {**({} if one.is_own else COMMON), **one.values, **ids, "vocab_size": len(tokenizer)}
    config = getattr(transformers, f"{one.prefix}Config")(**values)
    torch.manual_seed(0)
    getattr(transformers, one.model or f"{one.prefix}ForCausalLM")(config).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
