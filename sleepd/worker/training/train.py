"""The training loop.

Rules
-----
1. The loop decides what is trained when. The weights (``adapter_weights``), the rows (``batches``), the rates
   (``schedule``), early stopping (``best_weights``) and the heartbeat have modules of their own. None knows the loop.
2. On the CPU one seed and one number of threads give one result, in one go or in two. All that the next step depends
   on is in ``state`` and ``done``: weights, optimizer, random numbers, the weights kept so far, and the figures. On a
   GPU the same is kept and restored, but the kernels of the way back may add in another order, so that the last bits of
   two runs may differ.
3. A step is whole or has not happened. Out of memory, a figure that is not finite, and SIGTERM leave the weights of the
   last whole step, and the figures of it.

Theory
------
Of a step with n supervised tokens in its experiences and m in its reference answers the gradient is that of

    loss = sum over experiences of (w / W) · sum of -log p(token)  +  kl_weight · (1 / m) · sum of KL(base || adapted)

where w is the salience of the experience and W = sum of w · supervised tokens, so that the first sum is a mean over
tokens. Where the strategy does not weigh by salience, or no experience has any, w / W is 1 / n. The second sum is over
the base's own answers to reference prompts, so that what the base could do is kept (learning without forgetting: Li and
Hoiem, 2016; a KL term as in Ouyang et al., 2022, InstructGPT, there towards the supervised model). ``kl_from_base``
says over which tokens it is taken.

The optimizer is AdamW (Loshchilov and Hutter, 2019) with the gradient's norm clipped (Pascanu et al., 2013). The rate
rises linearly and then falls along a cosine to a tenth (Loshchilov and Hutter, 2017, SGDR, without restarts). The
experiences of a step share rows (``data.packing``), which gives the same gradient as one row each: the loss is a sum
over tokens, divided by counts of the whole step and not of a row. So micro-batches of any size give the same step but
for rounding, and memory may halve them in the middle of a training.

What a step does, in order
--------------------------
1. The random state of the last whole step is remembered: a resume point written from here on holds it.
2. Rows are made and go forward and backward one by one; after each the heartbeat is sent, which is where SIGTERM is
   noticed (``Stopped``). Nothing but gradients has changed so far.
3. Out of memory: gradients are dropped, the limits shrink, and the step begins again at 2. Smaller rows draw other
   dropout masks, and nothing else differs.
4. Loss and norm must be finite, else the training gives up with the weights of the step before.
5. The optimizer changes the weights, and the figures of the step are added to ``done``. On a GPU it takes no memory of
   its own, so it cannot run out in the middle of the weights.
6. ``after_step`` may write a resume point: it holds the weights and the figures of the same step.
"""

from __future__ import annotations

import math
import time
from bisect import bisect_right
from collections.abc import Callable, Sequence

import torch

from sleepd.protocol.strategy import Strategy
from sleepd.worker.data.packing import PackedRow
from sleepd.worker.failure import NOT_FINITE_HINT, GiveUp
from sleepd.worker.model.losses import kl_from_base, row_logits, token_losses
from sleepd.worker.model.memory.out_of_memory import is_out_of_memory

from .adapter_weights import AdapterWeights
from .batches import Batches
from .best_weights import BestWeights
from .heartbeat import TrainingHeartbeat
from .outcome import Training
from .schedule import epoch_ends, epoch_order, rate_share, step_size


class Trainer:
    """Trains the weights on the batches.

    Args:
        strategy: of this cycle.
        seed: of the order of the experiences.
        weights: those that change.
        batches: what they are trained on.
        heartbeat: called at every row and step.
        best: which weights are kept; None: those after the last step.
    """

    def __init__(
        self,
        strategy: Strategy,
        seed: int,
        weights: AdapterWeights,
        batches: Batches,
        heartbeat: TrainingHeartbeat,
        best: BestWeights | None = None,
    ) -> None:
        self._strategy = strategy
        self._seed = seed
        self._weights = weights
        self._batches = batches
        self._heartbeat = heartbeat
        self._best = best
        self.done = Training()

    def run(self, after_step: Callable[[], None]) -> Training:
        """All epochs that are left.

        Args:
            after_step: called after each optimizer step.

        Raises:
            Stopped: SIGTERM came; within one micro-batch. ``state`` is then that of the last whole step.
            GiveUp: ``out_of_memory`` or ``not_finite``.
        """
        self._batches.encode()
        experiences = self._batches.experiences
        size = step_size(self._strategy, experiences)
        ends = epoch_ends(self._strategy, experiences, self._seed)
        steps = ends[-1]
        self._heartbeat.begin(self.done, steps=steps, epochs=len(ends))
        while not (self._is_enough(steps) or self.done.steps == steps):
            epoch = bisect_right(ends, self.done.steps)
            first = (self.done.steps - (ends[epoch - 1] if epoch else 0)) * size
            order = epoch_order(self._strategy, experiences, self._seed, epoch)
            rate = rate_share(self.done.steps, steps, self._strategy.warmup_share)
            loss = self._step(order[first : first + size], rate)
            if self.done.steps == ends[epoch]:
                self.done.end_epoch()
            after_step()
            self._heartbeat.stepped(self.done, loss)
        if self.done.epoch_tokens:
            self.done.end_epoch()  # cut short
        self._weights.model.eval()
        if self._best is not None:
            self._best.keep(self.done)
        return self.done

    def state(self) -> dict[str, torch.Tensor]:
        """All that the next step depends on beside ``done``."""
        return self._weights.tensors() | (self._best.tensors() if self._best else {})

    def restore(self, tensors: dict[str, torch.Tensor], done: Training) -> None:
        """Stand where ``state`` and ``done`` were taken; the model and the strategy are the same."""
        self._weights.restore(tensors)
        if self._best is not None:
            self._best.restore(tensors, done)
        self.done = done

    def _is_enough(self, steps: int) -> bool:
        return self._best is not None and self._best.is_enough(self.done, steps)

    def _step(self, ids: Sequence[str], rate: float) -> float | None:
        """One optimizer step, tried again smaller where memory runs out. Its loss, nats a supervised token."""
        self._weights.begin_step(rate)
        while True:
            rows = self._batches.rows(ids, self.done.steps)
            started = time.monotonic()
            try:
                total, supervised = self._accumulate(rows)
                norm = self._weights.clip()
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
            else:
                break
            # Outside the handler, whose traceback would keep the failed attempt's tensors alive.
            self._weights.drop_gradients()
            self._batches.shrink(rows)
        self._require_finite("loss", total)
        self._require_finite("norm of the gradient", norm)
        self._weights.step()
        self.done.steps += 1
        self.done.seconds += time.monotonic() - started
        self.done.tokens += sum(row.tokens for row in rows)
        self.done.supervised_tokens += supervised
        self.done.epoch_total += total
        self.done.epoch_tokens += supervised
        return total / supervised if supervised else None

    def _require_finite(self, what: str, figure: float) -> None:
        """A weight that is not a number makes all of the model so: such a step is not taken."""
        if not math.isfinite(figure):
            message = f"the {what} became {figure} in step {self.done.steps + 1}"
            raise GiveUp("not_finite", message, NOT_FINITE_HINT)

    def _accumulate(self, rows: list[PackedRow]) -> tuple[float, int]:
        """Gradients of one optimizer step, row by row. Sum of the experiences' token losses, and their number."""
        members = [(one, self._batches.reference(one)) for row in rows for one in row.members]
        learned = [one for one, reference in members if reference is None]
        supervised = sum(one.supervised for one in learned)
        reference_tokens = sum(one.supervised for one, reference in members if reference is not None)
        is_weighted = self._strategy.weighs_by_salience
        scale = sum(one.weight * one.supervised for one in learned) if is_weighted else 0.0
        device, losses = self._weights.device, []
        for row in rows:
            loss = torch.zeros((), device=device.torch_device)
            for one, logits, targets in row_logits(self._weights.model, row, device):
                reference = self._batches.reference(one)
                if reference is not None:
                    divergence = kl_from_base(logits, reference).sum()
                    loss = loss + self._strategy.kl_weight * divergence / reference_tokens
                    continue
                token_loss = token_losses(logits, targets).sum()
                losses.append(token_loss.detach())
                # Where salience is not to count, or is nowhere, all tokens weigh alike.
                loss = loss + token_loss * (one.weight / scale if scale > 0 else 1 / supervised)
            loss.backward()  # type: ignore[no-untyped-call]
            self._heartbeat.trained(row.tokens)
        # Read at the end: on a GPU each reading waits for all that was begun.
        return sum(torch.stack(losses).tolist()) if losses else 0.0, supervised
