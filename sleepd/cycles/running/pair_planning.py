"""The lineups of an order: one cycle, or the two of a pair on the same examples (``pair``)."""

from __future__ import annotations

from datetime import date

import msgspec

from sleepd.config.schema import Config
from sleepd.config.strategies import find_strategy, neighbours, why_not_comparable
from sleepd.errors import UsageError
from sleepd.log import get_logger
from sleepd.policy.selecting.exploring import explored
from sleepd.protocol.strategy import Strategy
from sleepd.text.shell import quoted

from .planning import Order, Sources, as_run, line_up
from .staging import Lineup


async def line_up_order(order: Order, config: Config, sources: Sources, *, day: date) -> list[Lineup]:
    """The cycles that are planned for the order, before anything is written.

    Raises:
        UsageError: the two strategies cannot be compared on the same examples.
        SleepdError: as ``line_up``.
    """
    if not order.strategies:
        lineup = await line_up(order, config, sources, day=day)
        name = "" if order.is_explicit else _explored(lineup, config)
        return paired(lineup, find_strategy(name), sources) if name else [lineup]
    first, second = (
        find_strategy(name, epochs=order.epochs, learning_rate=order.learning_rate) for name in order.strategies
    )
    reason = why_not_comparable(first, second)
    if reason:
        raise UsageError(reason, hint=f"sleepctl run --strategy {quoted(second.name)} runs it by itself")
    alone = msgspec.structs.replace(order, strategy=first.name, strategies=())
    lineup = await line_up(alone, config, sources, day=day)
    return paired(lineup, second, sources)


def _explored(lineup: Lineup, config: Config) -> str:
    """The neighbour that this cycle tries beside its strategy; empty: none."""
    cycle, usual, share = lineup.job.cycle, lineup.job.strategy.name, config.training.explore
    name = explored(cycle, share, neighbours(usual))
    if name:
        text = f"cycle {cycle} trains {usual}, and cycle {cycle + 1} trains {name} on the same experiences"
        get_logger().info("strategy_explored", text=f"{text} (training.explore = {share:g})")
    return name


def paired(lineup: Lineup, strategy: Strategy, sources: Sources) -> list[Lineup]:
    """The planned cycle, and one after it that differs in its strategy alone."""
    job = lineup.job
    number = job.cycle + 1
    second = msgspec.structs.replace(
        job,
        cycle=number,
        staging=str(sources.checkpoints.staging_path(number)),
        strategy=as_run(strategy, continues=bool(job.parent)),
        rival=job.cycle,
    )
    first = msgspec.structs.replace(job, rival=number)
    return [msgspec.structs.replace(lineup, job=each) for each in (first, second)]
