"""The quarantine as the operator sees it: who is in and why, one experience with its text, overrides.

The text is read from the agent's buffer when it is asked for; none is kept. One that holds a secret, or that was not
screened, is shown only to an operator who asks for that one experience.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final

from sleepd.buffer.experience import Experience, id_hash
from sleepd.buffer.trained_texts import SHOWN_AT_ONCE
from sleepd.cycles.quarantine_override import KINDS, OverrideDone, Verb
from sleepd.cycles.read_model import ReadModel
from sleepd.cycles.sleeper import Sleeper
from sleepd.errors import BufferUnreadable
from sleepd.protocol.answers import Decided
from sleepd.protocol.chat_example import ChatExample
from sleepd.protocol.status import QuarantineDetail, QuarantineEntry, QuarantineList
from sleepd.quarantine.rules import Cause
from sleepd.text.personal_data import counts_text, masked
from sleepd.text.shell import command_line

_PREVIEW: Final = 120
"""Characters of prompt and of reply."""
_FOUND: Final = {
    "loop": "loop",
    "questions": "flood of questions",
    "secret": "secret",
    "too_long": "too long",
    "unscreenable": "could not be screened",
    "near_duplicate": "near-duplicate",
    "bare_question": "nothing but a question, like many other replies",
}


async def quarantine_list(reader: ReadModel, *, limit: int) -> QuarantineList:
    """What is excluded from training now and why, and the operator's overrides."""
    causes = await reader.buffer.causes()
    unscreened = sum(cause.why == "unscreened" for cause in causes.values())
    keys = [key for key, cause in causes.items() if cause.why != "unscreened"]
    keys += [key for key in reader.buffer.overrides if key not in causes]
    shown = keys[:limit]
    texts = await _texts(reader, shown)
    entries = [_entry(reader, key, causes.get(key), texts.get(key)) for key in shown]
    return QuarantineList(
        entries=entries,
        total=len(keys),
        unscreened=unscreened,
        personal=dict(await reader.buffer.personal()),
        personal_data=reader.config.quarantine.personal_data,
    )


async def quarantine_detail(reader: ReadModel, identifier: str) -> QuarantineDetail:
    """One experience, in quarantine or not.

    Raises:
        NotFound: it is not in the buffer, and nothing is known of it.
        BufferUnreadable: the buffer cannot be read.
    """
    key = reader.buffer.known_key(identifier)
    found = await reader.buffer.texts([key]) if key in reader.buffer.view.keys else []
    text = found[0] if found else None
    entry = _entry(reader, key, (await reader.buffer.causes()).get(key), text)
    screened = reader.buffer.screening(key)
    under, is_by_time = reader.buffer.said_under(screened) if screened else (None, False)
    return QuarantineDetail(
        entry=entry,
        salience=text.salience if text else None,
        said_under=under,
        is_said_under_by_time=is_by_time,
        **(text or ChatExample(prompt="", response="")).parts(),
    )


async def sample(reader: ReadModel, most: int) -> list[QuarantineDetail]:
    """The first experiences of the buffer, as they were understood.

    Raises:
        BufferUnreadable: the buffer cannot be read.
    """
    found = await reader.buffer.texts(reader.buffer.view.keys[:most], characters=SHOWN_AT_ONCE)
    return [await quarantine_detail(reader, one.id) for one in found]


async def override(sleeper: Sleeper, identifiers: Iterable[str], verb: Verb) -> Decided:
    """Override the quarantine for experiences, or undo that; as ``Sleeper.override_quarantine``."""
    done = await sleeper.override_quarantine(identifiers, verb)
    return Decided(ids=done.ids, decision=verb, trained_in=done.trained_in, undo=_undo(done))


def _undo(done: OverrideDone) -> str:
    """The command that brings back what was decided before; empty: no single command does."""
    if len(done.kinds_before) > 1:
        return ""
    verb_of = {kind: verb for verb, kind in KINDS.items()}
    (before,) = done.kinds_before
    return command_line("sleepctl", "quarantine", verb_of[before], operands=tuple(done.ids))


async def _texts(reader: ReadModel, keys: list[int]) -> dict[int, Experience]:
    present = set(keys).intersection(reader.buffer.view.keys)
    if not present:
        return {}
    try:
        found = await reader.buffer.texts(present, characters=SHOWN_AT_ONCE)
    except BufferUnreadable:
        return {}  # the list is worth having without; status says why
    return {id_hash(each.id): each for each in found}


def _entry(reader: ReadModel, key: int, cause: Cause | None, text: Experience | None) -> QuarantineEntry:
    screened, decision = reader.buffer.screening(key), reader.buffer.overrides.get(key)
    reason: str = screened.reason if screened else ""
    found = ": ".join(filter(None, (_FOUND[reason], screened.detail))) if screened and reason else ""
    if cause is not None and cause.original is not None and screened:
        found = f"near-duplicate: {screened.detail} like {_name(reader, cause.original)}"
        found += f", which was {_recorded(cause)}, rolled back" if cause.cycle else ""
    if cause is not None and cause.why == "said_under":
        reason, found = "said_under", f"{_recorded(cause)}, which was rolled back"
    if cause is not None and cause.why == "unscreened":
        found = "not screened yet; not trained before that"
    if cause is not None and cause.why == "personal_data":
        reason, found = "personal_data", f"personal data: {counts_text(Counter(screened.personal))}" if screened else ""
    is_shown = text is not None and reader.buffer.may_text_be_shown(text)
    id_ = decision.id if decision else screened.id if screened else text.id if text else ""
    return QuarantineEntry(
        id=id_,
        state=decision.kind if decision else "quarantined",
        reason=reason,
        text=found or ("a copy of what was dropped" if cause and not decision else "nothing was found in it"),
        at=decision.at if decision else reader.buffer.screened_at(key),
        preview=_preview(reader, text) if is_shown and text else "",
        trained_in=reader.buffer.trained_in(id_),
        is_kept_from_training=cause is not None or (decision is not None and decision.kind == "dropped"),
    )


def _recorded(cause: Cause) -> str:
    return f"recorded under cycle {cause.cycle}{' by its time' if cause.is_by_time else ''}"


def _preview(reader: ReadModel, text: Experience) -> str:
    """The beginnings of prompt and reply; with placeholders where what is trained has them."""
    parts = [part[: 2 * _PREVIEW] for part in (text.prompt, text.whole_response)]
    if reader.config.quarantine.personal_data == "mask":
        parts = [masked(part)[0] for part in parts]
    return " → ".join(part[:_PREVIEW] for part in parts)


def _name(reader: ReadModel, key: int) -> str:
    screened = reader.buffer.screening(key)
    return screened.id if screened else "one that was screened before"
