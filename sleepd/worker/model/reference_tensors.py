"""The base's distributions on reference answers as named tensors, for a file, and back."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from .losses import Reference

_TOKENS = "reference/tokens/"
_LOG_PROBABILITIES = "reference/log_probabilities/"


def reference_tensors(references: Mapping[str, Reference]) -> dict[str, torch.Tensor]:
    """The references as tensors."""
    tokens = {f"{_TOKENS}{id_}": one.tokens for id_, one in references.items()}
    return tokens | {f"{_LOG_PROBABILITIES}{id_}": one.log_probabilities for id_, one in references.items()}


def references_in(tensors: Mapping[str, torch.Tensor]) -> dict[str, Reference]:
    """Those that are among the tensors, by the prompt's id."""
    ids = [name.removeprefix(_TOKENS) for name in tensors if name.startswith(_TOKENS)]
    return {id_: Reference(tensors[f"{_TOKENS}{id_}"], tensors[f"{_LOG_PROBABILITIES}{id_}"]) for id_ in ids}
