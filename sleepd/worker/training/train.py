"""The training loop.

Rules
-----
1. The loop decides what is trained when. The weights (``adapter_weights``), the rows (``batches``), the rates
   (``schedule``), the gradients (``step_gradients``), early stopping (``best_weights``) and the heartbeat have modules
   of their own. None knows the loop.
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
2. Rows are made and go forward and backward one by one (``step_gradients``); after each the heartbeat is sent, which is
   where SIGTERM is noticed (``Stopped``). Nothing but gradients has changed so far. A process that is lost ends the
   training here (``RankLost``), with the weights of the step before.
3. Out of memory: gradients are dropped, the limits shrink, and the step begins again at 2. Smaller rows draw other
   dropout masks, and nothing else differs.
4. Loss and norm must be finite, else the training gives up with the weights of the step before.
5. The optimizer changes the weights, and the figures of the step are added to ``done``. On a GPU it takes no memory of
   its own, so it cannot run out in the middle of the weights.
6. ``after_step`` may write a resume point: it holds the weights and the figures of the same step.

After the last step the weights of the validation check that early stopping chose are put back (``best_weights``), and
their effect is scaled down where the drift on the monitor prompts is over the strategy's drift budget.
"""

from __future__ import annotations

import math
import time
from bisect import bisect_right
from collections.abc import Callable, Sequence

import torch

from sleepd.protocol.strategy import Strategy
from sleepd.worker.failure import NOT_FINITE_HINT, GiveUp

from .adapter_weights import AdapterWeights
from .batches import Batches
from .best_weights import BestWeights
from .heartbeat import TrainingHeartbeat
from .outcome import Training
from .ranks.rank_team import RankTeam
from .schedule import epoch_ends, epoch_order, rate_share, step_size
from .step_gradients import Gathered, StepGradients


class Trainer:
    """Trains the weights on the batches.

    Args:
        strategy: of this cycle.
        seed: of the order of the experiences.
        weights: those that change.
        batches: what they are trained on.
        heartbeat: called at every row and step.
        best: which weights are kept; None: those after the last step.
        team: the other processes that compute gradients; None: there are none.
    """

    def __init__(
        self,
        strategy: Strategy,
        seed: int,
        weights: AdapterWeights,
        batches: Batches,
        heartbeat: TrainingHeartbeat,
        best: BestWeights | None = None,
        team: RankTeam | None = None,
    ) -> None:
        self._strategy = strategy
        self._seed = seed
        self._weights = weights
        self._batches = batches
        self._heartbeat = heartbeat
        self._best = best
        self._gradients = StepGradients(strategy, weights, batches, heartbeat, team)
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
            started = time.monotonic()
            found = self._gradients.gather(ids, self.done.steps)
            if isinstance(found, Gathered):
                break
            self._batches.shrink(found.rows, found.where)
        self._require_finite("loss", found.total)
        self._require_finite("norm of the gradient", found.norm)
        self._weights.step()
        self.done.steps += 1
        self.done.seconds += time.monotonic() - started
        self.done.tokens += found.tokens
        self.done.supervised_tokens += found.supervised
        self.done.epoch_total += found.total
        self.done.epoch_tokens += found.supervised
        return found.total / found.supervised if found.supervised else None

    def _require_finite(self, what: str, figure: float) -> None:
        """A weight that is not a number makes all of the model so: such a step is not taken."""
        if not math.isfinite(figure):
            message = f"the {what} became {figure} in step {self.done.steps + 1}"
            raise GiveUp("not_finite", message, NOT_FINITE_HINT)
