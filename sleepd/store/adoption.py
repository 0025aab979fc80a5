"""An older trainer's state directory, taken over: its newest valid adapter becomes the champion, not measured yet.

Older checkpoints are ``cycle_NNN/`` without a manifest. Nothing inside them is ever written and none is moved; what we
record of them stands in ``adopted/``: ``cycle_NNN.json`` is the manifest that they lack, ``cycle_NNN.trained.json``
what they may have been trained on (all that the older trainer can have seen), which is therefore never held out.
"""

from __future__ import annotations

from datetime import datetime
from itertools import islice
from pathlib import Path

import msgspec

from sleepd.buffer.columns import BufferColumns
from sleepd.buffer.experience import hash_text
from sleepd.clock import Clock
from sleepd.errors import DECODE_ERRORS, CheckpointInvalid
from sleepd.files import fsync_path, make_directory, read_document, replace_file
from sleepd.log import get_logger
from sleepd.protocol.checkpoint.checkpoint_files import CONFIG_FILE, WEIGHTS_FILE

from .adapter_file import MAX_FILE_BYTES, read_adapter_file
from .checkpoints import ADOPTED, ADOPTED_VERDICT, Checkpoints, FileRecord, Manifest, cycle_number, file_record
from .sqlite.ledger import Ledger
from .sqlite.ledger_rows import SplitAssignment


def older_directories(directory: Path) -> list[Path]:
    """The older trainer's checkpoints, newest first by number. Links and files of such names are none."""
    found = [
        (cycle, entry)
        for entry in directory.iterdir()
        if (cycle := cycle_number(entry.name)) and entry.is_dir() and not entry.is_symlink()
    ]
    return [entry for _, entry in sorted(found, reverse=True) if not (entry / "manifest.json").exists()]


def adopt(ledger: Ledger, checkpoints: Checkpoints, clock: Clock) -> list[str]:
    """Adopt the newest valid adapter, once: where neither we nor an earlier adoption have left anything.

    Blocks while adapters are read; call it before there is a loop to block.

    Returns:
        What the operator should know, a sentence each.

    Raises:
        OSError: the disk did not take the record; the next start tries again.
    """
    if ledger.highest_cycle() or checkpoints.adopted():
        return []
    troubles = []
    for path in older_directories(checkpoints.directory):
        try:
            _adopt(path, checkpoints, clock.now())
        except CheckpointInvalid as error:
            troubles.append(f"not adopted: {error.message}")
            get_logger().warning("checkpoint_not_adopted", text=error.message, hint=error.hint)
        else:
            text = f"the older trainer's {path.name} is in use, adopted and not measured"
            get_logger().info("checkpoint_adopted", text=text)
            return troubles
    return troubles


def _adopt(path: Path, checkpoints: Checkpoints, at: datetime) -> None:
    files = _records(path)
    adapter = read_adapter_file(path)
    if _records(path) != files:  # what is recorded must be what was found sound
        raise CheckpointInvalid(f"{path}: changed while it was read", hint="restart once nothing writes to it")
    cycle = cycle_number(path.name)
    manifest = Manifest(
        cycle=cycle,
        parent=None,
        verdict=ADOPTED_VERDICT,
        reason="adopted from an older trainer; not measured",
        base_fingerprint="",  # nobody recorded it
        lora_shape=adapter.lora_shape,
        strategy="older",
        created_at=at.isoformat(),
        files=files,
    )
    # The link first: found without its record after a crash, the adoption is made again; the other way round, a record
    # without its link would be taken for a rollback to the base.
    checkpoints.promote(cycle)
    make_directory(checkpoints.directory / ADOPTED)
    fsync_path(checkpoints.directory)
    replace_file(checkpoints.directory / ADOPTED / f"{path.name}.json", manifest.encoded())


def _records(path: Path) -> dict[str, FileRecord]:
    """Size and hash of those of the adapter's files that are there, unread where none may be so large.

    Raises:
        CheckpointInvalid: one of them cannot be read.
    """
    try:
        there = [name for name in (WEIGHTS_FILE, CONFIG_FILE) if (path / name).is_file()]
        return {name: file_record(path / name, most=MAX_FILE_BYTES) for name in there}
    except OSError as error:
        raise CheckpointInvalid(f"{path}: {error.strerror or error}", hint="check what is there") from error


def note_trained(ledger: Ledger, checkpoints: Checkpoints, columns: BufferColumns, *, count: int | None) -> None:
    """Record, once, what the adopted adapter may have been trained on: the first ``count`` of the buffer (None: all).

    A buffer that was cleaned since has moved them to the front, so the first so many still hold all of them.
    """
    for cycle in checkpoints.adopted():
        path = _trained_file(checkpoints, cycle)
        if path.exists():
            continue
        places = list(islice(zip(columns.keys, columns.groups, strict=True), count))
        text = msgspec.json.encode([(hash_text(key), hash_text(group)) for key, group in places])
        replace_file(path, text)
        restore_trained(ledger, checkpoints)


def restore_trained(ledger: Ledger, checkpoints: Checkpoints) -> None:
    """Bring what was so recorded into a new ledger; what is there already stays.

    Raises:
        CheckpointInvalid: the record is damaged.
    """
    for cycle in checkpoints.adopted():
        path = _trained_file(checkpoints, cycle)
        if not path.exists():
            continue
        try:
            places = msgspec.json.decode(read_document(path), type=list[tuple[str, str]])
            assignments = [
                SplitAssignment(key, int(key, 16), int(group, 16), "train", int(group, 16)) for key, group in places
            ]
        except (OSError, *DECODE_ERRORS, ValueError) as error:
            raise CheckpointInvalid(f"{path}: {error}", hint=f"move {path} away; the buffer is read anew") from error
        ledger.assign_adopted(cycle, assignments)


def _trained_file(checkpoints: Checkpoints, cycle: int) -> Path:
    return checkpoints.directory / ADOPTED / f"{checkpoints.promoted_path(cycle).name}.trained.json"
