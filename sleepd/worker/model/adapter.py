"""The base model on its device, and the adapter upon that: attached, continued, saved, and read back."""

from __future__ import annotations

import contextlib
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save
from transformers import AutoModelForCausalLM, AutoTokenizer

from sleepd.files import fsync_path
from sleepd.protocol.checkpoint.base_identity import UNQUANTISED
from sleepd.protocol.checkpoint.checkpoint_files import CONFIG_FILE, WEIGHTS_FILE
from sleepd.protocol.strategy import Strategy
from sleepd.worker.failure import GiveUp

from .device import Device, attention_for
from .find_base import seen_files
from .gguf.convert_gguf import Notify
from .inspect_base import read_config, reading
from .quantization import compute_alike, quantising
from .read_adapter import WAY_OUT, read_adapter, read_adapter_config
from .target_modules import find_targets

_OTHER = "other"


def load_tokenizer(base: Path) -> Any:
    """The tokenizer of a base: of a directory, or of one GGUF file.

    Raises:
        GiveUp: ``base_unusable``.
    """
    given = {"gguf_file": base.name} if base.is_file() else {}
    with reading(f"the tokenizer in {base} cannot be loaded"), seen_files(base) as seen:
        tokenizer = AutoTokenizer.from_pretrained(seen, local_files_only=True, trust_remote_code=False, **given)
    tokenizer.name_or_path = str(base)
    return tokenizer


def load_base(directory: Path, device: Device, quantization: str = UNQUANTISED) -> tuple[Any, Any]:
    """Model (frozen, in evaluation mode) and tokenizer from a directory of safetensors.

    Whether the files hold all of the model is ``skeleton.build_skeleton``'s to say.

    Raises:
        GiveUp: ``base_unusable``.
    """
    if device.torch_device.type == "cuda":
        # Its masked kernel gives NaN gradients at some lengths (PyTorch issue 196678), and plans anew for each length.
        torch.backends.cuda.enable_cudnn_sdp(False)
    attention = attention_for(read_config(directory))
    tokenizer = load_tokenizer(directory)
    with reading(f"the base in {directory} cannot be loaded"), seen_files(directory) as seen:
        model = AutoModelForCausalLM.from_pretrained(
            seen,
            dtype=device.dtype,
            # Straight to the device: the host need not hold all of it first.
            device_map={"": str(device.torch_device)},
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            **({"attn_implementation": attention} if attention else {}),
            **quantising(quantization, device),
        )
    compute_alike(model)
    model.name_or_path = model.config._name_or_path = str(directory)  # noqa: SLF001 - where peft looks for the base
    return model.eval(), tokenizer


def start_adapter(model: Any, strategy: Strategy, seed: int, notify: Notify = lambda _event, _text: None) -> Any:
    """The model with a new LoRA adapter, which changes nothing yet.

    Raises:
        GiveUp: ``base_unusable``, this architecture has nothing that the strategy could adapt.
    """
    torch.manual_seed(seed)
    targets = find_targets(model, strategy)
    if targets.notice:
        notify("adapter_modules_chosen", targets.notice)
    config = LoraConfig(
        r=strategy.rank,
        lora_alpha=strategy.alpha,
        lora_dropout=strategy.dropout,
        target_modules=targets.modules,
        exclude_modules=targets.excluded or None,
        task_type="CAUSAL_LM",
    )
    kind = getattr(model.config, "model_type", type(model).__name__)
    with reading(f"this base ({kind}) cannot be given an adapter", hint="name another model.base"), _peft_quiet():
        adapted = get_peft_model(model, config)
    for module in adapted.modules():
        if isinstance(module, LoraLayer):
            # Autocast brings weights and inputs together. peft would copy each input to float32 first, and keep it.
            module.cast_input_dtype_enabled = False
    return adapted


@contextlib.contextmanager
def _peft_quiet() -> Iterator[None]:
    """In this context peft does not warn of what it does rightly by itself, nor of what is compared afterwards."""
    with warnings.catch_warnings():
        for text in (
            "fan_in_fan_out is set",  # GPT-2's weights lie the other way, which it sees
            "The following (rank|alpha)_pattern keys",  # of fused experts, which take the same share of alpha to rank
            "Found missing adapter keys",
        ):
            warnings.filterwarnings("ignore", message=text)
        yield


def continue_adapter(
    model: Any, parent: Path, strategy: Strategy, seed: int, notify: Notify = lambda _event, _text: None
) -> Any:
    """The model with the parent's adapter, trainable.

    The adapter is built from the strategy and then given the parent's weights, so that every tensor is asked for by
    name and shape, and gradients are on as for a new one.

    Raises:
        GiveUp: ``parent_unusable``, or ``shape_changed`` where rank, scale or modules are not the strategy's.
    """
    adapted = start_adapter(model, strategy, seed, notify)
    put_weights(adapted, parent, strategy, "the parent")
    return adapted


def put_weights(adapted: Any, directory: Path, strategy: Strategy, whose: str) -> None:
    """Give the active adapter, which was built from the strategy, the weights in ``directory``.

    Raises:
        GiveUp: ``parent_unusable``, or ``shape_changed`` where rank, scale or modules are not the strategy's.
    """
    weights = read_adapter(directory)
    config = read_adapter_config(directory)
    if (config.get("r"), config.get("lora_alpha")) != (strategy.rank, strategy.alpha):
        came = f"r={config.get('r')} alpha={config.get('lora_alpha')}"
        raise GiveUp("shape_changed", f"{whose} has {came}, the strategy r={strategy.rank} alpha={strategy.alpha}")
    expected = adapter_tensors(adapted)
    if _modules(expected) != _modules(weights):
        raise GiveUp("shape_changed", f"{whose} adapts {shape(weights)}, the strategy {shape(expected)}")
    wrong = [name for name in expected if name not in weights or weights[name].shape != expected[name].shape]
    if wrong:
        raise GiveUp(
            "parent_unusable",
            f"{directory / WEIGHTS_FILE}: {len(wrong)} tensors are missing or of another shape, such as {wrong[0]}",
            WAY_OUT,
        )
    set_peft_model_state_dict(adapted, weights)


def restart_adapter(model: Any, seed: int) -> None:
    """The active adapter's weights as those of a new one, which changes nothing yet.

    They are drawn on the CPU, as those of a new one are: one seed gives the same weights on each device.
    """
    torch.manual_seed(seed)
    for module in model.modules():
        if isinstance(module, LoraLayer):
            with _drawn_on_cpu(module):
                module.reset_lora_parameters(model.active_adapter, init_lora_weights=True)


@contextlib.contextmanager
def _drawn_on_cpu(module: torch.nn.Module) -> Iterator[None]:
    """In this context its trainable weights stand on the CPU; what they are then is copied to where they belong."""
    owned = [(owner, name) for owner in module.modules() for name, _ in owner.named_parameters(recurse=False)]
    trained = [(owner, name, getattr(owner, name)) for owner, name in owned if getattr(owner, name).requires_grad]
    for owner, name, weight in trained:
        setattr(owner, name, torch.nn.Parameter(torch.empty_like(weight, device="cpu")))
    yield
    for owner, name, weight in trained:
        with torch.no_grad():
            weight.copy_(getattr(owner, name))
        setattr(owner, name, weight)


def _modules(names: Any) -> set[str]:
    return {name.split(".lora_")[0] for name in names}


def shape(tensors: dict[str, torch.Tensor]) -> str:
    """Rank and modules in one word: ``r16:down_proj,k_proj``."""
    modules = sorted({name.rsplit(".", 1)[-1] for name in _modules(tensors)})
    ranks = {tensor.shape[0] for name, tensor in tensors.items() if ".lora_A." in name}
    return f"r{'/'.join(str(rank) for rank in sorted(ranks))}:{','.join(modules)}"


def adapter_tensors(model: Any) -> dict[str, torch.Tensor]:
    """A copy of the active adapter's tensors, float32 on the CPU, by peft's names."""
    state = get_peft_model_state_dict(model, adapter_name=model.active_adapter)
    return {name: tensor.detach().float().cpu().clone() for name, tensor in state.items()}


@contextlib.contextmanager
def other_adapter(model: Any, directory: Path) -> Iterator[None]:
    """In this context the model has the adapter in ``directory``, of whatever LoRA shape, in the place of its own.

    Raises:
        GiveUp: ``parent_unusable``, it is damaged or does not fit the base.
    """
    weights = read_adapter(directory)
    own = model.active_adapter
    try:
        _load_beside(model, directory, weights)
        model.set_adapter(_OTHER)
        model.eval()
        yield
    finally:
        model.set_adapter(own)
        if _OTHER in model.peft_config:
            model.delete_adapter(_OTHER)


def _load_beside(model: Any, directory: Path, weights: dict[str, torch.Tensor]) -> None:
    what = f"the adapter in {directory} does not fit the base"
    with _peft_quiet(), reading(what, kind="parent_unusable", hint=WAY_OUT):
        model.load_adapter(str(directory), adapter_name=_OTHER, is_trainable=False, torch_device=_place(model))
    if set(get_peft_model_state_dict(model, adapter_name=_OTHER)) != set(weights):
        raise GiveUp("parent_unusable", f"the adapter in {directory} has not the tensors that its configuration names")


def _place(model: Any) -> str:
    """Where the model is. Left to itself peft loads onto a GPU wherever it sees one, even beside a model on the CPU."""
    return str(next(model.parameters()).device)


def use_saved_adapter(model: Any, directory: Path) -> None:
    """Put what was saved in ``directory`` in the place of the trained adapter, read by peft as everybody reads it."""
    if "saved" in model.peft_config:
        model.delete_adapter("saved")  # half of it, of an attempt for which memory did not suffice
    with _peft_quiet():
        model.load_adapter(str(directory), adapter_name="saved", is_trainable=False, torch_device=_place(model))
    model.set_adapter("saved")
    model.delete_adapter("default")
    model.eval()


def save_adapter(model: Any, directory: Path, base_directory: Path) -> None:
    """Write the adapter as peft names it, on disk when this returns; nothing else is left behind."""
    # Written as bytes, for the library's own writer leaves a file that only its owner can read, whatever the umask.
    (directory / WEIGHTS_FILE).write_bytes(save(adapter_tensors(model)))
    config = model.peft_config["default"].to_dict()
    config["base_model_name_or_path"] = str(base_directory)
    config["inference_mode"] = True
    config["target_modules"] = sorted(config["target_modules"])
    text = json.dumps(config, indent=2, sort_keys=True, default=_as_json)
    (directory / CONFIG_FILE).write_text(text + "\n", encoding="utf-8")
    for name in (WEIGHTS_FILE, CONFIG_FILE):
        fsync_path(directory / name)
    fsync_path(directory)


def _as_json(value: Any) -> Any:
    return sorted(value) if isinstance(value, set) else str(value)


def load_adapted(directory: Path, adapter: Path, device: Device) -> tuple[Any, Any]:
    """A base with an adapter from disk, for asking only, and its tokenizer.

    Raises:
        GiveUp: ``base_unusable`` or ``parent_unusable``.
    """
    model, tokenizer = load_base(directory, device)
    read_adapter(adapter)  # peft itself would also open a pickle
    what = f"the adapter in {adapter} does not fit the base"
    with _peft_quiet(), reading(what, kind="parent_unusable", hint=WAY_OUT):
        adapted = PeftModel.from_pretrained(model, adapter, is_trainable=False, torch_device=_place(model))
    return adapted.eval(), tokenizer
