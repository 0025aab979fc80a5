"""An adapter of another machine on trial: a cycle that trains nothing and ends with a verdict as every cycle does.

Rule 1: nothing that the sender measured decides anything. The adapter is measured here, against the champion of this
machine, on its held-out experiences and the reference prompts, and the same gates judge it.
Rule 2: what it was trained on is not held out for it. The sender's hashes say what that is.
Rule 3: it is put on trial only where it could be continued: the same base with the same chat template, and the LoRA
shape of the configured strategy and of the champion.

In the ledger such a cycle has ``from:NAME`` in place of a strategy, and as its parent the champion that it was compared
with: once promoted, the next cycle of this machine still trains all that its own lineage has learned. It does not
count as a sleep: what is new, the last sleep and the cooldown stay as they were.
"""

from __future__ import annotations

import asyncio
from array import array
from datetime import date
from pathlib import Path
from typing import Final

import msgspec

from sleepd.bundles.contents import HASHES_FILE, LineageHashes
from sleepd.bundles.foreign import (
    BundleOutcome,
    ForeignBundle,
    find_foreign,
    note_outcome,
    origin_of,
    outcome_of,
    read_foreign,
)
from sleepd.config.schema import Config
from sleepd.config.strategies import adapter_shape, find_strategy
from sleepd.cycle import JUDGED_STATES, State
from sleepd.errors import DECODE_ERRORS, BundleInvalid, NothingToDo
from sleepd.files import read_document
from sleepd.log import get_logger
from sleepd.policy.selecting.selection import Selection
from sleepd.protocol.checkpoint.base_identity import is_same_base, quantization_of
from sleepd.protocol.checkpoint.checkpoint_files import CONFIG_FILE, WEIGHTS_FILE
from sleepd.protocol.job import Job
from sleepd.protocol.strategy import FOREIGN, Strategy
from sleepd.store.adapter_file import AdapterConfig, read_adapter_file
from sleepd.store.checkpoints import Manifest, file_record, verify_usable
from sleepd.text.shell import command_line

from .planning import Order, Sources, Taken, fetch, finished_lineup, job_for, select_for
from .staging import Lineup

_SEND_AGAIN: Final = "have it sent again"


async def line_up_foreign(beginning: str, config: Config, sources: Sources, *, day: date) -> list[Lineup]:
    """The cycle that judges the imported bundle whose id begins so, before anything is written.

    Raises:
        NotFound: there is no such bundle.
        NothingToDo: it was judged already, or nothing is held out that it has not seen.
        BundleInvalid: it is damaged, or does not fit the base, the strategy or the champion.
        BufferUnreadable: the experiences cannot be read.
        CheckpointInvalid: the champion is damaged.
    """
    checkpoints = sources.checkpoints
    directory = find_foreign(checkpoints.directory, beginning)
    _refuse_judged(directory)
    await asyncio.to_thread(origin_of, directory)  # what the verdict will be written beside
    strategy = find_strategy(config.training.strategy)
    bundle, hashes, adapter = await asyncio.to_thread(_screened, directory)
    champion = checkpoints.champion()
    parent = None
    if champion is not None:
        parent = await asyncio.to_thread(verify_usable, checkpoints.promoted_path(champion))
    _refuse_misfit(bundle, adapter, strategy, parent)
    strategy = msgspec.structs.replace(strategy, name=f"{FOREIGN}{bundle.signer}", kl_weight=0.0, drift_budget=None)
    job = await job_for(sources.history.next_cycle(), config, strategy, checkpoints, parent)
    expected = job.expected_base or bundle.header.base_fingerprint
    job = msgspec.structs.replace(job, foreign=str(directory), expected_base=expected, date=day.isoformat())
    taken = Taken(sources.intake.view, sources.history.known(), {})
    selection = _unseen(await select_for(Order(), config, job, taken, sources.intake), taken, hashes)
    if not selection.holdout:
        raise NothingToDo(
            "nothing is held out here that this adapter has not seen: it cannot be measured",
            hint="sleepctl buffer shows what is held out; try again when there are more experiences",
        )
    last = sources.ledger.last_judged()
    seen = sources.ledger.seen(last.cycle) if last else array("Q")
    lineup = await fetch(selection, job, taken, sources.intake.buffer, is_forced=False)
    return [await finished_lineup(msgspec.structs.replace(lineup, seen=seen), config, taken.known.secret)]


def note_judged(job: Job, state: State) -> None:
    """Record what became of the bundle; where the disk does not take it, it can be judged again."""
    if state not in JUDGED_STATES:
        return
    try:
        note_outcome(Path(job.foreign), BundleOutcome(cycle=job.cycle, outcome=state))
    except OSError as error:
        get_logger().warning("bundle_outcome_lost", text=f"{job.foreign}: {error}", hint="df -h")


def _refuse_judged(directory: Path) -> None:
    judged = outcome_of(directory)
    if judged is not None:
        text = f"bundle {directory.name[:12]} was judged already, by cycle {judged.cycle}: {judged.outcome}"
        raise NothingToDo(text, hint=command_line("sleepctl", "show", judged.cycle))


def _screened(directory: Path) -> tuple[ForeignBundle, LineageHashes, AdapterConfig]:
    """The bundle, what it was trained on, and what its files really hold. Blocks while they are read."""
    bundle = read_foreign(directory)
    for member in bundle.header.members:
        if member.name in (CONFIG_FILE, WEIGHTS_FILE, HASHES_FILE):
            found = file_record(directory / member.name, most=member.bytes)
            if (found.sha256, found.bytes) != (member.sha256, member.bytes):
                raise BundleInvalid(f"{directory / member.name} is not what was signed", hint=_SEND_AGAIN)
    try:
        hashes = msgspec.json.decode(read_document(directory / HASHES_FILE), type=LineageHashes)
    except (OSError, *DECODE_ERRORS) as error:
        raise BundleInvalid(f"{directory / HASHES_FILE}: {error}", hint=_SEND_AGAIN) from error
    return bundle, hashes, read_adapter_file(directory).config


def _refuse_misfit(
    bundle: ForeignBundle, adapter: AdapterConfig, strategy: Strategy, champion: Manifest | None
) -> None:
    """Which modules it adapts the worker compares, which knows those of the base."""
    expected, shape = adapter_shape(strategy), bundle.header.lora_shape
    if (adapter.r, adapter.lora_alpha) != (strategy.rank, strategy.alpha):
        shape = f"r{adapter.r} with alpha {adapter.lora_alpha:g}"
    name = f"bundle {bundle.id[:12]} of {bundle.signer}"
    if shape != expected:
        text = f"{name}: expected the LoRA shape {expected} of the strategy {strategy.name}, found {shape}"
        raise BundleInvalid(text, hint="use the same training.strategy on both machines")
    if champion is None:
        return  # the worker compares the base with the bundle's
    if champion.lora_shape != expected:
        text = f"cycle {champion.cycle} has the LoRA shape {champion.lora_shape}, {name} has {shape}: no comparison"
        raise BundleInvalid(text, hint="sleepctl rebase puts the base in use, to compare with that")
    if not is_same_base(champion.base_fingerprint, bundle.header.base_fingerprint):
        text = f"{name} belongs to another base, or to one with another chat template, than cycle {champion.cycle}"
        ours, theirs = (quantization_of(one.base_fingerprint) for one in (champion, bundle.header))
        if ours != theirs:
            text = f"{name} was measured with model.quantization = {theirs}, cycle {champion.cycle} with {ours}"
        raise BundleInvalid(text, hint="use the same model.base and model.quantization, with the same files, on both")


def _unseen(selection: Selection, taken: Taken, hashes: LineageHashes) -> Selection:
    """Held out: what the adapter has not seen. Trained: what it has seen of this machine's experiences."""
    ids, contents, conversations = (
        {int(each, 16) for each in part} for part in (hashes.ids, hashes.contents, hashes.conversations)
    )
    rows = list(zip(taken.view.keys, taken.view.groups, taken.view.conversations, strict=True))
    known = {key for key, group, _ in rows if key in ids or group in contents}
    near = known | {key for key, _, conversation in rows if conversation in conversations}
    trained = [key for key in [*selection.train, *selection.replay] if key in known]
    return Selection(train=trained, replay=[], holdout=[key for key in selection.holdout if key not in near])
