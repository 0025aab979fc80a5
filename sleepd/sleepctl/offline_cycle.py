"""One cycle as read from its files, for when the daemon is not running; the texts come from the buffer itself.

What only the ledger knows is missing: figures that were added by hand, and the later comparison of a champion.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from sleepd.buffer.experience import Experience, group_of, id_hash
from sleepd.buffer.learnables import read_settings
from sleepd.buffer.rating.rated_down import read_rated_down
from sleepd.buffer.reading.buffer_paths import is_single
from sleepd.buffer.reading.direct_reading import read_directly
from sleepd.buffer.trained_texts import Found, Place, keys_of, limited, trained_texts, whereabouts
from sleepd.config.buffer_config import BufferConfig
from sleepd.cycle import State, undo_command
from sleepd.errors import DECODE_ERRORS, CheckpointInvalid
from sleepd.files import is_own_directory, read_document
from sleepd.protocol.answers import Learned, LearnedText
from sleepd.protocol.checkpoint.checkpoint_files import EVALUATION_FILE, LINEAGE_FILE, WEIGHTS_FILE, Evaluation, Lineage
from sleepd.protocol.checkpoint.origin import ORIGIN_FILE, Origin
from sleepd.protocol.conversion import converted
from sleepd.protocol.status import CycleDetail, CycleSummary

_NAME: Final = re.compile(r"cycle_(\d{3,9})")

_T = TypeVar("_T")


def read_detail(state: Path, summary: CycleSummary, rival: CycleSummary | None = None) -> CycleDetail:
    """``summary`` and the documents in the cycle's directory, where they can be read; ``rival``: of its pair."""
    directory = cycle_directory(state, summary.cycle)
    lineage = _read(directory / LINEAGE_FILE, Lineage) if directory else None
    evaluation = _read(directory / EVALUATION_FILE, Evaluation) if directory else None
    return CycleDetail(
        summary=summary,
        directory=str(directory or ""),
        report=evaluation.report if evaluation else None,
        verdict=evaluation.verdict if evaluation else None,
        trained_ids=[each.id for each in lineage.trained] if lineage else [],
        replayed_ids=[each.id for each in lineage.replayed] if lineage else [],
        held_out_ids=[each.id for each in lineage.held_out] if lineage else [],
        released_ids=lineage.released if lineage else [],
        undo=_undo(state, summary),
        origin=_read(directory / ORIGIN_FILE, Origin) if directory else None,
        rival=rival,
    )


def read_learned(state: Path, cycle: int, buffer: BufferConfig, *, limit: int, masks: bool) -> Learned:
    """What the cycle learned from, as the buffer has it now. Waits for as long as the reading takes.

    ``masks``: with placeholders for personal data.
    """
    directory = cycle_directory(state, cycle)
    lineage = _read(directory / LINEAGE_FILE, Lineage) if directory else None
    if lineage is None:
        return Learned(cycle=cycle, experiences=[], present=0, changed=[], gone=[], problem="its lineage.json is gone")
    places = [Place(each.id, int(each.group, 16), role) for each, role in lineage.assigned() if role != "holdout"]
    texts, problem = _read_buffer(buffer, keys_of(places))
    if problem:
        return Learned(
            cycle=cycle, experiences=[], present=0, changed=[], gone=[], problem=f"{buffer.path_text}: {problem}"
        )
    found = {id_hash(e.id): Found(group_of(e), e.salience) for e in texts}
    known = whereabouts(places, found, _rated_down(state))
    shown = trained_texts(cycle, known, texts, limit=limited(limit), masks=masks)
    return converted(shown, Learned, experiences=[converted(each, LearnedText) for each in shown.experiences])


def _rated_down(state: Path) -> Collection[int]:
    try:
        return read_rated_down(state)
    except CheckpointInvalid:
        return ()  # the daemon names the damage at its next start


def _read_buffer(buffer: BufferConfig, wanted: Collection[int]) -> tuple[list[Experience], str]:
    """The wanted experiences, or why they cannot be had."""
    keys, found, problem = set(wanted), list[Experience](), ""
    if is_single(buffer.paths) and not os.path.exists(buffer.paths[0]):
        return [], os.strerror(errno.ENOENT)
    try:
        for piece in read_directly(buffer.paths, read_settings(buffer)):
            if isinstance(piece.found, str):
                problem = problem or ("" if piece.position else piece.found)
            elif piece.found.key in keys:
                keys.discard(piece.found.key)
                found.append(piece.found.experience())
    except OSError as error:
        problem = error.strerror or str(error)
    return found, "" if found else problem


def cycle_directory(state: Path, cycle: int) -> Path | None:
    """Where its checkpoint is; None: there is none."""
    name = f"cycle_{cycle:03d}"
    return next((path for path in (state / name, state / "retired" / name) if is_own_directory(path)), None)


def champion_in(state: Path) -> int | None:
    """The cycle that ``current`` names; None: the base is in use."""
    try:
        name = _NAME.fullmatch(os.readlink(state / "current"))
    except OSError:
        return None
    return int(name[1]) if name else None


def _read(path: Path, kind: type[_T]) -> _T | None:
    """The document; None: it is not there or cannot be understood, as in an older trainer's directory."""
    try:
        return msgspec.json.decode(read_document(path), type=kind)
    except (OSError, *DECODE_ERRORS):
        return None


def _undo(state: Path, summary: CycleSummary) -> str:
    is_active = summary.is_champion or (summary.state == State.PROMOTED and not summary.is_rolled_back)
    return undo_command(summary.cycle, summary.state, is_active=is_active, champions=_champions(state))


def _champions(state: Path) -> list[int]:
    """The active ones, as read from their files: with their weights in the state directory, and not in ``retired/``."""
    found = []
    for weights in state.glob(f"cycle_*/{WEIGHTS_FILE}"):
        directory = weights.parent
        name = _NAME.fullmatch(directory.name)
        is_adopted = (state / "adopted" / f"{directory.name}.json").exists()
        if name and not directory.is_symlink() and (is_adopted or (directory / "manifest.json").exists()):
            found.append(int(name[1]))
    return found
