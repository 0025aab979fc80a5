"""The real llama.cpp server in this process; the tiny random model of the tests, and adapters, as GGUF files."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

LAYER_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
NAMES = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


@contextlib.contextmanager
def llama_server(base: Path, adapters: Sequence[Path] = (), **settings: Any) -> Iterator[str]:
    """Its URL. All the adapters are on."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(base)
    params.n_ctx, params.n_parallel, params.n_gpu_layers = 2048, 1, 0
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.port, params.verbosity, params.warmup = 0, 0, False
    params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(str(path), 1.0) for path in adapters]
    for name, value in settings.items():
        setattr(params, name, value)
    server = xllamacpp.Server(params)
    try:
        yield server.listening_address
    finally:
        del server


def base_gguf(model: Path, target: Path) -> Path:
    """The tiny model's directory as a GGUF in float32."""
    import gguf
    from safetensors.numpy import load_file

    config = json.loads((model / "config.json").read_bytes())
    tokenizer = json.loads((model / "tokenizer.json").read_bytes())
    vocabulary = sorted(tokenizer["model"]["vocab"], key=tokenizer["model"]["vocab"].get)
    special = {one["content"] for one in tokenizer["added_tokens"]}
    writer = gguf.GGUFWriter(target, "llama")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_dimension_count(config["hidden_size"] // config["num_attention_heads"])
    writer.add_vocab_size(len(vocabulary))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(vocabulary)
    kinds = gguf.TokenType
    writer.add_token_types([kinds.CONTROL if word in special else kinds.NORMAL for word in vocabulary])
    writer.add_token_merges(["a b"])  # llama.cpp wants one; "ab" is no token, so that it never applies
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_add_bos_token(False)
    writer.add_chat_template((model / "chat_template.jinja").read_text())
    weights = load_file(model / "model.safetensors")
    for name, values in weights.items():
        writer.add_tensor(f"{_known_as(name.removesuffix('.weight'))}.weight", _permuted(name, values, config))
    return _written(writer, target)


def adapter_gguf(model: Path, adapter: Path, target: Path) -> Path:
    """An adapter's directory as a GGUF in float32."""
    import gguf
    from safetensors.numpy import load_file

    config = json.loads((model / "config.json").read_bytes())
    writer = gguf.GGUFWriter(target, "llama")
    writer.add_string("general.type", "adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32(
        "adapter.lora.alpha", float(json.loads((adapter / "adapter_config.json").read_bytes())["lora_alpha"])
    )
    for name, values in load_file(adapter / "adapter_model.safetensors").items():
        module, _, kind = name.removeprefix("base_model.model.").removesuffix(".weight").rpartition(".")
        rows = _permuted(module, values, config) if kind == "lora_B" else values
        writer.add_tensor(f"{_known_as(module)}.weight.{kind.lower()}", rows)
    return _written(writer, target)


def _known_as(name: str) -> str:
    """What llama.cpp calls a module."""
    if name in NAMES:
        return NAMES[name]
    _, _, number, module = name.split(".", 3)
    return f"blk.{number}.{LAYER_NAMES[module]}"


def _permuted(name: str, rows: Any, config: dict[str, Any]) -> Any:
    """Rows of queries and keys in llama.cpp's order: the halves that rotate together lie side by side there."""
    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
    count = next((number for part, number in heads.items() if part in name), None)
    if count is None:
        return rows
    return rows.reshape(count, 2, rows.shape[0] // count // 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def _written(writer: Any, target: Path) -> Path:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target
