"""What a base must be for a cycle, and what is said where it is not: before anything is trained."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from sleepd.config.strategies import find_strategy
from sleepd.worker.data import packing_support
from sleepd.worker.evaluation import loss_evaluator
from sleepd.worker.failure import GiveUp
from sleepd.worker.model import adapter as model
from sleepd.worker.model.adapted_layers import adapted_norm, expert_counts
from sleepd.worker.model.adapter import adapter_tensors, load_base, start_adapter
from sleepd.worker.model.device import Device, attention_for
from sleepd.worker.model.inspect_base import most_positions, require_whole
from sleepd.worker.model.loading import check_base
from sleepd.worker.model.memory.memory_estimate import Need, Shape, needed_bytes
from sleepd.worker.model.target_modules import find_targets, meant
from sleepd.worker.programs.tiny_model import make_tiny_model
from sleepd.worker.training import train

from . import architectures
from .conftest import RecordingChannel, RunHere, examples, quick

pytestmark = [pytest.mark.worker, pytest.mark.no_cover]  # what it adds to the coverage, others measure
CPU = Device(torch.device("cpu"), torch.float32, "cpu")


@pytest.fixture
def base(tiny_model: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model, to be damaged."""
    return Path(shutil.copytree(tiny_model, tmp_path / "base"))


def refusal(directory: Path) -> GiveUp:
    """How a base is refused before a weight is read."""
    with pytest.raises(GiveUp) as caught:
        check_base(directory, CPU)
    assert caught.value.kind == "base_unusable"
    assert caught.value.hint
    return caught.value


def set_config(directory: Path, **values: Any) -> None:
    """Change the configuration's values."""
    file = directory / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_bytes()), **values}))


def test_weights_must_be_whole(base: Path) -> None:
    """Missing, misshapen and strange tensors are refused by name; without them the base passes."""
    check_base(base, CPU)
    file = base / "model.safetensors"
    whole = load_file(file)

    def with_weights(weights: Any) -> str:
        save_file(weights, file, metadata={"format": "pt"})
        return refusal(base).message

    missing = with_weights({name: one for name, one in whole.items() if ".layers.1.mlp" not in name})
    assert "3 tensors are missing" in missing
    assert ": model.layers.1.mlp.down_proj.weight" in missing
    assert "lm_head.weight 3×32 for " in with_weights({**whole, "lm_head.weight": whole["lm_head.weight"][:3].clone()})
    assert "no place in the model" in with_weights({**whole, "model.layers.2.mlp.up_proj.weight": torch.zeros(64, 32)})


def test_harmless_tensors_are_no_fault(tmp_path: Path) -> None:
    """Tables that are computed anew, and heads that guess ahead, may stand in a file without a place in the model."""
    told: dict[str, list[str]] = {"missing_keys": [], "mismatched_keys": []}
    harmless = ["model.layers.0.self_attn.rotary_emb.inv_freq", "transformer.h.0.attn.masked_bias", "mtp.norm.weight"]
    require_whole(tmp_path, {**told, "unexpected_keys": harmless})
    with pytest.raises(GiveUp, match=r"q_proj\.bias"):
        require_whole(tmp_path, {**told, "unexpected_keys": ["model.layers.0.self_attn.q_proj.bias"]})


@pytest.mark.parametrize("method", ["bitsandbytes", "gptq", "awq", "fp8", "compressed-tensors", "mxfp4"])
def test_quantised_bases_are_refused(base: Path, method: str) -> None:
    """Whatever the way, before a library for it is asked for."""
    set_config(base, quantization_config={"quant_method": method, "bits": 4})
    assert f"is quantised ({method})" in refusal(base).message


def test_tokens_beyond_the_table_are_refused(base: Path) -> None:
    """A token without a row would end the first night that holds it."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_tokens(["<tool_call>"])
    tokenizer.save_pretrained(base)
    said = refusal(base).message
    assert [figure for figure in (" 1 tokens ", " 259 rows", "'<tool_call>' (259)") if figure not in said] == []


def test_impossible_sizes_cost_nothing(base: Path) -> None:
    """Billions of layers, and tables of terabytes, are refused by arithmetic."""
    set_config(base, num_hidden_layers=10**9)
    assert "num_hidden_layers is 1000000000" in refusal(base).message
    assert "hold 21 tensors" in refusal(base).message
    set_config(base, num_hidden_layers=2, vocab_size=2**40)
    assert "another shape" in refusal(base).message


def test_short_table_of_positions(base: Path) -> None:
    """Fewer positions than an interview needs are refused; the figure is found under any of its names."""
    set_config(base, max_position_embeddings=128)
    assert "has 128 positions" in refusal(base).message

    class Config:
        n_positions = 1024
        max_position_embeddings = True

    assert most_positions(Config()) == 1024


def test_sequences_are_kept_to_positions(run_here: RunHere, tmp_path: Path) -> None:
    """Where the table is shorter than max_tokens, no row and no reply reaches beyond it, and that is said."""
    architectures.make("gpt2", tmp_path / "base")
    long = examples()
    from msgspec.structs import replace

    long[0] = replace(long[0], response="word " * 300)
    report = run_here(long, base=str(tmp_path / "base"), models_directory=str(tmp_path / "models"))
    assert report.truncated == 1
    assert "sequences_kept_to_positions" in {notice.event for notice in report.notices}


def test_adapter_beside_base_is_unused(base: Path, tmp_path: Path) -> None:
    """The library merges it in silence; the base is loaded without it, and its logits are its own."""
    ids = torch.tensor([[5, 6, 7, 8]])
    alone = load_base(base, CPU)[0](ids).logits
    adapted = start_adapter(load_base(base, CPU)[0], quick(), 0)
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.constant_(weight, 5.0)
    model.save_adapter(adapted, base, base)
    assert torch.equal(load_base(base, CPU)[0](ids).logits, alone)


def test_names_of_modules_are_translated(tmp_path: Path) -> None:
    """q_proj and v_proj are c_attn in GPT-2, which is said; a model with nothing alike is refused before training."""
    architectures.make("gpt2", tmp_path)
    loaded = load_base(tmp_path, CPU)[0]
    targets = find_targets(loaded, find_strategy("gentle"))
    assert targets.modules == ["c_attn"]
    assert "q_proj is c_attn, v_proj is c_attn" in targets.notice
    with pytest.raises(GiveUp, match=r"gpt2.*: c_attn, c_fc, c_proj"):
        find_targets(loaded, quick(target_modules=["no_such"]))
    assert meant("v_proj", {"qkv_proj", "o_proj"}) == "qkv_proj"
    assert meant("q_proj", {"query_key_value"}) == "query_key_value"


def test_change_of_fused_experts_is_exact(tmp_path: Path) -> None:
    """The norm of an adapter's change on fused experts is that of the weights it makes, expert by expert."""
    architectures.make("mixtral", tmp_path)
    adapted = start_adapter(load_base(tmp_path, CPU)[0], quick(), 0)
    before = adapter_tensors(adapted)
    torch.manual_seed(1)
    changed = {}
    for name, module in adapted.named_modules():
        if hasattr(module, "get_delta_weight") and "default" in getattr(module, "lora_B", ()):
            torch.nn.init.normal_(module.lora_B["default"].weight)
            changed[name] = module.get_delta_weight("default").detach()
    assert expert_counts(adapted)
    exact = sum(float(one.double().square().sum()) for one in changed.values()) ** 0.5
    check = loss_evaluator.changed_check(
        before, adapter_tensors(adapted), adapted_norm(adapted), 2.0, expert_counts(adapted)
    )
    assert check.figure * adapted_norm(adapted) == pytest.approx(exact, rel=1e-5)


def test_adapters_load_where_the_model_is(run_here: RunHere, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a box whose GPU peft sees, a cycle on the CPU does not touch it."""
    import peft.peft_model

    def infer_device() -> None:
        raise AssertionError("peft was left to choose a device")

    monkeypatch.setattr(peft.peft_model, "infer_device", infer_device)
    assert run_here(name="one").steps > 0


def test_infinite_gradient_is_refused(run_here: RunHere, monkeypatch: pytest.MonkeyPatch) -> None:
    """One gradient made NaN ends the cycle in its own step, before a weight is touched."""
    real = torch.nn.utils.clip_grad_norm_

    def spoil(weights: Any, most: float) -> Any:
        next(one for one in weights if one.grad is not None).grad[0] = float("nan")
        return real(weights, most)

    monkeypatch.setattr(train.torch.nn.utils, "clip_grad_norm_", spoil)
    with pytest.raises(GiveUp, match="gradient became nan in step 1") as caught:
        run_here()
    assert caught.value.kind == "not_finite"


def test_attention_is_left_to_the_library() -> None:
    """Eager for soft-capped logits, also within a model of several kinds of input; else its choice."""
    assert attention_for({}) is None
    assert attention_for({"attn_logit_softcapping": 50.0}) == "eager"
    assert attention_for({"text_config": {"attn_logit_softcapping": 50.0}}) == "eager"


@pytest.mark.parametrize("name", ["lfm2", "mpt", "mamba", "granite_hybrid", "qwen3_5"])
def test_leaking_rows_are_not_shared(name: str, tmp_path: Path) -> None:
    """Recurrent, convolutional and ALiBi models are told by how they are built, whatever a measurement rounds away."""
    architectures.make(name, tmp_path)
    assert packing_support.why_not(load_base(tmp_path, CPU)[0])


DAMAGED_TEXTS = [
    "",
    "{",
    "[]",
    "null",
    '"x"',
    "[" * 5000,
    '{"model_type": []}',
    '{"model_type": "no_such"}',
    "\x00" * 64,
]
WRONG_VALUES = [-1, 0, 2**70, 1.5, "x", None, [], {}, [[]], True, float("nan")]
FIELDS = [
    "hidden_size",
    "num_attention_heads",
    "num_key_value_heads",
    "vocab_size",
    "intermediate_size",
    "rope_scaling",
]
FIELDS += ["num_hidden_layers", "max_position_embeddings", "hidden_act", "architectures", "dtype", "pad_token_id"]


def refused_as(directory: Path) -> tuple[str, bool] | None:
    """The kind of the refusal and whether it has a next step; None: the base is sound after all."""
    try:
        check_base(directory, CPU)
        load_base(directory, CPU)
    except GiveUp as error:
        return error.kind, bool(error.hint)
    return None


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"])
def test_damaged_descriptions_are_refused(base: Path, name: str) -> None:
    """Half a file, another type, deep nesting and NUL bytes in each file end in a refusal, never in a traceback."""
    whole = (base / name).read_text()
    for text in [*DAMAGED_TEXTS, whole[: len(whole) // 2]]:
        (base / name).write_text(text)
        assert refused_as(base) in (None, ("base_unusable", True)), text


def test_wrong_values_in_config_are_refused(base: Path) -> None:
    """Each of many values in each of many places, drawn with a fixed seed, is refused in a sentence or does no harm."""
    whole = (base / "config.json").read_text()
    cases = [(name, value) for name in FIELDS for value in WRONG_VALUES]
    for name, value in random.Random(7).sample(cases, 60):
        (base / "config.json").write_text(json.dumps({**json.loads(whole), name: value}))
        assert refused_as(base) in (None, ("base_unusable", True)), (name, value)


def test_damaged_weights_are_refused(base: Path) -> None:
    """A file cut anywhere, and tables of contents that lie, are base_unusable."""
    file = base / "model.safetensors"
    whole = file.read_bytes()
    length = int.from_bytes(whole[:8], "little")
    lies = [b"", whole[:4], whole[: 8 + length // 2], whole[:-100], b"\xff" * 8 + whole[8:], whole[:8] + b"[" * length]
    for content in lies:
        file.write_bytes(content)
        assert "model.safetensors" in refusal(base).message


def continued_and_asked(base: Path, parent: Path) -> None:
    """Both ways in which an adapter is read: to be trained on, and to reply."""
    model.continue_adapter(load_base(base, CPU)[0], parent, quick(), 0)
    model.load_adapted(base, parent, CPU)


def test_damaged_adapters_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    """An adapter's configuration that is half, nested, of another kind or of wrong types is parent_unusable."""
    adapted = start_adapter(load_base(tiny_model, CPU)[0], quick(), 0)
    parent = tmp_path / "parent"
    parent.mkdir()
    model.save_adapter(adapted, parent, tiny_model)
    whole = json.loads((parent / "adapter_config.json").read_bytes())
    wrong = [{**whole, "r": value} for value in (0, -1, "x", None, 2**40)]
    wrong += [{**whole, "target_modules": value} for value in ("", [], ["no_such"], 7)]
    wrong += [{**whole, "peft_type": "IA3"}, {**whole, "rank_pattern": 3}]
    for text in [*DAMAGED_TEXTS, *map(json.dumps, wrong)]:
        (parent / "adapter_config.json").write_text(text)
        with pytest.raises(GiveUp) as caught:
            continued_and_asked(tiny_model, parent)
        assert caught.value.kind in ("parent_unusable", "shape_changed")


def test_hopeless_gguf_is_refused(tmp_path: Path) -> None:
    """Files that begin like a GGUF and hold nothing, or lie about their sizes, are base_unusable."""
    from sleepd.worker.model.gguf.convert_gguf import open_base

    head = b"GGUF" + (3).to_bytes(4, "little")
    for number, content in enumerate([b"", b"GGUF", head, head + b"\xff" * 16, head + b"\x01" * 4096, b"\x00" * 64]):
        file = tmp_path / f"{number}.gguf"
        file.write_bytes(content)
        with pytest.raises(GiveUp) as caught:
            open_base(str(file), "", tmp_path / "models", lambda _event, _text: None)
        assert (caught.value.kind, bool(caught.value.hint)) == ("base_unusable", True)


def test_untryable_model_is_refused(tiny_model: Path, run_here: RunHere, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever an architecture raises in its first pass is about the base, and comes before anything is measured."""
    from transformers import LlamaForCausalLM

    def forward(*_arguments: Any, **_named: Any) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(LlamaForCausalLM, "forward", forward)
    channel = RecordingChannel()
    with pytest.raises(GiveUp, match=r"\(llama\) cannot be .*: ZeroDivisionError") as caught:
        run_here(channel=channel)
    assert caught.value.kind == "base_unusable"


def test_weights_larger_than_memory_are_refused(tmp_path: Path) -> None:
    """A base whose weights exceed the device's memory is refused before they are read."""
    from sleepd.worker.model.inspect_base import refuse_too_large

    make_tiny_model(tmp_path)
    skeleton = check_base(tmp_path, CPU)
    with pytest.raises(GiveUp, match=r"the base.s weights take"):
        refuse_too_large(skeleton, torch.float32, 1000, "cpu")


GIB = 2**30
QWEN_05B = Shape(
    weights=494_032_768, adapter=8_798_208, layers=24, hidden=896, inner=4864, heads=14, vocabulary=151_936
)
EMBEDDED = Shape(weights=134_515_008, adapter=4_884_480, layers=30, hidden=576, inner=1536, heads=9, vocabulary=49_152)
NEEDS = {
    "embedded": Need(EMBEDDED, number_bytes=2, is_eager=False, is_converted=True),
    "qwen2.5-0.5b": Need(QWEN_05B, number_bytes=2, is_eager=False, is_converted=False),
}
MEASURED = [
    ("embedded", 256, 1.35),
    ("embedded", 512, 1.75),
    ("embedded", 512, 2.07),
    ("qwen2.5-0.5b", 512, 3.32),
]
"""GiB at a longest row of so many tokens; the 2.07 are a cycle's on real experiences, the others the bench's."""


@pytest.mark.parametrize(("name", "tokens", "measured"), MEASURED)
def test_memory_is_estimated_within_30_percent(name: str, tokens: int, measured: float) -> None:
    """What tests/bench/bench_memory.py measured on 2026-11-28 is what the shapes come to."""
    assert needed_bytes(NEEDS[name], tokens) == pytest.approx(measured * GIB, rel=0.3)
