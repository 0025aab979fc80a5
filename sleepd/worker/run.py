"""One cycle from job to report: load, measure, train, save, read back, measure again.

Rules
-----
0. A job with a foreign adapter trains nothing: its weights take the place of trained ones. They are saved as trained
   ones are, so that nothing of the sender's configuration is used, and all else is the same.
1. What is reported of the candidate was measured on the files that the daemon commits: the adapter is saved and read
   back before it is measured.
2. Before and after are compared on the same tokens. From the first step on, where memory runs out, what is trained may
   become shorter; what is measured may not.
3. What chooses the candidate does not judge it: the experiences that stop the training, and the prompts by which the
   adapter is scaled down to the drift budget, are in no figure. It is scaled before it is saved
   (``training.best_weights``).
4. Nothing is written outside the staging directory, except what any cycle may use again: the base's copy, its
   fingerprints, and its answers to the reference prompts (``models/``).
5. A cycle ends in one way: a report is returned, or an exception says why there is none (``failure``).

Theory
------
Losses are nats per supervised token (``evaluation.loss_evaluator``), the drift is KL(base || adapted) over the base's
own answers (``model.losses``), the noise floor is the root mean square of reading the same experiences in other batches
(``loss_evaluator.noise_floor``). They are measured with the base, the parent and the candidate in one process, so that
the three differ in nothing but the adapter. The daemon decides on them (``policy.judging.promotion``). Here it is
decided only when to stop (``training.early_stopping``), and whether the figures are numbers at all.

The order of writes, and why
----------------------------
1. ``models/``: each file is written beside, synced and renamed. A crash leaves the file from before, or none. Then it
   is made again, which costs time alone.
2. ``work/resume.safetensors``: before the first step, every ``resume_point_seconds``, at the end of training, and when
   SIGTERM comes. Written beside, synced, renamed. A crash leaves the last one whole, so that at most that time is
   trained again. It holds what was measured before training too: going on does not measure that on another model. A
   cycle that moves from a full GPU to the CPU removes it and begins again.
3. ``adapter_model.safetensors``, then ``adapter_config.json``, each synced, then the directory. After a crash here half
   an adapter may stand in the staging directory. It counts for nothing, because only a report makes the daemon look at
   it; the resume point of the end of training leads back to this line.
4. ``fingerprint.json``: written beside, synced, renamed. A crash leads back to 2.
5. The report, on the socket, after the adapter was measured: whoever reads it finds all that it speaks of on disk. The
   daemon then commits the staging directory by a rename (``cycles.running.commit``), and the resume point goes with
   ``work/``.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import msgspec
import torch
from transformers.utils import logging as transformers_logging

from sleepd.protocol.job import RESUME_POINT, Job, Report, TrainingCheck, TrainingExample

from .channel import Channel
from .code_fingerprint import code_fingerprint
from .data.examples import Encoded, encode_examples
from .evaluation import fingerprint, loss_evaluator
from .evaluation.loss_evaluator import LossEvaluator
from .failure import GiveUp
from .measure import Measurer
from .model.adapted_layers import adapted_norm, expert_counts
from .model.adapter import adapter_tensors, put_weights, restart_adapter, save_adapter, shape, use_saved_adapter
from .model.device import Device, room_of
from .model.gpu_energy import EnergyCounter
from .model.inspect_base import most_positions
from .model.loading import Loaded, load
from .model.losses import Reference
from .model.memory.memory_estimate import need_of, needed_bytes
from .model.memory.out_of_memory import MemoryLimits, free_memory, is_out_of_memory, with_room
from .model.memory.peak_memory import Peak, peak_memory
from .model.memory.recompute import recompute_layers
from .model.reference_tensors import reference_tensors
from .process.layer_heartbeat import beat_at_each_layer
from .progress import Phases
from .report import Before, EncodedExamples, Finished, Proof, Setting, SplitExamples, make_report
from .resume_point import Position, ResumePoint, ResumePoints, read_resume_point, refuse_other
from .training.adapter_weights import AdapterWeights
from .training.batches import Batches, TrainingSet
from .training.best_weights import BestWeights
from .training.early_stopping import EarlyStopping, divide_holdout, report_what_was_kept
from .training.heartbeat import TrainingHeartbeat
from .training.outcome import Training
from .training.ranks.rank_messages import ALONE, TeamSize
from .training.ranks.rank_team import RankTeam, working_team
from .training.thinned_prompts import thinned
from .training.train import Trainer


def run(job: Job, examples: list[TrainingExample], channel: Channel, size: TeamSize = ALONE) -> Report:
    """Train and measure; the adapter stands in ``job.staging`` when this returns. ``size``: the processes that train.

    Raises:
        GiveUp: the cycle cannot go on.
        Stopped: SIGTERM came.
        DaemonGone: the daemon ended.
    """
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    try:
        return _run_on(job, examples, channel, size)
    except GiveUp as error:
        if error.kind != "out_of_memory" or job.device != "auto" or not torch.cuda.is_available():
            raise
        reason = error.message
    # Outside the handler, whose traceback would keep the failed attempt's tensors alive.
    free_memory()
    channel.notice("moved_to_cpu", f"{reason}; the cycle begins again on the CPU, which is slower", warning=True)
    (Path(job.staging) / RESUME_POINT).unlink(missing_ok=True)
    return _run_on(msgspec.structs.replace(job, device="cpu"), examples, channel, size)


def _run_on(job: Job, examples: list[TrainingExample], channel: Channel, size: TeamSize) -> Report:
    try:
        return _Cycle(job, examples, channel, size).run()
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        # Where no step back helps: while the model itself is loaded, or while it replies to a single prompt.
        hint = "free memory on the device, choose a smaller base, or set device to cpu"
        raise GiveUp("out_of_memory", f"out of memory: {str(error).partition(chr(10))[0]}", hint) from error


class _Cycle:
    _evaluator: LossEvaluator
    """Of the loaded base."""
    _energy: EnergyCounter

    def __init__(self, job: Job, examples: list[TrainingExample], channel: Channel, size: TeamSize) -> None:
        self._job = job
        self._size = size
        self._channel = channel
        held_out = [example for example in examples if example.role == "holdout"]
        judging, stopping = (held_out, []) if job.foreign else divide_holdout(held_out)
        to_train = [example for example in examples if example.role != "holdout"]
        self._examples = SplitExamples(to_train=to_train, to_hold_out=judging, to_stop=stopping)
        self._phases = Phases(channel)
        self._earlier_peak = Peak()
        self._earlier_energy: float | None = 0.0
        self._limits = MemoryLimits(job.strategy.micro_batch_tokens, job.strategy.max_tokens, channel)

    def run(self) -> Report:
        phases = self._phases
        with phases.enter("loading"), self._channel.loading():
            loaded = load(self._job, self._channel)
            point = self._resume_point(loaded)
        self._energy = EnergyCounter(loaded.device.torch_device, self._earlier_energy)
        beat_at_each_layer(loaded.model, self._channel.beat)
        self._tell_of_the_job()
        phases.device = loaded.device.description
        self._limits.keep_within(most_positions(loaded.model.config))
        self._limits.fill(loaded.device.torch_device)
        recompute_layers(loaded.model, lambda: self._limits.is_recomputing)
        room = room_of(loaded.device) // self._sharing(loaded.device)
        self._limits.plan(partial(needed_bytes, need_of(loaded.model, loaded.device)), room)
        measurer = Measurer(self._job, self._examples, loaded, self._limits, phases, self._channel)
        self._evaluator = measurer.evaluator
        measured = measurer.before() if point is None else self._measured_before(measurer, point)
        encoded, before, references = measured
        with phases.enter("training"):
            initial = adapter_tensors(loaded.model)
            if self._job.foreign:
                put_weights(loaded.model, Path(self._job.foreign), self._job.strategy, "the foreign adapter")
            training = Training() if self._job.foreign else self._train(loaded, encoded, before, references, point)
        with phases.enter("saving"):
            checks = [self._changed(loaded, initial), self._save(loaded, encoded)]
            if not self._job.foreign:
                checks.insert(0, loss_evaluator.supervised_check(training.supervised_tokens))
        with phases.enter("evaluating"):
            after = measurer.after(encoded, before, references)
        self._write_fingerprint(loaded, encoded)
        losses = [*before.base.values(), *before.parent.values(), *after.losses.values()]
        checks.append(loss_evaluator.require_finite([one.total for one in losses] + training.epoch_losses))
        proof = Proof(checks, shape(adapter_tensors(loaded.model)))
        setting = self._setting(loaded)
        return make_report(Finished(self._job, self._examples, setting, encoded, before, training, after, proof))

    def _sharing(self, device: Device) -> int:
        """How many ranks share the device's memory: on a CPU all, of the GPUs each has one."""
        return self._size.processes if device.torch_device.type == "cpu" and not self._job.foreign else 1

    def _setting(self, loaded: Loaded) -> Setting:
        return Setting(
            fingerprint=loaded.fingerprint,
            device=loaded.device,
            chat=loaded.contract,
            seconds=self._phases.seconds,
            notices=self._channel.notices,
            peak=self._peak(loaded),
            energy_joules=self._energy.joules(),
        )

    def _tell_of_the_job(self) -> None:
        """What the daemon did to the examples."""
        if self._job.masked:
            self._channel.notice("personal_data_masked", self._job.masked)
        if self._job.superseded:
            self._channel.notice("replies_superseded", self._job.superseded)
        if self._job.unreplayed:
            self._channel.notice("replay_limited", self._job.unreplayed)

    # Going on after a break

    def _resume_point(self, loaded: Loaded) -> ResumePoint | None:
        """Where an earlier worker was interrupted; None: nowhere, the cycle begins."""
        try:
            point = read_resume_point(self._resume_path, loaded.device.torch_device)
        except ValueError as error:
            self._channel.notice("resume_point_damaged", f"{error}; the cycle starts again from its beginning")
            return None
        if point is not None:
            here = {"code": code_fingerprint(), "base": loaded.fingerprint, "device": loaded.device.kind}
            refuse_other(point.position, **here)
            self._phases.seconds = dict(point.position.seconds)
            self._earlier_peak = point.position.peak
            self._earlier_energy = point.position.energy_joules
            self._channel.notices += point.position.notices
            self._channel.notice("cycle_resumed", f"it resumes after step {point.position.training.steps}")
        return point

    @property
    def _resume_path(self) -> Path:
        return Path(self._job.staging) / RESUME_POINT

    def _measured_before(
        self, measurer: Measurer, point: ResumePoint
    ) -> tuple[EncodedExamples, Before, dict[str, Reference]]:
        """What the interrupted worker had measured."""
        position = point.position
        self._limits.max_tokens = position.measured_max_tokens
        references = point.references()
        with self._phases.enter("preparing"):
            encoded = measurer.encode().answered_in(references)
        self._limits.max_tokens, self._limits.micro_batch_tokens = position.max_tokens, position.micro_batch_tokens
        self._limits.is_recomputing = position.is_recomputing
        measurer.evaluator.packed = position.is_packed
        measurer.plan(encoded, steps_done=position.training.steps)
        return encoded, position.before, references

    # Training and saving

    def _train(
        self,
        loaded: Loaded,
        encoded: EncodedExamples,
        before: Before,
        references: dict[str, Reference],
        point: ResumePoint | None,
    ) -> Training:
        self._evaluator.may_shorten = False
        if self._job.parent and self._job.strategy.lineage == "retrain":
            restart_adapter(loaded.model, self._job.seed)
        with self._team(loaded, encoded, references) as team:
            trainer = self._trainer(loaded, encoded, references, team)
            if point is not None:
                trainer.restore(point.tensors, point.position.training)

            def state() -> tuple[Position, dict[str, torch.Tensor]]:
                position = self._position(loaded, encoded, before, trainer.done)
                return position, trainer.state() | reference_tensors(references)

            points = ResumePoints(self._resume_path, self._job.resume_point_seconds, state, self._channel)
            with points:
                training = trainer.run(points.after_step)
        report_what_was_kept(training.checks, training.scaled_down, self._drift_budget, self._channel)
        return training

    def _team(
        self, loaded: Loaded, encoded: EncodedExamples, references: dict[str, Reference]
    ) -> AbstractContextManager[RankTeam | None]:
        given = {one.id: references[one.id] for one in encoded.reference_examples}
        return working_team(self._size, self._job, loaded, reference_tensors(given), self._channel)

    def _trainer(
        self, loaded: Loaded, encoded: EncodedExamples, references: dict[str, Reference], team: RankTeam | None
    ) -> Trainer:
        def encode(max_tokens: int) -> list[Encoded]:
            if max_tokens == encoded.max_tokens:
                return encoded.trained
            return encode_examples(loaded.chat, self._examples.to_train, max_tokens, self._channel)

        strategy = self._job.strategy
        weights = AdapterWeights(loaded.model, loaded.device, strategy, self._job.seed)
        prompts = thinned(loaded.chat, self._examples.to_train, encoded.trained, strategy, self._channel.beat)
        given = TrainingSet(encoded.trained, encode, encoded.reference_examples, references, prompts)
        batches = Batches(given, self._limits, strategy, packed=self._evaluator.packed)
        heartbeat = TrainingHeartbeat(self._channel, self._phases.pace, loaded.device.description)
        evaluator = LossEvaluator(loaded.model, loaded.device, self._limits, heartbeat.checked)
        evaluator.packed, evaluator.may_shorten = self._evaluator.packed, False
        stopping = EarlyStopping(evaluator, encoded.monitor, references, encoded.stopping, self._drift_budget)
        return Trainer(strategy, self._job.seed, weights, batches, heartbeat, BestWeights(weights, stopping), team)

    @property
    def _drift_budget(self) -> float:
        budget = self._job.strategy.drift_budget
        return math.inf if budget is None else budget

    def _position(self, loaded: Loaded, encoded: EncodedExamples, before: Before, done: Training) -> Position:
        return Position(
            code=code_fingerprint(),
            base=loaded.fingerprint,
            device=loaded.device.kind,
            measured_max_tokens=encoded.max_tokens,
            max_tokens=self._limits.max_tokens,
            micro_batch_tokens=self._limits.micro_batch_tokens,
            is_recomputing=self._limits.is_recomputing,
            is_packed=self._evaluator.packed,
            before=before,
            training=done,
            notices=self._channel.notices,
            seconds=self._phases.spent(),
            peak=self._peak(loaded),
            energy_joules=self._energy.joules(),
        )

    def _peak(self, loaded: Loaded) -> Peak:
        return peak_memory(loaded.device).with_earlier(self._earlier_peak)

    def _changed(self, loaded: Loaded, initial: dict[str, torch.Tensor]) -> TrainingCheck:
        strategy = self._job.strategy
        model = loaded.model
        scale = strategy.alpha / strategy.rank
        return loss_evaluator.changed_check(
            initial, adapter_tensors(model), with_room(partial(adapted_norm, model)), scale, expert_counts(model)
        )

    def _save(self, loaded: Loaded, encoded: EncodedExamples) -> TrainingCheck:
        """Save, and go on with what was read back: all that follows is measured on the adapter on disk."""
        self._phases.report()
        probe = min([*encoded.trained, *encoded.held_out], key=lambda one: len(one.ids))
        trained, weights = self._evaluator.logits(probe), adapter_tensors(loaded.model)
        staging = Path(self._job.staging)
        save_adapter(loaded.model, staging, loaded.base_directory)
        with_room(partial(use_saved_adapter, loaded.model, staging))
        found = self._evaluator.logits(probe)
        is_exact = loss_evaluator.is_same(weights, adapter_tensors(loaded.model))
        return loss_evaluator.reload_check(trained, found, loaded.device, is_exact=is_exact)

    def _write_fingerprint(self, loaded: Loaded, encoded: EncodedExamples) -> None:
        """How the adapter is recognised where it runs. Without one the cycle is as good, but cannot be proved there."""
        known = {one.id for one in encoded.trained}
        trained = [one for one in self._examples.to_train if one.id in known] or [*self._examples.to_hold_out]
        trained.sort(key=lambda one: (one.role != "train", one.order, one.id))
        with self._phases.enter("fingerprinting"):
            try:
                fingerprint.write_fingerprint(self._job, loaded, trained, self._phases.generated)
            except fingerprint.NoFingerprint as error:
                text = f"no engine can be shown to run this adapter: {error}"
                self._channel.notice("fingerprint_not_written", text, warning=True)
