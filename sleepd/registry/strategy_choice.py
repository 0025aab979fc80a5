"""The strategy in force: the configured one, or a neighbour that pairs have proved better.

Nothing is switched unless ``training.adopt_better`` is true. Then a neighbour is adopted as a note in the ledger, with
the evidence. The note holds as long as that key is true and ``training.strategy`` is the one that it replaced: either
key takes it back, and the next cycle trains what is configured.
"""

from __future__ import annotations

from datetime import datetime

from sleepd.config.schema import Config
from sleepd.config.strategies import neighbours
from sleepd.log import get_logger
from sleepd.policy.selecting.exploring import ComparedPair, better_strategy
from sleepd.store.sqlite.ledger import Ledger
from sleepd.store.sqlite.notes import ADOPTED_STRATEGY, AdoptedStrategy
from sleepd.store.sqlite.pairs import PairedCycles, paired_cycles


def adopted_strategy(config: Config, ledger: Ledger) -> AdoptedStrategy | None:
    """What replaces the configured strategy; None: nothing does."""
    noted = ledger.note(ADOPTED_STRATEGY) if config.training.adopt_better else None
    return noted if noted is not None and noted.configured == config.training.strategy else None


def strategy_in_force(config: Config, ledger: Ledger) -> str:
    """What the next cycle trains with, where nothing else is asked for."""
    adopted = adopted_strategy(config, ledger)
    return adopted.adopted if adopted else config.training.strategy


def adopt_better(config: Config, ledger: Ledger, at: datetime) -> None:
    """Adopt a neighbour that is surely better than the strategy in force, where the operator wants that."""
    if not config.training.adopt_better:
        return
    usual = strategy_in_force(config, ledger)
    pairs: dict[str, list[ComparedPair]] = {name: [] for name in neighbours(usual)}
    for pair in paired_cycles(ledger.database):
        neighbour = pair.beside(usual)
        if neighbour is not None and neighbour.strategy in pairs:
            pairs[neighbour.strategy].append(_compared(pair, neighbour.strategy))
    found = better_strategy(pairs, confidence=config.promotion.confidence, min_gain=config.promotion.min_gain)
    if found is None:
        return
    text = (
        f"{found.strategy} replaces {usual}: in {found.pairs} pairs on the same experiences it gained "
        f"{found.mean:+.3f} nats/token more on average, more than {found.low:.3f} with {100 * found.confidence:.4g}% "
        "confidence"
    )
    noted = AdoptedStrategy(configured=config.training.strategy, adopted=found.strategy, text=text, at=at)
    ledger.set_note(ADOPTED_STRATEGY, noted)
    get_logger().warning("strategy_adopted", text=text, hint="training.adopt_better = false takes it back")


def _compared(pair: PairedCycles, neighbour: str) -> ComparedPair:
    own, other = (pair.first, pair.second) if pair.first.strategy == neighbour else (pair.second, pair.first)
    return ComparedPair(gain=own.gain, passed=own.has_passed, usual_passed=other.has_passed)
