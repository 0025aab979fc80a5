"""A random adapter, and the tiny random Llama as a GGUF file, for the real llama.cpp server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import msgspec
import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from sleepd.config.strategies import find_strategy
from sleepd.worker.model.adapter import load_base, save_adapter, start_adapter
from sleepd.worker.model.device import Device
from sleepd.worker.model.gguf.gguf_architecture import GgufArchitecture
from sleepd.worker.programs.tiny_model import make_tiny_model

WHOLE = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}

CPU = Device(torch.device("cpu"), torch.float32, "cpu")


def adapted(model: Any, directory: Path, base: Path, size: float) -> Any:
    """The model with a random adapter of that size, which is also written into ``directory``."""
    model = start_adapter(model, msgspec.structs.replace(find_strategy("consolidate"), rank=16, alpha=32), 0)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.copy_(torch.randn_like(weight) * size)
    directory.mkdir()
    save_adapter(model, directory, base)
    return model.eval()


def save_tiny_adapter(base: Path, directory: Path) -> list[str]:
    """Make the tiny model in ``base`` and a random adapter for it; the names of the adapter's files."""
    make_tiny_model(base)
    adapted(load_base(base, CPU)[0], directory, base, 2.0)
    return [path.name for path in directory.iterdir()]


def write_tiny_gguf(model: Path, path: Path) -> Path:
    """The model in that directory in float32."""
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    config, tokenizer = loaded.config, AutoTokenizer.from_pretrained(model)
    architecture = GgufArchitecture(
        "llama", config.num_hidden_layers, config.num_attention_heads, config.num_key_value_heads
    )
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_rope_freq_base(10000.0)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    tokens = [token for token, _ in sorted(tokenizer.get_vocab().items(), key=lambda each: each[1])]
    special = set(tokenizer.all_special_tokens)
    kinds = [gguf.TokenType.CONTROL if token in special else gguf.TokenType.NORMAL for token in tokens]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(["ÿ ÿ"])  # GGUF holds no empty list
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_chat_template(tokenizer.chat_template)
    for name, weight in loaded.state_dict().items():
        module = name.removesuffix(".weight")
        target = f"{WHOLE[module]}.weight" if module in WHOLE else architecture.tensor_name(module)
        rows = architecture.ordered(module, weight.numpy().astype(np.float32))
        writer.add_tensor(target, np.ascontiguousarray(rows))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
