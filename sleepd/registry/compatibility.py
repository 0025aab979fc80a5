"""Whether the champion can be continued: what workers reported about it on the configured base, and its LoRA shape."""

from __future__ import annotations

import contextlib

from sleepd.config.schema import Config, ModelConfig
from sleepd.config.strategies import adapter_shape, find_strategy
from sleepd.errors import CheckpointInvalid
from sleepd.protocol.checkpoint.base_identity import quantization_of
from sleepd.protocol.job import Failure
from sleepd.protocol.strategy import Strategy
from sleepd.store.checkpoints import Checkpoints, Manifest, read_manifest
from sleepd.store.sqlite.ledger import Ledger
from sleepd.store.sqlite.notes import ADOPTED_UNFIT, BASE_CHANGED, Misfit, Note

_UNFIT_KINDS = ("parent_unusable", "shape_changed")


class Fit:
    """What is known of the fit of one state directory's champion; survives a restart."""

    def __init__(self, ledger: Ledger, checkpoints: Checkpoints) -> None:
        self._ledger = ledger
        self._checkpoints = checkpoints

    def note(self, failure: Failure, parent: int | None, base: str) -> None:
        """Remember what the worker found, if it is about the fit."""
        noted = Misfit(base, parent, failure.message)
        if failure.kind == "base_changed":
            self._ledger.set_note(BASE_CHANGED, noted)
        if failure.kind in _UNFIT_KINDS and parent in self._checkpoints.adopted():
            self._ledger.set_note(ADOPTED_UNFIT, noted)

    def forget(self) -> None:
        """The operator activated another champion."""
        self._ledger.set_note(BASE_CHANGED, None)

    def base_changed(self, model: ModelConfig) -> str:
        """Why the champion belongs to another base; empty: as far as is known it belongs to this one."""
        noted = self._noted(BASE_CHANGED, model.base) or self._other_quantization(model.quantization)
        return f"{noted} (sleepctl rebase starts anew from the base)" if noted else ""

    def _other_quantization(self, configured: str) -> str:
        with contextlib.suppress(CheckpointInvalid):  # the planning of a cycle says so
            champion = self._checkpoints.champion()
            if champion is None or champion in self._checkpoints.adopted():
                return ""
            fingerprint = read_manifest(self._checkpoints.promoted_path(champion)).base_fingerprint
            measured = quantization_of(fingerprint)
            if measured != configured:
                return f"cycle {champion} was measured with model.quantization = {measured}, and it is {configured} now"
        return ""

    def unfit(self, base: str) -> str:
        """Why an adopted champion, of which only its shape was known, does not fit the base; empty: it may."""
        noted = self._noted(ADOPTED_UNFIT, base)
        return f"the adopted adapter does not fit: {noted}" if noted else ""

    def why_new_lineage(self, config: Config) -> str:
        """Why the next cycle starts from the base although there is a champion; empty: it continues it.

        Raises:
            CheckpointInvalid: the champion's manifest is damaged.
        """
        champion = self._checkpoints.champion()
        if champion is None:
            return ""
        manifest = read_manifest(self._checkpoints.promoted_path(champion))
        return self.unfit(config.model.base) or other_shape(manifest, find_strategy(config.training.strategy))

    def _noted(self, note: Note[Misfit], base: str) -> str:
        """What a worker reported about this champion on this base."""
        noted = self._ledger.note(note)
        if noted is None or noted.base != base or noted.champion != self._checkpoints.champion():
            return ""
        return noted.message


def other_shape(champion: Manifest | None, strategy: Strategy) -> str:
    """Why the strategy cannot continue the champion; empty: it can, or there is none."""
    if champion is None or champion.lora_shape == adapter_shape(strategy):
        return ""
    shapes = f"{champion.lora_shape}, strategy {strategy.name} {adapter_shape(strategy)}"
    return f"cycle {champion.cycle} has the LoRA shape {shapes}"
