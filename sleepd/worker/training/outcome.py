"""What a training comes to, so far or at its end. A resume point keeps it."""

from __future__ import annotations

from dataclasses import dataclass, field

from .early_stopping import DriftScaling, ValidationCheck


@dataclass
class Training:
    """The figures of one training."""

    steps: int = 0
    epochs: int = 0
    tokens: int = 0
    supervised_tokens: int = 0
    seconds: float = 0.0
    epoch_losses: list[float] = field(default_factory=list)
    epoch_total: float = 0.0
    """Of the epoch under way: sum of its token losses so far."""
    epoch_tokens: int = 0
    """Of the epoch under way: supervised tokens so far."""
    checks: list[ValidationCheck] = field(default_factory=list)
    kept_step: int | None = None
    """After which the weights were as they are kept, once it is over; None: it was not validated."""
    scaled_down: DriftScaling | None = None
    """What the drift budget left of it, once it is over; None: all."""

    @property
    def tokens_per_second(self) -> float:
        """Tokens through the model in a second of training."""
        return self.tokens / self.seconds if self.seconds else 0.0

    def end_epoch(self) -> None:
        """Close the books of the epoch under way."""
        self.epoch_losses.append(self.epoch_total / max(1, self.epoch_tokens))
        self.epoch_total, self.epoch_tokens = 0.0, 0
        self.epochs += 1
