"""A base's fingerprint as it stands in manifests and jobs: what its parts are, and when two mean one base. Pure.

``WEIGHTS`` or ``WEIGHTS+REST``, each a sha256 in hexadecimal: of the weights, and of all other files that the model is
built from (configuration, tokenizer, chat template). Earlier versions wrote the first part only, and so does a GGUF,
which is one file.
"""

from __future__ import annotations

MARK = "+"
"""Between the two parts."""


def weights_part(fingerprint: str) -> str:
    """The part that is about the weights."""
    return fingerprint.partition(MARK)[0]


def is_same_base(one: str, other: str) -> bool:
    """Whether two fingerprints mean one base; where one of them has only the weights, the weights decide."""
    if MARK in one and MARK in other:
        return one == other
    return weights_part(one) == weights_part(other)
