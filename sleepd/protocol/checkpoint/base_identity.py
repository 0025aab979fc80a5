"""A base's fingerprint as it stands in manifests and jobs: what its parts are, and when two mean one base. Pure.

``WEIGHTS`` or ``WEIGHTS+REST``, each a sha256 in hexadecimal: of the weights, and of all other files that the model is
built from (configuration, tokenizer, chat template). Earlier versions wrote the first part only, and so does a GGUF,
which is one file. Behind ``WEIGHTS`` stands ``:nf4`` where the worker quantises the weights while it loads them: the
same files are then another base, and an adapter that was measured on one was not measured on the other.
"""

from __future__ import annotations

MARK = "+"
"""Between the two parts."""
UNQUANTISED = "none"
_KNOWN = ("nf4",)
_QUANTISED = ":"
"""Between the hash of the weights and what they are quantised to."""


def in_quantization(fingerprint: str, quantization: str) -> str:
    """The fingerprint of a base whose weights are quantised while they are loaded."""
    if quantization == UNQUANTISED:
        return fingerprint
    weights, mark, rest = fingerprint.partition(MARK)
    return f"{weights}{_QUANTISED}{quantization}{mark}{rest}"


def quantization_of(fingerprint: str) -> str:
    """What the weights of that base are quantised to while they are loaded."""
    return next((name for name in _KNOWN if weights_part(fingerprint).endswith(_QUANTISED + name)), UNQUANTISED)


def weights_part(fingerprint: str) -> str:
    """The part that is about the weights."""
    return fingerprint.partition(MARK)[0]


def is_same_base(one: str, other: str) -> bool:
    """Whether two fingerprints mean one base; where one of them has only the weights, the weights decide."""
    if MARK in one and MARK in other:
        return one == other
    return weights_part(one) == weights_part(other)
