"""From an order to a lineup: which strategy, which parent, which experiences."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from pathlib import Path

import msgspec

from .buffer import ExperienceBuffer, View
from .checkpoints import Checkpoints, Manifest, verify_usable
from .config import Config
from .cycle_runner import Lineup
from .errors import NothingToDo
from .experience import Experience, experience_key, group_key
from .fit import other_shape
from .history import History
from .job import Job, Role, Strategy
from .log import get_logger
from .protocol import Run
from .reservoir import read_reservoir
from .selection import KeySet, Known, Selection, select
from .strategies import find_strategy
from .triggers import Policy


async def line_up(
    order: Run, config: Config, *, checkpoints: Checkpoints, history: History, buffer: ExperienceBuffer, unfit: str
) -> Lineup:
    """The next cycle, before anything is written. ``unfit`` says why the champion cannot be continued; empty: it can.

    Raises:
        NotFound: no such strategy.
        NothingToDo: what was to be trained has left the buffer.
        BufferUnreadable: the experiences cannot be read.
        CheckpointInvalid: the champion is damaged.
    """
    strategy = find_strategy(
        order.strategy or config.training.strategy, epochs=order.epochs, learning_rate=order.learning_rate
    )
    cycle = history.next_cycle()
    champion = checkpoints.champion()
    manifest = None
    if champion is not None:
        # All of it, not only what it says of itself: it may have been damaged since the daemon's start.
        manifest = await asyncio.to_thread(verify_usable, checkpoints.promoted_path(champion))
    reason = unfit or other_shape(manifest, strategy)
    if reason:
        get_logger().warning("lineage_started", text=f"{reason}: this cycle starts again from the base")
    parent = None if reason else manifest
    known = history.known()
    if parent is None:
        known = Known(seen=known.seen, learned=KeySet(), sides=known.sides)
    job = _job(cycle, config, strategy, checkpoints, parent)
    view = buffer.view
    gone = _gone(Path(job.parent), view, known) if job.parent else {}
    selection = select(
        [*view.keys, *gone],
        [*view.groups, *(group_key(one.prompt, one.response) for one in gone.values())],
        [*view.saliences, *(one.salience for one in gone.values())],
        known=known,
        min_salience=Policy.of(config, order.thresholds).min_salience,
        max_experiences=order.max_experiences or config.training.max_experiences,
        max_holdout=config.training.max_holdout,
        replay_share=math.inf if strategy.lineage == "retrain" else strategy.replay_share,
        min_replayed=strategy.min_replayed,
        seed=job.seed,
    )
    return await _fetch(selection, job, buffer, gone, parent=parent.cycle if parent else None, is_forced=order.force)


def _gone(champion: Path, view: View, known: Known) -> dict[int, Experience]:
    """By its key, what the champion's lineage learned and the buffer has no more.

    Raises:
        CheckpointInvalid: the champion's reservoir is damaged.
    """
    present = KeySet(view.keys)
    kept = {experience_key(one.id): one for one in read_reservoir(champion)}
    return {key: one for key, one in kept.items() if key not in present and key in known.learned}


def _job(cycle: int, config: Config, strategy: Strategy, checkpoints: Checkpoints, parent: Manifest | None) -> Job:
    if parent is not None and strategy.lineage == "continue":
        rate = strategy.learning_rate * strategy.continued_rate_share
        strategy = msgspec.structs.replace(strategy, learning_rate=rate)
    return Job(
        cycle=cycle,
        base=config.model.base,
        models_directory=str(checkpoints.directory / "models"),
        cache_directory=config.model.cache_directory,
        expected_base=parent.base_fingerprint if parent else "",
        parent=str(checkpoints.promoted_path(parent.cycle)) if parent else "",
        staging=str(checkpoints.staging_path(cycle)),
        system_prompt=config.model.system_prompt,
        strategy=strategy,
        seed=config.training.seed + cycle,
        device=config.worker.device,
        threads=config.worker.threads,
        reservoir=config.training.reservoir,
        resume_point_seconds=config.worker.resume_point_minutes * 60,
    )


async def _fetch(
    selection: Selection,
    job: Job,
    buffer: ExperienceBuffer,
    gone: Mapping[int, Experience],
    *,
    parent: int | None,
    is_forced: bool,
) -> Lineup:
    """The text of the selected experiences; one that vanished meanwhile is left out."""
    role_of: dict[int, Role] = dict.fromkeys(selection.train, "train")
    role_of |= dict.fromkeys(selection.replay, "replay")
    role_of |= dict.fromkeys(selection.holdout, "holdout")
    seen = buffer.view.keys
    found = await buffer.extract(role_of.keys() - gone.keys())
    found += [one for key, one in gone.items() if key in role_of]
    experiences = [(experience, role_of[experience_key(experience.id)]) for experience in found]
    if not any(role == "train" for _, role in experiences):
        raise NothingToDo("the experiences to train have just left the buffer", hint="sleepctl buffer")
    return Lineup(job=job, parent=parent, is_forced=is_forced, experiences=experiences, seen=seen)
