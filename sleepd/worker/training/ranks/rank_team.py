"""The other ranks as rank 0 sees them: started, given shares, listened to, killed.

Rule 1: rank 0 alone speaks to the daemon, decides, and writes what stays. The others get weights and give gradients.
Rule 2: no wait is without bounds, and none is blind: while rank 0 waits for an answer or for a tensor, it listens to
every rank. One that ends or is silent for too long is named (``RankLost``), and the training stands at its last whole
step.
Rule 3: the ranks are in rank 0's process group, session and control group, and the kernel kills them when rank 0 ends.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec
import torch
from safetensors.torch import save_file

from sleepd.protocol.job import Failure, Job, Progress, encode
from sleepd.worker.channel import Channel
from sleepd.worker.failure import GiveUp, RankLost
from sleepd.worker.model.device import Device
from sleepd.worker.model.loading import Loaded

from . import collective
from .rank_messages import AddUp, Joined, NoRoom, RankAnswer, RankSetup, Share, ShareDone, TeamSize, from_rank

RANK_COMMAND = (sys.executable, "-P", "-m", "sleepd.worker.training.ranks")
PATIENCE_SHARE = 0.75
"""Of ``worker.silence_seconds``: rank 0 names the silent rank before the daemon would take rank 0 for hung."""
_POLL_SECONDS: Final = 0.1
_TENSOR_POLL_SECONDS: Final = 0.001
_END_SECONDS: Final = 5.0
"""For the news of a rank's death, after its connections have broken."""
_MEMORY_HINT: Final = "journalctl -k | grep -i 'out of memory' shows it; fewer worker.processes need less"
_SILENCE_HINT: Final = "raise worker.silence_seconds if it is only slow; worker.processes = 1 needs no other rank"


@dataclass
class _Rank:
    number: int
    process: subprocess.Popen[bytes]
    line: socket.socket
    heard_at: float = field(default_factory=time.monotonic)
    last: Progress | None = None
    rest: bytes = b""


class RankTeam:
    """The ranks 1 to N - 1.

    Args:
        size: how many ranks with this one, and how long one may be silent.
        channel: to the daemon, which hears a sign of life where a rank gives one.
        setup: what each of them is told, beside its rank and device.
    """

    def __init__(self, size: TeamSize, channel: Channel, setup: RankSetup) -> None:
        self._size = size
        self._channel = channel
        self._setup = setup
        self._ranks: list[_Rank] = []
        self._has_joined = False

    @property
    def processes(self) -> int:
        """All ranks, with this one."""
        return self._size.processes

    def start(self, device: Device, weights: dict[str, torch.nn.Parameter]) -> None:
        """Start them; returns once all have loaded the base.

        Raises:
            GiveUp: one of them cannot use base or device, or dies.
            Stopped: SIGTERM came.
        """
        for number in range(1, self.processes):
            self._ranks.append(self._started(number))
            place = f"cuda:{number}" if device.torch_device.type == "cuda" else "cpu"
            self._post(self._ranks[-1], msgspec.structs.replace(self._setup, rank=number, device=place))
        wanted = collective.digest(weights)
        for number, answer in self._answers().items():
            if not (isinstance(answer, Joined) and answer.weights == wanted):
                raise GiveUp("error", f"{self._name(number)} has built another adapter", "please report it")
        try:
            collective.join(device, self._setup.store, 0, self.processes, self._size.silence_seconds)
        except RuntimeError as error:
            raise self._lost(str(error)) from error
        self._has_joined = True

    def _started(self, number: int) -> _Rank:
        ours, theirs = socket.socketpair()
        with theirs:
            command = (*RANK_COMMAND, "--fd", str(theirs.fileno()))
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=(theirs.fileno(),))
        return _Rank(number, process, ours)

    def close(self) -> None:
        """Kill and reap them."""
        for rank in self._ranks:
            rank.process.kill()
            rank.process.wait()
            rank.line.close()
        self._ranks.clear()
        if self._has_joined:
            self._has_joined = False
            with contextlib.suppress(RuntimeError):
                collective.leave()

    # --- one step ---

    def begin(self, shares: Sequence[Share], weights: Sequence[torch.nn.Parameter]) -> None:
        """Give each rank its share, and the weights.

        Raises:
            GiveUp: a rank cannot go on, or is lost.
            Stopped: SIGTERM came.
        """
        self._ask(shares)
        self._complete(*collective.begin_broadcast(weights))

    def totals(self) -> dict[int, float | None]:
        """By rank, what its share came to; None: memory ran out there. Raises as ``begin``."""
        return {
            number: answer.total if isinstance(answer, ShareDone) else None
            for number, answer in self._answers().items()
            if isinstance(answer, ShareDone | NoRoom)
        }

    def add_up(self, weights: Sequence[torch.nn.Parameter]) -> None:
        """Make the gradients of the weights the sum over all ranks. Raises as ``begin``."""
        self._ask([AddUp()] * len(self._ranks))
        collective.put_gradients(weights, self._complete(*collective.begin_sum(weights)))

    def _ask(self, orders: Sequence[Share | AddUp]) -> None:
        """Returns once each rank has acknowledged its order: while a tensor moves none could be named."""
        asked = time.monotonic()
        for rank, order in zip(self._ranks, orders, strict=True):
            self._post(rank, order)
        while awaited := [rank for rank in self._ranks if rank.heard_at < asked]:
            self._hear(_POLL_SECONDS)
            self._refuse_silence(awaited, asked)

    def _complete(self, tensor: torch.Tensor, moving: Any) -> torch.Tensor:
        deadline = time.monotonic() + self._patience
        try:
            while not moving.is_completed():
                self._hear(_TENSOR_POLL_SECONDS)
                if time.monotonic() > deadline:
                    raise self._lost(f"a tensor was on its way for {self._patience:g} s")
            moving.wait()
        except RuntimeError as error:
            raise self._lost(str(error)) from error
        return tensor

    # --- listening ---

    @property
    def _patience(self) -> float:
        return PATIENCE_SHARE * self._size.silence_seconds

    def _answers(self) -> dict[int, RankAnswer]:
        """One answer of each rank."""
        found: dict[int, RankAnswer] = {}
        asked = time.monotonic()
        while len(found) < len(self._ranks):
            found |= self._hear(_POLL_SECONDS)
            self._refuse_silence([rank for rank in self._ranks if rank.number not in found], asked)
        return found

    def _refuse_silence(self, awaited: Collection[_Rank], asked: float) -> None:
        for rank in awaited:
            if time.monotonic() - max(rank.heard_at, asked) > self._patience:
                doing = (
                    rank.last and rank.last.doing
                ) or f"was in the phase {rank.last.phase if rank.last else 'start'}"
                text = f"{self._name(rank.number)} gave no sign of life for {self._patience:g} s while it {doing}"
                raise RankLost(f"{text}, and was killed", _SILENCE_HINT)

    def _hear(self, seconds: float) -> dict[int, RankAnswer]:
        """What came within so long; every call is a moment at which a request to stop is obeyed."""
        self._channel.check()
        lines = {rank.line: rank for rank in self._ranks}
        ready, _, _ = select.select(list(lines), (), (), seconds)
        found: dict[int, RankAnswer] = {}
        for line in ready:
            rank = lines[line]
            try:
                came = line.recv(2**16)
            except ConnectionError:
                came = b""
            if not came:
                raise RankLost(self._end_of(rank), _MEMORY_HINT)
            *texts, rank.rest = (rank.rest + came).split(b"\n")
            for text in texts:
                self._understand(rank, from_rank.decode(text), found)
        return found

    def _understand(self, rank: _Rank, message: Any, found: dict[int, RankAnswer]) -> None:
        rank.heard_at = time.monotonic()
        if isinstance(message, Failure):
            raise GiveUp(message.kind, f"{self._name(rank.number)}: {message.message}", message.hint)
        if isinstance(message, Joined | ShareDone | NoRoom):
            found[rank.number] = message
        elif isinstance(message, Progress):
            rank.last = message
        self._channel.beat()

    def _post(self, rank: _Rank, message: msgspec.Struct) -> None:
        with contextlib.suppress(ConnectionError):  # who listens next learns how it ended
            rank.line.sendall(encode(message))

    # --- the end of a rank ---

    def _name(self, number: int) -> str:
        return f"rank {number} of {self.processes} processes"

    def _end_of(self, rank: _Rank) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            rank.process.wait(_END_SECONDS)
        code, name = rank.process.returncode, self._name(rank.number)
        if code is None:
            return f"{name} closed its socket and went on running"
        if code == -signal.SIGKILL:
            return f"{name} was killed by SIGKILL; the kernel may have run out of memory"
        if code < 0:
            return f"{name} was killed by {signal.Signals(-code).name}"
        return f"{name} ended with exit status {code}"

    def _lost(self, why: str) -> GiveUp:
        """Why a tensor did not come: the rank that ended, if one did."""
        deadline = time.monotonic() + _END_SECONDS
        try:
            while time.monotonic() < deadline:
                self._hear(_POLL_SECONDS)
        except GiveUp as found:
            return found
        return RankLost(f"the ranks lost each other: {why.partition(chr(10))[0]}", _SILENCE_HINT)


@contextlib.contextmanager
def working_team(
    size: TeamSize, job: Job, loaded: Loaded, references: dict[str, torch.Tensor], channel: Channel
) -> Iterator[RankTeam | None]:
    """In this context the other ranks run; on the CPU all share its threads. None: there is one process.

    Raises:
        GiveUp: they cannot be started.
        Stopped: SIGTERM came.
    """
    if size.processes == 1:
        yield None
        return
    collective.refuse_impossible(loaded.device, size.processes)
    work, threads = Path(job.staging) / "work", torch.get_num_threads()
    files = read, store = work / "references.safetensors", work / f"ranks.{os.getpid()}"
    if loaded.device.torch_device.type == "cpu":
        torch.set_num_threads(max(1, threads // size.processes))
    setup = RankSetup(
        processes=size.processes,
        dtype="bfloat16" if loaded.device.dtype == torch.bfloat16 else "float32",
        base_directory=str(loaded.base_directory),
        quantization=job.quantization,
        strategy=job.strategy,
        seed=job.seed,
        threads=torch.get_num_threads(),
        store=str(store),
        references=str(read),
        silence_seconds=size.silence_seconds,
    )
    team = RankTeam(size, channel, setup)
    try:
        save_file({name: tensor.cpu().contiguous() for name, tensor in references.items()}, read)
        team.start(loaded.device, collective.trained(loaded.model))
        channel.notice("gradients_shared", f"{size.processes} processes; memory and energy are those of rank 0")
        yield team
    finally:
        team.close()
        torch.set_num_threads(threads)
        for file in files:
            file.unlink(missing_ok=True)
