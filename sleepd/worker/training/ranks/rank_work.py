"""What a rank beside rank 0 does: load the base, then compute the gradient of one share after the other.

Rule 1: it decides nothing, keeps nothing from step to step, and writes no file. Its weights are sent to it before each
share, and the random numbers of dropout follow from seed, step and rank.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import torch
from safetensors.torch import load_file

from sleepd.protocol.job import Progress
from sleepd.worker.channel import Channel
from sleepd.worker.data.packing import make_rows
from sleepd.worker.failure import DaemonGone, GiveUp
from sleepd.worker.model.adapter import load_base, start_adapter
from sleepd.worker.model.device import Device, choose_device
from sleepd.worker.model.losses import Reference
from sleepd.worker.model.memory.out_of_memory import free_memory, is_out_of_memory
from sleepd.worker.model.memory.recompute import recompute_layers
from sleepd.worker.model.reference_tensors import references_in
from sleepd.worker.process.layer_heartbeat import beat_at_each_layer
from sleepd.worker.training.gradients import accumulate

from . import collective
from .rank_messages import AddUp, Joined, NoRoom, RankSetup, Share, ShareDone, ToRank, to_rank


def work(channel: Channel, wire: socket.socket) -> None:
    """Join, and then do what rank 0 asks for.

    Raises:
        GiveUp: the base or the device cannot be used.
        DaemonGone: rank 0 has ended.
    """
    orders = wire.makefile("rb")
    setup = _next(orders)
    assert isinstance(setup, RankSetup)
    if setup.threads:
        torch.set_num_threads(setup.threads)
    try:
        with channel.loading():
            channel.doing("loaded the base's weights")
            member = _RankMember(setup, channel.beat)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        hint = "lower worker.processes, choose a smaller base, or set device to cpu"
        raise GiveUp("out_of_memory", f"out of memory: {str(error).partition(chr(10))[0]}", hint) from error
    channel.send(Joined(weights=collective.digest(member.weights)))
    collective.join(member.device, setup.store, setup.rank, setup.processes, setup.silence_seconds)
    while True:
        order = _next(orders)
        channel.progress(Progress(phase="training"))  # acknowledges it
        if isinstance(order, Share):
            total = member.compute(order)
            channel.send(NoRoom() if total is None else ShareDone(total=total))
        elif isinstance(order, AddUp):
            member.add_up()


def _next(orders: IO[bytes]) -> ToRank:
    line = orders.readline()
    if not line.endswith(b"\n"):
        raise DaemonGone
    order: ToRank = to_rank.decode(line)
    return order


class _RankMember:
    def __init__(self, setup: RankSetup, beat: Callable[[], None]) -> None:
        self._setup = setup
        self._beat = beat
        self.device: Device = replace(choose_device(setup.device), dtype=getattr(torch, setup.dtype))
        base, _ = load_base(Path(setup.base_directory), self.device, setup.quantization)
        self._model: Any = start_adapter(base, setup.strategy, setup.seed)
        self._is_recomputing = False
        recompute_layers(self._model, lambda: self._is_recomputing)
        beat_at_each_layer(self._model, beat)
        self._model.train(setup.strategy.dropout > 0)
        self.weights = collective.trained(self._model)
        read = load_file(setup.references, device=str(self.device.torch_device))
        self._references: Mapping[str, Reference] = references_in(read)

    def compute(self, share: Share) -> float | None:
        """The sum of the token losses of the share, whose gradients the weights then have; None: memory ran out."""
        self._drop_gradients()
        collective.receive_broadcast(list(self.weights.values()))
        self._is_recomputing = share.is_recomputing
        setup = self._setup
        torch.manual_seed(setup.seed + 1_000_003 * (share.step * setup.processes + setup.rank))
        rows = make_rows(share.members, share.micro_batch_tokens, share.opening, packed=share.is_packed)
        try:
            return accumulate(
                self._model,
                self.device,
                rows,
                self._references,
                share.counts,
                setup.strategy.kl_weight,
                lambda _tokens: self._beat(),
            )
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        # Outside the handler, whose traceback would keep the failed attempt's tensors alive.
        self._drop_gradients()
        free_memory()
        return None

    def add_up(self) -> None:
        """Give rank 0 the gradients."""
        _, summing = collective.begin_sum(list(self.weights.values()))
        summing.wait()
        self._drop_gradients()

    def _drop_gradients(self) -> None:
        for weight in self.weights.values():
            weight.grad = None
