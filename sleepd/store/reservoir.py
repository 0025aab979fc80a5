"""What a lineage has learned, as texts: so that it can be rehearsed after the agent has cleared its buffer.

``reservoir.jsonl`` stands in every promoted checkpoint: the parent's with what this cycle trained, at most so many. Of
more, those of the smallest draw stay (``policy.selecting.replay_budget``), which makes it a sample of all that was ever
trained, weighted by salience (bottom-k sampling, Cohen and Kaplan 2007), without any state beside it.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec

from sleepd.buffer.experience import Experience, id_hash
from sleepd.errors import DECODE_ERRORS, CheckpointInvalid
from sleepd.files import read_document
from sleepd.policy.selecting.replay_budget import draw
from sleepd.protocol.checkpoint.checkpoint_files import RESERVOIR_FILE
from sleepd.protocol.job import Job, decode_examples

MAX_BYTES: Final = 8 * 1024 * 1024
"""Of the file: it is read at every cycle."""
_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Experience)


def read_reservoir(checkpoint: Path) -> list[Experience]:
    """What the lineage of that checkpoint can rehearse; one that an older version wrote has none.

    Raises:
        CheckpointInvalid: it cannot be read, or is none.
    """
    file = checkpoint / RESERVOIR_FILE
    try:
        return _decoder.decode_lines(read_document(file))
    except FileNotFoundError:
        return []
    except (OSError, *DECODE_ERRORS) as error:
        raise CheckpointInvalid(f"{file}: {error}", hint="sleepctl rollback puts an earlier champion in use") from error


def next_reservoir(job: Job, staging: Path) -> dict[str, bytes]:
    """The file of the cycle that is staged there, by its name; none where none is to be kept.

    Raises:
        CheckpointInvalid: the parent's cannot be read.
        OSError: what was staged cannot be read.
        ProtocolError: the same.
    """
    if not job.reservoir:
        return {}
    examples = decode_examples(read_document(staging / "work" / "experiences.jsonl"))
    trained = (Experience(id=one.id, salience=one.salience, **one.parts()) for one in examples if one.role != "holdout")
    older = read_reservoir(Path(job.parent)) if job.parent else []
    return {RESERVOIR_FILE: encode_reservoir(renewed([*older, *trained], most=job.reservoir))}


def renewed(experiences: Iterable[Experience], *, most: int) -> list[Experience]:
    """Those that stay, each key once, in the order of their draws; of two with one key the later one."""
    by_key = {id_hash(one.id): one for one in experiences}
    return [by_key[key] for key in sorted(by_key, key=lambda key: (draw(key, by_key[key].salience), key))[:most]]


def encode_reservoir(experiences: Iterable[Experience]) -> bytes:
    """As a file: one a line, as many as fit into ``MAX_BYTES``."""
    lines: list[bytes] = []
    room = MAX_BYTES
    for one in experiences:
        line = _encoder.encode(one) + b"\n"
        room -= len(line)
        if room < 0:
            break
        lines.append(line)
    return b"".join(lines)
