"""A buffer played back in time order: what each night trains, replays and holds out, and what comes the day after."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from sleepd.buffer.columns import BufferColumns
from sleepd.buffer.experience import Experience, content_hash, content_hash_of, id_hash, parse, prompt_hash
from sleepd.policy.selecting.replay_budget import ReplayBudget, beyond_budget
from sleepd.policy.selecting.selection import FREQUENT_FROM, HashSet, Known, SelectionRule, sampling_shares, select
from sleepd.policy.selecting.superseded import corrected, divided, superseded
from sleepd.protocol.job import Role, TrainingExample
from sleepd.protocol.strategy import Strategy

SESSION = 16
"""Eligible experiences of one day."""
MIN_SALIENCE = 0.6
SECRET = b"bench".ljust(32, b".")
"""Which experiences are held out, the same in every replay."""
ROLES: Final[tuple[Role, ...]] = ("train", "replay", "holdout")
MAX_EXPERIENCES = 500
MAX_HOLDOUT = 64


@dataclass(frozen=True)
class Night:
    """One cycle."""

    number: int
    examples: list[TrainingExample]
    tomorrow: list[TrainingExample]
    """The next session, of which no copy was seen so far."""

    @property
    def to_train(self) -> list[TrainingExample]:
        """New and replayed ones."""
        return [one for one in self.examples if one.role != "holdout"]

    @property
    def new(self) -> list[TrainingExample]:
        """Those that no night trained before."""
        return [one for one in self.examples if one.role == "train"]

    @property
    def replayed(self) -> list[TrainingExample]:
        """Those that a night trained before."""
        return [one for one in self.examples if one.role == "replay"]

    @property
    def held_out(self) -> list[TrainingExample]:
        """What is only measured on."""
        return [one for one in self.examples if one.role == "holdout"]


def read_buffers(paths: Sequence[Path]) -> list[Experience]:
    """The eligible experiences of buffers (JSON arrays), oldest first."""
    records = [record for path in paths for record in json.loads(path.read_bytes())]
    records.sort(key=lambda record: str(record.get("timestamp", "")))
    parsed = [parse(record) for record in records]
    eligible = [one for one in parsed if isinstance(one, Experience) and one.salience >= MIN_SALIENCE]
    return list({one.id: one for one in eligible}.values())


def sessions_of(experiences: Sequence[Experience], size: int = SESSION) -> list[list[Experience]]:
    """Whole sessions; what is left at the end is no whole day."""
    return [list(experiences[at : at + size]) for at in range(0, len(experiences) - size + 1, size)]


def nights(
    sessions: Sequence[Sequence[Experience]],
    strategy: Strategy,
    seed: int,
    *,
    replay_tokens: int,
    holds_out: bool = True,
) -> Iterator[Night]:
    """Each night after which another day follows, as the daemon would line it up; every night is promoted."""
    arrived: list[Experience] = []
    trained_before = 0
    learned: set[int] = set()
    splits: dict[int, bool] = {}
    seen: set[int] = set()
    for number, session in enumerate(sessions, 1):
        arrived += session
        columns = BufferColumns().followed_by(arrived)
        seen |= set(columns.groups)
        if not holds_out:
            splits = dict.fromkeys(columns.groups, False)
        known = Known(seen=HashSet(), learned=HashSet(learned), splits=dict(splits), secret=SECRET)
        rule = SelectionRule(
            min_salience=MIN_SALIENCE,
            max_experiences=MAX_EXPERIENCES,
            max_holdout=MAX_HOLDOUT,
            replay_share=math.inf if strategy.lineage == "retrain" else strategy.replay_share,
            min_replayed=strategy.min_replayed,
            seed=seed + number,
        )
        chosen = select(columns, known=known, rule=rule)
        role_of: dict[int, Role] = dict.fromkeys(chosen.train, "train")
        role_of |= dict.fromkeys(chosen.replay, "replay")
        role_of |= dict.fromkeys(chosen.holdout, "holdout")
        taken = [(one, role_of[key]) for key, one in zip(columns.keys, arrived, strict=True) if key in role_of]
        taken = _without_outdated(taken, known if holds_out else None)
        if strategy.lineage == "retrain":
            budget = ReplayBudget(tokens=replay_tokens, longest=strategy.max_tokens, trained_before=trained_before)
            left_out = beyond_budget(taken, budget)
            taken = [(one, role) for one, role in taken if one.id not in left_out]
        trained_before = sum(role != "holdout" for _, role in taken)
        learned |= {id_hash(one.id) for one, role in taken if role == "train"}
        splits |= {content_hash_of(one): role == "holdout" for one, role in taken}
        examples = [as_example(one, role) for wanted in ROLES for one, role in taken if role == wanted]
        if len(arrived) >= FREQUENT_FROM:
            examples = taking_turns(examples)
        following = sessions[number] if number < len(sessions) else []
        unseen = [one for one in following if content_hash(one.prompt, one.response) not in seen]
        yield Night(number, examples, [as_example(one, "holdout") for one in unseen])


def _without_outdated(taken: Sequence[tuple[Experience, Role]], known: Known | None) -> list[tuple[Experience, Role]]:
    """As the daemon takes them: a correction is trained, what it contradicts is not, and few facts are held out.

    Args:
        taken: with the roles that they were selected for.
        known: what earlier nights left behind; None: nothing is held out.
    """
    roles = corrected(taken) if known is None else divided(taken, known.splits, known.secret)
    outdated = {each.older for each in superseded(roles)}
    return [(one, role) for one, role in roles if one.id not in outdated]


def taking_turns(examples: Sequence[TrainingExample]) -> list[TrainingExample]:
    """The same, those of too frequent prompts in fewer epochs."""
    trained = [one for one in examples if one.role != "holdout"]
    shares = sampling_shares([prompt_hash(one.prompt) for one in trained])
    share_of = {one.id: share for one, share in zip(trained, shares, strict=True)}
    return [msgspec.structs.replace(one, sampling_share=share_of.get(one.id, 1.0)) for one in examples]


def sampled_by_salience(example: TrainingExample) -> TrainingExample:
    """The same, in as many of the epochs as its salience says."""
    return msgspec.structs.replace(example, sampling_share=min(1.0, max(0.05, example.salience)))


def as_example(experience: Experience, role: Role) -> TrainingExample:
    """An experience in that role."""
    return TrainingExample(
        id=experience.id,
        prompt=experience.prompt,
        response=experience.response,
        salience=experience.salience,
        role=role,
    )
