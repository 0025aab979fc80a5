"""Weights and gradients of all ranks, by torch.distributed: gloo on the CPU, nccl on CUDA, over loopback alone.

The trainable weights are an adapter's: some million numbers, sent as one tensor. So there is no wrapper around the
model, no gradient bucket and no sharding: rank 0 sends its weights before a step, and gets the sum of the gradients
after it. Optimizer, clipping and every decision stay with rank 0, and no other rank can come to have other weights.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from datetime import timedelta
from hashlib import sha256
from typing import Any

import torch
import torch.distributed as dist

from sleepd.worker.failure import GiveUp
from sleepd.worker.model.device import Device

_LOOPBACK = {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}
"""The sandbox has no other interface, and no other machine is to reach these sockets."""


def trained(model: Any) -> dict[str, torch.nn.Parameter]:
    """The weights that are trained, by name, in the same order on each rank."""
    return {name: weight for name, weight in sorted(model.named_parameters()) if weight.requires_grad}


def digest(weights: dict[str, torch.nn.Parameter]) -> str:
    """Equal where all names and shapes are."""
    return sha256(repr([(name, tuple(weight.shape)) for name, weight in weights.items()]).encode()).hexdigest()


def refuse_impossible(device: Device, processes: int) -> None:
    """Refuse more processes than can compute here.

    Raises:
        GiveUp: ``device_unusable``.
    """
    hint = "set worker.processes = 1"
    if not dist.is_available():
        raise GiveUp("device_unusable", "this torch is built without torch.distributed", hint)
    try:
        with socket.socket() as end:
            end.bind(("127.0.0.1", 0))
    except OSError as error:
        text = f"{processes} processes reach each other over loopback, which is forbidden here: {error.strerror}"
        raise GiveUp("device_unusable", text, f"install systemd/20-processes.conf; {hint} needs none") from error
    if device.torch_device.type != "cuda":
        return
    if torch.cuda.device_count() < processes:
        text = f"worker.processes is {processes}, and torch can use {torch.cuda.device_count()} GPUs"
        raise GiveUp("device_unusable", text, "set worker.processes to the number of GPUs at most")
    if not dist.is_nccl_available():
        raise GiveUp("device_unusable", "this torch is built without NCCL", hint)


def join(device: Device, store: str, rank: int, processes: int, seconds: float) -> None:
    """Become one of the ranks; returns once all are there.

    Raises:
        RuntimeError: they do not find each other.
    """
    os.environ.update(_LOOPBACK)
    is_cuda = device.torch_device.type == "cuda"
    if is_cuda:
        torch.cuda.set_device(device.torch_device)
    dist.init_process_group(
        "nccl" if is_cuda else "gloo",
        store=dist.FileStore(store, processes),  # type: ignore[attr-defined]
        rank=rank,
        world_size=processes,
        timeout=timedelta(seconds=seconds),
    )


def leave() -> None:
    """Be no rank any more."""
    dist.destroy_process_group()


def begin_broadcast(weights: Sequence[torch.nn.Parameter]) -> tuple[torch.Tensor, Any]:
    """On rank 0: the weights as one tensor, which are on their way until the second value is completed."""
    sent = torch.cat([weight.detach().reshape(-1) for weight in weights])
    return sent, dist.broadcast(sent, 0, async_op=True)


@torch.no_grad()
def receive_broadcast(weights: Sequence[torch.nn.Parameter]) -> None:
    """On another rank: take the weights of rank 0."""
    received = torch.cat([weight.detach().reshape(-1) for weight in weights])
    dist.broadcast(received, 0)
    for weight, part in zip(weights, torch.split(received, [weight.numel() for weight in weights]), strict=True):
        weight.copy_(part.view_as(weight))


def begin_sum(weights: Sequence[torch.nn.Parameter]) -> tuple[torch.Tensor, Any]:
    """The gradients as one tensor, which on rank 0 is the sum over all ranks once the second value is completed."""
    parts = [torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in weights]
    gradients = torch.cat([part.reshape(-1) for part in parts])
    return gradients, dist.reduce(gradients, 0, async_op=True)


def put_gradients(weights: Sequence[torch.nn.Parameter], gradients: torch.Tensor) -> None:
    """Make ``gradients`` those of the weights."""
    for weight, part in zip(weights, torch.split(gradients, [weight.numel() for weight in weights]), strict=True):
        weight.grad = part.view_as(weight).clone()
