"""What differs on a GPU, shown on the CPU: placement, memory, random numbers, kernels, and a full card."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from sleepd.worker import run as cycle
from sleepd.worker.data.examples import Encoded
from sleepd.worker.data.packing import PackedRow, make_rows
from sleepd.worker.environment import prepare_environment
from sleepd.worker.evaluation import evaluation_command, loss_evaluator
from sleepd.worker.failure import GiveUp
from sleepd.worker.model import (
    adapter,
    generate,
    loading,
    losses,
)
from sleepd.worker.model import device as devices
from sleepd.worker.model.adapter import load_adapted, load_base, other_adapter, restart_adapter, start_adapter
from sleepd.worker.model.device import Device, choose_device
from sleepd.worker.model.generate import Asked, batched_replies, replies
from sleepd.worker.model.gpu_energy import EnergyCounter
from sleepd.worker.model.losses import kl_from_base, make_reference, row_logits, token_losses
from sleepd.worker.model.memory import memory_estimate, out_of_memory, peak_memory, recompute
from sleepd.worker.model.memory.out_of_memory import LADDER, MemoryLimits
from sleepd.worker.model.memory.peak_memory import Peak
from sleepd.worker.training import gradients, step_gradients
from sleepd.worker.training.adapter_weights import AdapterWeights

from . import architectures
from .conftest import RecordingChannel, RunHere, examples, make_job, quick

pytestmark = pytest.mark.worker
CPU = Device(torch.device("cpu"), torch.float32, "cpu")
CARD = Device(torch.device("cuda:1"), torch.bfloat16, "cuda:1 (a card)")
FULL = torch.cuda.OutOfMemoryError("CUDA out of memory")


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """As far as it is asked, torch has a second card, and computes there."""
    current, asked = [0], list[int]()

    @contextmanager
    def on(device: Any) -> Iterator[None]:
        current.append(torch.device(device).index or 0)
        yield
        current.pop()

    def is_bf16_supported(including_emulation: bool) -> bool:
        asked.append(current[-1])
        return current[-1] == 1

    monkeypatch.setattr(devices, "_why_not_cuda", lambda _device: "")
    monkeypatch.setattr(torch.cuda, "device", on)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", is_bf16_supported)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"card {torch.device(device).index}")
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda _device: 7 * 2**30)
    return asked


def test_each_card_is_asked_for_bfloat16(card: list[int]) -> None:
    """Whether a card computes in bfloat16 is asked of that card, and not of the first one."""
    assert choose_device("cuda:1").dtype == torch.bfloat16
    assert choose_device("cuda:0").dtype == torch.float32
    assert card == [1, 0]


def test_kind_names_card_and_libraries(card: list[int]) -> None:
    """A cycle that began on another card, or with another cuDNN, does not go on: the kind of a device names both."""
    assert CARD.kind.startswith("cuda bfloat16 card 1, CUDA ")
    assert "cuDNN" in CARD.kind
    assert CPU.kind == "cpu float32"


def test_base_goes_straight_to_its_card(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights are placed on the card as they are read, and cuDNN's attention is off, whose gradients can be NaN."""
    asked = {}

    def from_pretrained(_path: object, **given: Any) -> Any:
        asked.update(given)
        return AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(tiny_model))

    monkeypatch.setattr(adapter.AutoModelForCausalLM, "from_pretrained", from_pretrained)
    before = torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cuda.enable_cudnn_sdp(True)
    try:
        load_base(tiny_model, CARD)
        assert asked["device_map"] == {"": "cuda:1"}
        assert not torch.backends.cuda.cudnn_sdp_enabled()
    finally:
        torch.backends.cuda.enable_cudnn_sdp(before)


def test_every_adapter_loads_beside_its_model(
    run_here: RunHere, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trained, compared with and asked on the CPU, no adapter is loaded to a GPU that peft sees."""
    import peft.peft_model

    def infer_device() -> None:
        raise AssertionError("peft was left to choose a device")

    monkeypatch.setattr(peft.peft_model, "infer_device", infer_device)
    run_here(name="one")
    trained = start_adapter(load_base(tiny_model, CPU)[0], quick(), 0)
    with other_adapter(trained, tmp_path / "one"):
        pass
    loaded, _ = load_adapted(tiny_model, tmp_path / "one", CPU)
    assert {each.device.type for each in (*trained.parameters(), *loaded.parameters())} == {"cpu"}


@pytest.mark.parametrize("number_type", [torch.float32, torch.bfloat16])
def test_soft_capped_base_is_trained(
    number_type: torch.dtype, run_here: RunHere, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A whole cycle on a Gemma 2, whose soft cap the fused attention leaves out, in both number types."""
    architectures.make("gemma2", tmp_path / "gemma2")
    monkeypatch.setattr(loading, "choose_device", lambda _asked: Device(torch.device("cpu"), number_type, "cpu"))
    assert run_here(base=str(tmp_path / "gemma2")).steps == 4


def test_fused_attention_in_bfloat16_trains(run_here: RunHere, monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole cycle in the number type and with the attention of a GPU, packed rows and their mask included."""
    monkeypatch.setattr(loading, "choose_device", lambda _asked: Device(torch.device("cpu"), torch.bfloat16, "cpu"))
    report = run_here()
    assert report.dtype == "bfloat16"
    assert report.train_after < report.train_before
    assert "packing_off" not in [notice.event for notice in report.notices]


def test_tensors_meet_on_the_models_device(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows, masks, losses and references are made where the model is; here on torch's device without numbers."""
    monkeypatch.setattr(losses, "computing", lambda _device: nullcontext())  # autocast does not know that device
    meta = Device(torch.device("meta"), torch.float32, "meta")
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(tiny_model))
    model = start_adapter(model.eval(), quick(), 0)
    made = [Encoded(id=f"e{i}", ids=tuple(range(5, 45 + i)), prompt_tokens=20) for i in range(4)]
    for row in make_rows(made, 120, 0):
        for _one, logits, targets in row_logits(model, row, meta):
            loss = kl_from_base(logits, make_reference(logits.detach())).sum() + token_losses(logits, targets).sum()
            assert loss.device.type == "meta"
        loss.backward()


def test_weights_restart_alike_on_each_device(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An adapter that starts again draws its numbers on the CPU, and stays where it is."""
    drawn = []
    real = torch.nn.init.kaiming_uniform_

    def kaiming_uniform_(weight: torch.Tensor, **given: Any) -> torch.Tensor:
        drawn.append(weight.device.type)
        return real(weight, **given)

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(tiny_model))
    model = start_adapter(model, quick(), 0)
    monkeypatch.setattr(torch.nn.init, "kaiming_uniform_", kaiming_uniform_)
    restart_adapter(model, 3)
    assert set(drawn) == {"cpu"}
    assert {weight.device.type for weight in model.parameters()} == {"meta"}


def test_more_tokens_share_a_pass_on_a_gpu() -> None:
    """With few tokens a GPU waits for the processor that starts its kernels."""
    limits = MemoryLimits(512, 2048, RecordingChannel())
    limits.fill(torch.device("cpu"))
    assert limits.micro_batch_tokens == 512
    limits.fill(torch.device("cuda"))
    assert limits.micro_batch_tokens == out_of_memory.GPU_PASS_TOKENS > 2048


def test_peak_counts_what_is_reserved(card: list[int]) -> None:
    """On a GPU the peak is what its allocator reserved, beside the host's; a resumed cycle has the higher of both."""
    peak = peak_memory.peak_memory(CARD)
    assert peak.device == 7 * 2**30
    assert 0 < peak.host < 7 * 2**30
    assert peak.with_earlier(Peak(device=8 * 2**30, host=1)) == Peak(device=8 * 2**30, host=peak.host)
    assert peak_memory.peak_memory(CPU).device == peak_memory.peak_memory(CPU).host


def test_command_finds_the_card_and_room(
    tiny_model: Path, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The operator's command sees the cards in the same order, and what this process only cached is given back."""
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    freed = []
    monkeypatch.setattr(evaluation_command, "free_memory", lambda: freed.append(1))
    script = tmp_path / "order.py"
    script.write_text('import os; print({"PCI_BUS_ID": "{\\"order\\": 1}"}[os.environ["CUDA_DEVICE_ORDER"]])')
    job = make_job(tiny_model, models, tmp_path / "staging", evaluation_command=f"python3 {script}")
    assert evaluation_command.figures(job, None, tiny_model, lambda: None) == {"order": 1.0}
    assert freed == [1]


def once(monkeypatch: pytest.MonkeyPatch, module: Any, name: str) -> list[int]:
    """The first call of that function finds the card full."""
    real, failed = getattr(module, name), list[int]()

    def full(*given: Any, **named: Any) -> Any:
        if not failed:
            failed.append(1)
            raise FULL
        return real(*given, **named)

    monkeypatch.setattr(module, name, full)
    return failed


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (cycle, "use_saved_adapter"),
        (cycle, "adapted_norm"),
        (generate, "replies"),
        (step_gradients.AdapterWeights, "clip"),
    ],
)
def test_full_card_outside_a_pass_is_survived(
    module: Any, name: str, run_here: RunHere, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading back, measuring the weights, replying and clipping are tried again once all is given back."""
    failed = once(monkeypatch, module, name)
    assert run_here().steps == 4
    assert failed


def test_single_prompt_is_tried_twice(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One prompt that does not fit is tried once more after memory was given back, and then it ends."""
    model = load_base(tiny_model, CPU)[0]
    once(monkeypatch, generate, "replies")
    one = [Asked([5, 6, 7], 2)]
    assert batched_replies(model, CPU, one, at_once=4, stop_ids=frozenset()) == replies(
        model, CPU, one, stop_ids=frozenset()
    )
    monkeypatch.setattr(generate, "replies", lambda *_given, **_named: (_ for _ in ()).throw(FULL))
    with pytest.raises(torch.cuda.OutOfMemoryError):
        batched_replies(model, CPU, one, at_once=4, stop_ids=frozenset())


def test_optimizer_of_a_gpu_goes_on(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fused optimizer has its room before the first step; it and the card's random numbers are restored."""
    state = torch.tensor([1, 2, 3], dtype=torch.uint8)
    given = []
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda _device: state)
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda now, device: given.append((now, device)))

    def weights() -> AdapterWeights:
        return AdapterWeights(start_adapter(load_base(tiny_model, CPU)[0], quick(), 0), CARD, quick(), 0)

    def step(of: AdapterWeights) -> None:
        of.begin_step(1.0)
        for weight in of.named().values():
            weight.grad = torch.ones_like(weight)
        of.clip()
        of.step()

    one, two = weights(), weights()
    room = {name: tensor.data_ptr() for name, tensor in one.tensors().items() if name.startswith("adam/")}
    step(one)
    two.restore({name: tensor.clone() for name, tensor in one.tensors().items()})
    assert torch.equal(given[0][0], state)
    assert given[0][1] == CARD.torch_device
    for each in (one, two):
        step(each)
    assert {name: tensor.data_ptr() for name, tensor in one.tensors().items() if name.startswith("adam/")} == room
    assert all(torch.equal(tensor, two.tensors()[name]) for name, tensor in one.tensors().items())


def test_noise_is_drawn_where_the_model_is(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The generator of a sampled reply is asked for on the model's device."""
    asked, real = [], torch.Generator

    def generator(place: torch.device) -> torch.Generator:
        asked.append(place)
        return real(place)

    monkeypatch.setattr(torch, "Generator", generator)
    replies(load_base(tiny_model, CPU)[0], CPU, [Asked([5, 6], 1, seed=1), Asked([5], 1)], stop_ids=frozenset())
    assert asked == [CPU.torch_device]


def nan_where(model: Any, is_bad: Callable[[torch.Tensor], bool]) -> None:
    """From now on its logits are NaN where the attention mask is bad."""

    def spoil(_module: object, _given: object, named: dict[str, Any], out: Any) -> Any:
        if is_bad(named["attention_mask"]):
            out.logits.fill_(float("nan"))
        return out

    model.register_forward_hook(spoil, with_kwargs=True)


def test_padding_that_gives_nan_is_left_out(tiny_model: Path) -> None:
    """Where places of padding make NaN of a batch, each prompt is replied to alone, and the replies are the same."""
    asked = [Asked([5, 6, 7], 4), Asked([9], 4, seed=3)]
    expected = replies(load_base(tiny_model, CPU)[0], CPU, asked, stop_ids=frozenset())
    model = load_base(tiny_model, CPU)[0]
    nan_where(model, lambda mask: not bool(mask.all()))
    assert replies(model, CPU, asked, stop_ids=frozenset()) == expected
    nan_where(model, lambda _mask: True)
    with pytest.raises(GiveUp, match="not numbers"):
        replies(model, CPU, asked, stop_ids=frozenset())


def test_allocator_of_a_gpu_has_growing_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the operator set stays; else segments grow, under both names that torch has had for the variable."""
    monkeypatch.setattr(os, "environ", {"PYTORCH_ALLOC_CONF": "backend:native"})
    prepare_environment()
    assert os.environ["PYTORCH_ALLOC_CONF"] == "backend:native"
    assert os.environ["PYTORCH_CUDA_ALLOC_CONF"] == "expandable_segments:True"


def test_read_back_may_round_otherwise_on_a_gpu() -> None:
    """There the logits may differ by a few roundings of the largest one; the weights may not differ, wherever."""
    logits = torch.tensor([[20.0, -3.0]])
    apart = logits + torch.tensor([[0.5, 0.0]])
    assert loss_evaluator.reload_check(logits, apart, CARD, is_exact=True).passed
    assert not loss_evaluator.reload_check(logits, logits + 1.0, CARD, is_exact=True).passed
    assert not loss_evaluator.reload_check(logits, apart, CPU, is_exact=True).passed
    assert not loss_evaluator.reload_check(logits, logits, CARD, is_exact=False).passed


def test_ladder_is_taken_step_by_step(run_here: RunHere, monkeypatch: pytest.MonkeyPatch) -> None:
    """Narrower rows, then layers that compute again, then shorter sequences: each is named with what it costs."""
    real = gradients.row_logits

    def row_logits(model: Any, row: PackedRow, device: Any) -> Any:
        if row.tokens > 120:
            raise FULL
        return real(model, row, device)

    monkeypatch.setattr(gradients, "row_logits", row_logits)
    long = [msgspec.structs.replace(one, prompt="Who? " * 30) for one in examples()]
    report = run_here(long, strategy=quick(kl_weight=0.0))
    taken = [notice for notice in report.notices if notice.event in {rung.event for rung in LADDER}]
    assert list(dict.fromkeys(one.event for one in taken)) == [rung.event for rung in LADDER]
    assert all(rung.cost in notice.text for rung in LADDER for notice in taken if notice.event == rung.event)


def test_layers_computed_again_change_nothing(
    run_here: RunHere, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The adapter is the same, bit for bit, dropout included; only each pass takes longer."""
    strategy = quick(dropout=0.2)
    run_here(name="kept", strategy=strategy)
    real = MemoryLimits.__init__

    def recomputing(limits: MemoryLimits, *given: Any) -> None:
        real(limits, *given)
        limits.is_recomputing = True

    monkeypatch.setattr(MemoryLimits, "__init__", recomputing)
    counted, whole = [], recompute.checkpoint

    def counting(*given: Any, **named: Any) -> Any:
        counted.append(1)
        return whole(*given, **named)

    monkeypatch.setattr(recompute, "checkpoint", counting)
    run_here(name="again", strategy=strategy)
    assert counted
    kept, again = ((tmp_path / name / "adapter_model.safetensors").read_bytes() for name in ("kept", "again"))
    assert kept == again


def test_full_card_ends_on_the_cpu(run_here: RunHere, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where device is auto and no step back is left on a GPU, the cycle begins again on the CPU, and says so."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)

    def choose(asked: str) -> Device:
        if asked == "cpu":
            return devices.choose_device("cpu")
        raise FULL

    monkeypatch.setattr(loading, "choose_device", choose)
    report = run_here(device="auto")
    assert [notice.event for notice in report.notices] == ["moved_to_cpu"]
    with pytest.raises(GiveUp, match="out of memory"):
        run_here(name="asked", device="cuda")


@pytest.mark.parametrize(
    ("room", "tokens", "is_recomputing"), [(1000, 512, False), (300, 256, False), (130, 128, False), (40, 128, True)]
)
def test_short_memory_is_planned_for(room: int, tokens: int, is_recomputing: bool) -> None:
    """Where the estimate is above what there is, a pass gets narrower at first, then layers compute again."""
    channel = RecordingChannel()
    limits = MemoryLimits(512, 2048, channel)
    limits.plan(lambda tokens, again: tokens // (2 if again else 1), room)
    assert (limits.micro_batch_tokens, limits.is_recomputing) == (tokens, is_recomputing)
    assert ("layers_recomputed" in [one.event for one in channel.notices]) == is_recomputing
    assert all("a cycle is estimated at" in one.text for one in channel.notices)


def test_room_is_what_is_free_or_held(card: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a card what is free and what this process reserved; of the processor's memory the same."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _device: (5, 100))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _device: 7)
    assert devices.room_of(CARD) == 12
    assert devices.memory_of(CPU) > devices.room_of(CPU) > 0


def test_computing_again_is_estimated_lower(tiny_model: Path) -> None:
    """Layers that compute again keep one layer's figures at a time, and the weights and logits stay."""
    adapted = start_adapter(load_base(tiny_model, CPU)[0], quick(), 0)
    need = memory_estimate.need_of(adapted, CPU)
    kept, again = memory_estimate.needed_bytes(need, 512), memory_estimate.needed_bytes(need, 512, True)
    assert kept > again > memory_estimate.LIBRARIES_BYTES


class DriverLibrary:
    """NVML as far as it is called; the card draws 250 J between two readings."""

    def __init__(self) -> None:
        self.error, self._millijoules = 0, 7_000_000

    def nvmlInit_v2(self) -> int:  # noqa: N802 - the driver's name
        """Ready."""
        return 0

    def nvmlDeviceGetHandleByUUID(self, uuid: bytes, _card: object) -> int:  # noqa: N802
        """Only the card that computes; 6: not found."""
        return 0 if uuid == b"GPU-0123" else 6

    def nvmlDeviceGetTotalEnergyConsumption(self, _card: object, found: Any) -> int:  # noqa: N802
        """As much more each time."""
        self._millijoules += 250_000
        found._obj.value = self._millijoules
        return self.error


@pytest.fixture
def driver(card: list[int], monkeypatch: pytest.MonkeyPatch) -> DriverLibrary:
    """The driver's library of that card."""
    library = DriverLibrary()
    monkeypatch.setattr("ctypes.CDLL", lambda _name: library)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda _device: SimpleNamespace(uuid="0123"))
    return library


def test_card_counts_its_energy(driver: DriverLibrary) -> None:
    """The energy of a cycle is what the card counted, with that of the workers before a break."""
    assert EnergyCounter(CARD.torch_device, 0.0).joules() == 250
    assert EnergyCounter(CARD.torch_device, 40.5).joules() == 290.5


def test_unmeasured_energy_is_none(driver: DriverLibrary, monkeypatch: pytest.MonkeyPatch) -> None:
    """No figure is made where a part was not measured: before a break, on a CPU, on an old card, without a driver."""
    assert EnergyCounter(CARD.torch_device, None).joules() is None
    assert EnergyCounter(CPU.torch_device, 0.0).joules() is None
    driver.error = 3
    assert EnergyCounter(CARD.torch_device, 0.0).joules() is None
    monkeypatch.undo()
    assert EnergyCounter(CARD.torch_device, 0.0).joules() is None
