"""The named sets of hyperparameters, and the two an older caller may override."""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from sleepd.errors import NotFound
from sleepd.protocol.strategy import Strategy

_CONSOLIDATE: Final = Strategy(
    name="consolidate",
    rank=16,
    alpha=32,
    dropout=0.0,
    target_modules="all-linear",
    epochs=3,
    # More steps over fewer than sixteen experiences learn them by heart, at this rate.
    min_steps=12,
    most_repeats=10,
    # Without it 73 of 88 facts were recalled in other words, with it 88 (tests/bench/README.md).
    thinned_share=0.5,
    learning_rate=1.2e-3,
    batch_size=4,
    weight_decay=0.0,
    warmup_share=0.15,
    max_grad_norm=1.0,
    kl_weight=4.0,
    kl_prompts=160,
    kl_batch_size=6,
    # Two let the drift grow to 0.035 in 325 steps.
    kl_batch_least=4,
    drift_budget=0.025,
    # From the base on all of the lineage: what continued gained less in each cycle (tests/bench/README.md).
    lineage="retrain",
    replay_share=0.5,
    min_replayed=8,
    weighs_by_salience=False,
    micro_batch_tokens=512,
    max_tokens=2048,
)

STRATEGIES: Final[dict[str, Strategy]] = {
    strategy.name: strategy
    for strategy in (
        _CONSOLIDATE,
        replace(_CONSOLIDATE, name="careful", learning_rate=8e-4, kl_weight=6.0, drift_budget=0.0125),
        replace(_CONSOLIDATE, name="eager", learning_rate=1.5e-3, kl_weight=2.0, drift_budget=0.04),
        # For short experiences that state facts: seen more often, so that similar ones are distinguished.
        replace(
            _CONSOLIDATE,
            name="rehearse",
            epochs=8,
            most_repeats=1,
            kl_batch_least=0,
            min_steps=24,
            learning_rate=1.5e-3,
            batch_size=16,
            kl_weight=3.0,
            drift_budget=0.04,
        ),
        # The older scheduler's recipe, for comparison and for whoever wants it: it changes next to nothing.
        Strategy(
            name="gentle",
            rank=4,
            alpha=8,
            dropout=0.05,
            target_modules=["q_proj", "v_proj"],
            epochs=3,
            learning_rate=1e-5,
            batch_size=1,
            weight_decay=0.01,
            warmup_share=0.0,
            max_grad_norm=1.0,
            kl_weight=0.0,
            kl_prompts=0,
            replay_share=0.0,
            micro_batch_tokens=2048,
            max_tokens=2048,
        ),
    )
}


def adapter_shape(strategy: Strategy) -> str:
    """Rank and modules in one word, such as ``r16:all-linear``; adapters of unequal shape are of two lineages."""
    modules = strategy.target_modules if isinstance(strategy.target_modules, str) else ",".join(strategy.target_modules)
    return f"r{strategy.rank}:{modules}"


def why_not_comparable(one: Strategy, other: Strategy) -> str:
    """Why two strategies cannot be compared on the same examples and the same champion; empty: they can."""
    if one.name == other.name:
        return f"expected two strategies, found {one.name} twice"
    if adapter_shape(one) != adapter_shape(other):
        shapes = f"{one.name} {adapter_shape(one)}, {other.name} {adapter_shape(other)}"
        return f"they have adapters of other shapes ({shapes}), so they cannot continue the same champion"
    for name in ("lineage", "replay_share", "min_replayed", "max_tokens", "kl_prompts"):
        if getattr(one, name) != getattr(other, name):
            values = f"{getattr(one, name)} and {getattr(other, name)}"
            return f"{one.name} and {other.name} differ in {name} ({values}), so they have no examples in common"
    return ""


def neighbours(name: str) -> list[str]:
    """The strategies that can be compared with that one on the same examples."""
    return [other for other, strategy in STRATEGIES.items() if not why_not_comparable(STRATEGIES[name], strategy)]


def find_strategy(name: str, *, epochs: int | None = None, learning_rate: float | None = None) -> Strategy:
    """The strategy of that name, with what the caller overrides.

    Raises:
        NotFound: there is none of that name.
    """
    if name not in STRATEGIES:
        raise NotFound(f"no strategy is called {name!r}", hint=f"choose one of: {', '.join(STRATEGIES)}")
    strategy = STRATEGIES[name]
    changes: dict[str, float | int] = {}
    if epochs is not None:
        # Asked for by number, so no epochs are added to reach a number of steps.
        changes |= {"epochs": epochs, "min_steps": 0}
    if learning_rate is not None:
        changes |= {"learning_rate": learning_rate, "continued_rate_share": 1.0}
    return replace(strategy, **changes) if changes else strategy
