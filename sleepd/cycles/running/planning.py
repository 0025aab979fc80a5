"""From an order to a lineup: which strategy, which parent, which experiences."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import NamedTuple

import msgspec

from sleepd.buffer.columns import BufferColumns
from sleepd.buffer.experience import Experience, content_hash_of, group_of, id_hash, prompt_hash
from sleepd.buffer.masking import masked_example
from sleepd.buffer.reading.experience_buffer import ExperienceBuffer
from sleepd.buffer.reading.view import View
from sleepd.buffer.reply_digest import answer_of
from sleepd.config.schema import Config
from sleepd.config.strategies import find_strategy
from sleepd.cycles.buffer_summary import Intake
from sleepd.cycles.history import PastCycles
from sleepd.errors import NothingToDo
from sleepd.log import get_logger
from sleepd.policy.judging.recall import read_questions
from sleepd.policy.selecting.context_cut import without_held_out
from sleepd.policy.selecting.holdout import keyed_rank
from sleepd.policy.selecting.replay_budget import ReplayBudget, beyond_budget, left_out_text, lost_ids
from sleepd.policy.selecting.selection import (
    FREQUENT_FROM,
    HashSet,
    Known,
    Selection,
    SelectionRule,
    held_out_keys,
    sampling_shares,
    select,
)
from sleepd.policy.selecting.superseded import corrected, divided, superseded, superseded_text
from sleepd.policy.timing.triggers import Policy, Thresholds
from sleepd.protocol.evidence import RecallQuestion
from sleepd.protocol.job import Job, Role
from sleepd.protocol.strategy import Strategy
from sleepd.registry.compatibility import Fit, other_shape
from sleepd.registry.predecessor import Predecessor, predecessor
from sleepd.registry.strategy_choice import strategy_in_force
from sleepd.store.checkpoint_documents import seen_by
from sleepd.store.checkpoints import Checkpoints, Manifest, verify_usable
from sleepd.store.reservoir import read_reservoir
from sleepd.store.sqlite.ledger import Ledger
from sleepd.text.personal_data import counts_text, masked

from .staging import Lineup


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What a cycle is asked for with. What is not given is as configured."""

    force: bool = False
    """Also if the three conditions do not hold, and during a cooldown."""
    epochs: int | None = None
    learning_rate: float | None = None
    max_experiences: int | None = None
    strategy: str | None = None
    strategies: tuple[str, ...] = ()
    """Two, against each other; then ``strategy`` is None. Empty: one cycle."""
    thresholds: Thresholds = Thresholds()

    @property
    def is_explicit(self) -> bool:
        """Whether it asks for a cycle on other terms than the configured ones."""
        given = (self.epochs, self.learning_rate, self.max_experiences, self.strategy)
        return any(value is not None for value in given) or bool(self.strategies)


@dataclass(frozen=True, kw_only=True, slots=True)
class Sources:
    """Where a decision, a plan and a switch of the champion take from what they know."""

    ledger: Ledger
    checkpoints: Checkpoints
    history: PastCycles
    intake: Intake
    fit: Fit


class Taken(NamedTuple):
    """The buffer and what is known of it, taken once: both may be another while the planning waits for a thread."""

    view: View
    known: Known
    gone: Mapping[int, Experience]
    """What the champion's lineage learned and the buffer has no more."""
    budget: ReplayBudget | None = None
    """None: all that is selected is replayed."""


async def line_up(order: Order, config: Config, sources: Sources, *, day: date) -> Lineup:
    """The next cycle, before anything is written.

    ``day`` is what a chat template that writes the date is to write, all through the cycle.

    Raises:
        NotFound: no such strategy.
        ConfigError: the operator's questions cannot be read.
        NothingToDo: what was to be trained has left the buffer.
        BufferUnreadable: the experiences cannot be read.
        CheckpointInvalid: the champion is damaged.
    """
    ledger, checkpoints, intake = sources.ledger, sources.checkpoints, sources.intake
    name = order.strategy or strategy_in_force(config, ledger)
    strategy = find_strategy(name, epochs=order.epochs, learning_rate=order.learning_rate)
    parent = await _parent(checkpoints, strategy, sources.fit.unfit(config.model.base))
    job = await job_for(sources.history.next_cycle(), config, strategy, checkpoints, parent)
    job = msgspec.structs.replace(job, date=day.isoformat())
    known, view = sources.history.known(), intake.view
    gone = _gone(Path(job.parent), view, known, intake) if job.parent else {}
    taken = Taken(view, known, gone, _replay_budget(config, job, ledger))
    selection = await select_for(order, config, job, taken, intake)
    lineup = await fetch(selection, job, taken, intake.buffer, is_forced=order.force)
    lineup = await finished_lineup(lineup, config, known.secret)
    before = predecessor(parent.cycle, ledger, checkpoints) if parent else None
    return lineup if before is None else _with_comparison(lineup, before, ledger, checkpoints)


async def finished_lineup(lineup: Lineup, config: Config, secret: bytes) -> Lineup:
    """With the order of measuring, and without personal data where these are masked."""
    lineup = msgspec.structs.replace(lineup, ranks=_ranks(lineup.experiences, secret))
    return await asyncio.to_thread(_masked, lineup) if config.quarantine.personal_data == "mask" else lineup


async def select_for(order: Order, config: Config, job: Job, taken: Taken, intake: Intake) -> Selection:
    """What the cycle trains, replays and is measured on."""
    view, known, gone, _ = taken
    if not job.parent:
        known = msgspec.structs.replace(known, learned=HashSet())
    min_salience = Policy.of(config, order.thresholds).min_salience
    strategy = job.strategy
    rule = SelectionRule(
        min_salience=min_salience,
        max_experiences=order.max_experiences or config.training.max_experiences,
        max_holdout=config.training.max_holdout,
        replay_share=math.inf if strategy.lineage == "retrain" else strategy.replay_share,
        min_replayed=strategy.min_replayed,
        seed=job.seed,
    )
    excluded = await intake.quarantine.excluded(view, known, min_salience)
    return select(view.followed_by(gone.values()), known=known, rule=rule, excluded=excluded)


def _gone(champion: Path, view: View, known: Known, intake: Intake) -> dict[int, Experience]:
    """By its key, what the champion's lineage learned and the buffer has no more.

    What is in quarantine stays there, and what was rated down is not repeated.

    Raises:
        CheckpointInvalid: the champion's reservoir is damaged.
    """
    present = HashSet(view.keys)
    kept = {id_hash(one.id): one for one in read_reservoir(champion)}
    gone = {key: one for key, one in kept.items() if key not in present and key in known.learned}
    columns = BufferColumns().followed_by(gone.values())
    causes = intake.quarantine.isolation.causes(columns, learned=known.learned, min_salience=0.0)
    # They were screened when they were trained, and the screening keeps no more than the buffer holds.
    excluded = {key for key, cause in causes if cause.why != "unscreened"} | intake.rated_down.keys
    return {key: one for key, one in gone.items() if key not in excluded}


def _replay_budget(config: Config, job: Job, ledger: Ledger) -> ReplayBudget | None:
    """None: the strategy's ``replay_share`` limits what is replayed."""
    if job.strategy.lineage == "continue":
        return None
    before = ledger.report(job.parent_cycle) if job.parent_cycle is not None else None
    return ReplayBudget(
        tokens=config.training.replay_tokens,
        longest=job.strategy.max_tokens,
        trained_before=before.trained + before.replayed if before else 0,
        lost=lost_ids(before.evidence.repeated) if before else frozenset(),
    )


def _with_comparison(lineup: Lineup, before: Predecessor, ledger: Ledger, checkpoints: Checkpoints) -> Lineup:
    """Champion and predecessor are compared first, on those experiences that came after the champion was planned."""
    assert lineup.parent is not None
    seen = HashSet(seen_by(lineup.parent, ledger, checkpoints))
    trained = ledger.trained_groups(cycle for cycle in (lineup.parent, before.cycle) if cycle is not None)
    later = [
        experience.id
        for experience, role in lineup.experiences
        if role != "replay"
        and id_hash(experience.id) not in seen
        and content_hash_of(experience) not in trained  # a copy under a new id
    ]
    verdict = ledger.verdict(lineup.parent)
    job = msgspec.structs.replace(
        lineup.job,
        predecessor=before.directory,
        predecessor_cycle=before.cycle,
        later=later,
        later_margin=verdict.learned.margin if verdict and verdict.learned else 0.0,
        later_is_capped=bool(verdict and verdict.learned and verdict.learned.unseen),
    )
    return msgspec.structs.replace(lineup, job=job)


async def _parent(checkpoints: Checkpoints, strategy: Strategy, unfit: str) -> Manifest | None:
    """The champion, where it can be continued; None: the cycle starts from the base."""
    champion, manifest = checkpoints.champion(), None
    if champion is not None:
        # All of it, not only its manifest: it may have been damaged since the daemon's start.
        manifest = await asyncio.to_thread(verify_usable, checkpoints.promoted_path(champion))
    reason = unfit or other_shape(manifest, strategy)
    if reason:
        get_logger().warning("lineage_started", text=f"{reason}: this cycle starts again from the base")
    return None if reason else manifest


def as_run(strategy: Strategy, *, continues: bool) -> Strategy:
    """With the learning rate of a cycle that continues a champion, where it does."""
    if not continues or strategy.lineage != "continue":
        return strategy
    rate = strategy.learning_rate * strategy.continued_rate_share
    return msgspec.structs.replace(strategy, learning_rate=rate)


async def job_for(
    cycle: int, config: Config, strategy: Strategy, checkpoints: Checkpoints, parent: Manifest | None
) -> Job:
    """The job of a cycle with this strategy that continues ``parent``, or starts from the base."""
    strategy = as_run(strategy, continues=parent is not None)
    return Job(
        cycle=cycle,
        base=config.model.base,
        models_directory=str(checkpoints.directory / "models"),
        cache_directory=config.model.cache_directory,
        quantization=config.model.quantization,
        expected_base=parent.base_fingerprint if parent else "",
        parent=str(checkpoints.promoted_path(parent.cycle)) if parent else "",
        parent_cycle=parent.cycle if parent else None,
        staging=str(checkpoints.staging_path(cycle)),
        system_prompt=config.model.system_prompt,
        measures_surprise=config.buffer.salience != "given",
        thoughts=config.training.thoughts,
        strategy=strategy,
        seed=config.training.seed + cycle,
        questions=await asyncio.to_thread(read_questions, config.evaluation.probes),
        evaluation_command=config.evaluation.command,
        evaluation_seconds=config.evaluation.seconds,
        device=config.worker.torch_device,
        threads=config.worker.threads,
        reservoir=config.training.reservoir,
        resume_point_seconds=config.worker.resume_point_minutes * 60,
        confidence=config.promotion.confidence,
    )


async def fetch(selection: Selection, job: Job, taken: Taken, buffer: ExperienceBuffer, *, is_forced: bool) -> Lineup:
    """The text of the selected experiences; one that vanished or was changed meanwhile is left out: nobody screened
    its new text.
    """
    view, known, gone, budget = taken
    role_of: dict[int, Role] = dict.fromkeys(selection.train, "train")
    role_of |= dict.fromkeys(selection.replay, "replay")
    role_of |= dict.fromkeys(selection.holdout, "holdout")
    hash_of = {key: group for key, group in zip(view.keys, view.groups, strict=True) if key in role_of}
    texts, held_out = await buffer.extract_with_answers(
        role_of.keys() - gone.keys(), answers_of=held_out_keys(view, known, selection.train)
    )
    salience_of = {key: salience for key, _, salience in view.rows() if key in role_of}
    found = [
        (msgspec.structs.replace(experience, salience=salience_of[key]), role_of[key])
        for experience in texts
        if hash_of[key := id_hash(experience.id)] == group_of(experience)
    ]
    # What has left the buffer is older than all that is in it.
    found = [*((experience, role_of[key]) for key, experience in gone.items() if key in role_of), *found]
    found = corrected(found) if job.foreign else divided(found, known.splits, known.secret)
    found = _without_held_out(found, {*held_out, *(answer_of(one) for one, role in found if role == "holdout")})
    old = superseded(found)
    if old:
        found = _without(found, {each.older for each in old})
        job = msgspec.structs.replace(job, superseded=superseded_text(old))
    if budget is not None:
        found, text = _within_budget(found, budget, selection.unreplayed)
        job = msgspec.structs.replace(job, unreplayed=text)
    if not any(role == ("holdout" if job.foreign else "train") for _, role in found):
        text = "the experiences for this cycle have just left the buffer, or newer ones contradict them"
        raise NothingToDo(text, hint="sleepctl buffer")
    shares = _shares(found) if len(view.keys) >= FREQUENT_FROM else {}
    return Lineup(
        job=job, parent=job.parent_cycle, is_forced=is_forced, experiences=found, seen=view.keys, sampling_shares=shares
    )


def _without_held_out(
    found: Sequence[tuple[Experience, Role]], held_out: Collection[int]
) -> list[tuple[Experience, Role]]:
    """What is trained and replayed without the replies that are held out in its contexts; see ``context_cut``."""
    cut = [(one if role == "holdout" else without_held_out(one, held_out), role) for one, role in found]
    dropped = sum(one is None for one, _ in cut)
    if dropped:
        text = f"{dropped} are not trained: held-out replies stand in what they answer"
        get_logger().warning("experiences_left_out", count=dropped, text=text)
    return [(one, role) for one, role in cut if one is not None]


def _without(found: Sequence[tuple[Experience, Role]], left_out: Collection[str]) -> list[tuple[Experience, Role]]:
    return [(one, role) for one, role in found if one.id not in left_out]


def _within_budget(
    found: Sequence[tuple[Experience, Role]], budget: ReplayBudget, unreplayed: int
) -> tuple[list[tuple[Experience, Role]], str]:
    """What the budget has room for, and in words how much it has none for, beside so many that were not selected."""
    left_out = beyond_budget(found, budget)
    kept = _without(found, left_out)
    count = unreplayed + len(left_out)
    replayed = sum(role == "replay" for _, role in kept)
    return kept, left_out_text(count, replayed, budget.tokens) if count else ""


def _ranks(found: Sequence[tuple[Experience, Role]], secret: bytes) -> dict[str, int]:
    return {one.id: keyed_rank(content_hash_of(one), secret) for one, _ in found}


def _masked(lineup: Lineup) -> Lineup:
    """With placeholders for personal data, in what is trained, what is held out and what is asked."""
    found, count, experiences = Counter[str](), 0, []
    for experience, role in lineup.experiences:
        one, here = masked_example(experience)
        found, count = found + here, count + bool(here)
        experiences.append((one, role))
    questions = [
        RecallQuestion(question=masked(each.question)[0], expected=[masked(one)[0] for one in each.expected])
        for each in lineup.job.questions
    ]
    total = len(experiences)
    text = f"personal data masked in {count} of {total} experiences: {counts_text(found)}" if count else ""
    job = msgspec.structs.replace(lineup.job, questions=questions, masked=text)
    return msgspec.structs.replace(lineup, job=job, experiences=experiences)


def _shares(found: Sequence[tuple[Experience, Role]]) -> dict[str, float]:
    """Of the experiences of too frequent prompts, by id, the share of epochs that they are in."""
    trained = [experience for experience, role in found if role != "holdout"]
    shares = sampling_shares([prompt_hash(experience.asked) for experience in trained])
    return {experience.id: share for experience, share in zip(trained, shares, strict=True) if share < 1}
