"""The files of a checkpoint that more than one program reads: their names, and the form of the JSON ones.

The worker writes the adapter, the daemon writes the documents beside it, and the command line reads both while the
daemon is not running.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from sleepd.clock import Moment
from sleepd.protocol.chat_example import Hash
from sleepd.protocol.job import Report, Role
from sleepd.protocol.verdict import Verdict

WEIGHTS_FILE: Final = "adapter_model.safetensors"
CONFIG_FILE: Final = "adapter_config.json"
PICKLED_WEIGHTS: Final = ("adapter_model.bin", "adapter_model.pt", "adapter_model.pth")
"""Other names that peft has given to the weights. A pickle can run code, so none of them is ever opened."""
RESERVOIR_FILE: Final = "reservoir.jsonl"
LINEAGE_FILE: Final = "lineage.json"
EVALUATION_FILE: Final = "evaluation.json"
FINGERPRINT_FILE: Final = "fingerprint.json"
"""See ``adapter_fingerprint``. Checkpoints of earlier versions have none."""

Digits = Annotated[str, Meta(pattern=r"^[0-9a-f]{16}\Z")]
"""An id hash or a content hash: sixteen hexadecimal digits."""


class AssignedExperience(msgspec.Struct, frozen=True):
    """One experience of a cycle."""

    id: str
    group: Digits
    conversation: Hash = ""
    """Empty: it is a conversation of its own."""


class Lineage(msgspec.Struct, frozen=True, kw_only=True):
    """``lineage.json``: what the checkpoint was made from."""

    cycle: int
    parent: Annotated[int, Meta(ge=1, le=10**9)] | None
    started_at: Moment
    judged_at: Moment
    is_forced: bool
    rival: Annotated[int, Meta(ge=1, le=10**9)] | None = None
    """The other cycle of its pair; None: it is in no pair."""
    trained: list[AssignedExperience]
    replayed: list[AssignedExperience]
    held_out: list[AssignedExperience]
    released: list[str] = []
    """Ids of those of ``trained`` that an earlier cycle held out."""
    seen: list[Digits]
    """Id hashes of the whole buffer at that moment."""

    def __post_init__(self) -> None:
        """Refuse what no cycle can be; msgspec makes it an error of the document."""
        ids = [experience.id for experience, _ in self.assigned()]
        if len(set(ids)) < len(ids):
            raise ValueError("an experience has two places in one cycle")
        try:
            for moment in (self.started_at, self.judged_at):
                moment.astimezone()
        except OverflowError as error:
            raise ValueError(f"a time that is none in another time zone: {error}") from error

    def assigned(self) -> Iterator[tuple[AssignedExperience, Role]]:
        """Every experience of the cycle with its role."""
        splits: list[tuple[Role, list[AssignedExperience]]] = [
            ("train", self.trained),
            ("replay", self.replayed),
            ("holdout", self.held_out),
        ]
        return ((experience, role) for role, experiences in splits for experience in experiences)


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """``evaluation.json``: what was measured on the checkpoint, and what was decided."""

    verdict: Verdict
    report: Report
