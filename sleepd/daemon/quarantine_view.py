"""The quarantine as its owner sees it: who is in and why, one experience with its text, and the owner's word on them.

The text is read from the agent's buffer when it is asked for; none is kept. One that holds a secret, or that was not
screened, is shown only to an operator who asks for that one experience.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable
from typing import Any, Final, Literal

from sleepd.buffer.experience import Experience, experience_key
from sleepd.buffer.trained_texts import SHOWN_AT_ONCE
from sleepd.cycles.sleeper import Sleeper
from sleepd.errors import BufferUnreadable, Busy, NotFound, NothingToDo
from sleepd.protocol.status import SCHEMA, QuarantineDetail, QuarantineEntry, QuarantineList
from sleepd.quarantine.rules import Cause, Override, OverrideKind
from sleepd.text.personal_data import counts_text, masked
from sleepd.text.shell import command_line

_PREVIEW: Final = 120
"""Characters of prompt and of reply."""
_WORDS: Final[dict[str, OverrideKind | None]] = {"release": "released", "drop": "dropped", "reset": None}
_FOUND: Final = {
    "loop": "loop",
    "questions": "flood of questions",
    "secret": "secret",
    "too_long": "too long",
    "unscreenable": "could not be screened",
    "near_duplicate": "near-duplicate",
    "bare_question": "nothing but a question, like many other replies",
}


async def quarantine_list(sleeper: Sleeper, *, limit: int) -> QuarantineList:
    """What is kept from training now and why, and what the owner decided."""
    causes = await _causes(sleeper)
    unscreened = sum(cause.why == "unscreened" for cause in causes.values())
    keys = [key for key, cause in causes.items() if cause.why != "unscreened"]
    keys += [key for key in sleeper.intake.quarantine.decisions if key not in causes]
    shown = keys[:limit]
    texts = await _texts(sleeper, shown)
    entries = [_entry(sleeper, key, causes.get(key), texts.get(key)) for key in shown]
    return QuarantineList(
        entries=entries,
        total=len(keys),
        unscreened=unscreened,
        personal=dict(await sleeper.intake.quarantine.personal(sleeper.intake.view)),
        personal_data=sleeper.config.quarantine.personal_data,
    )


async def quarantine_detail(sleeper: Sleeper, identifier: str) -> QuarantineDetail:
    """One experience, in quarantine or not.

    Raises:
        NotFound: it is not in the buffer, and nothing is known of it.
        BufferUnreadable: the buffer cannot be read.
    """
    key = _known_key(sleeper, identifier, sleeper.intake.view.keys)
    found = await sleeper.intake.buffer.extract([key]) if key in sleeper.intake.view.keys else []
    text = found[0] if found else None
    entry = _entry(sleeper, key, (await _causes(sleeper)).get(key), text)
    screened = sleeper.intake.quarantine.screenings.find(key)
    return QuarantineDetail(
        entry=entry,
        prompt=text.prompt if text else "",
        response=text.response if text else "",
        salience=text.salience if text else None,
        said_under=screened.said_under if screened else None,
    )


async def decide_by_hand(
    sleeper: Sleeper, identifiers: Iterable[str], decision: Literal["release", "drop", "reset"]
) -> dict[str, Any]:
    """Put the owner's word on experiences, or take it back.

    Raises:
        NotFound: one of them is not known; nothing is decided.
        NothingToDo: there is no decision to take back, or nothing to release one from.
        Busy: a cycle under way, or cut short, trains what is to be dropped.
        OSError: the disk did not take it.
    """
    quarantine = sleeper.intake.quarantine
    present = set(sleeper.intake.view.keys)  # a thousand scans of a hundred thousand keys would block the loop
    keys = {_known_key(sleeper, each, present): each for each in identifiers}
    causes = await _causes(sleeper)
    for key, identifier in keys.items():
        if decision == "reset" and key not in quarantine.decisions:
            raise NothingToDo(f"nothing was decided on {identifier}", hint="sleepctl quarantine")
        if decision == "release" and key not in causes and key not in quarantine.decisions:
            raise NothingToDo(f"{identifier} is not in quarantine", hint="sleepctl quarantine")
    if decision == "drop":
        _refuse_in_use(sleeper, keys)
    before = {key: quarantine.decisions.get(key) for key in keys}
    groups = {key: _group_before(sleeper, key) for key in keys.keys() - present}
    view = sleeper.intake.view
    groups |= {key: group for key, group in zip(view.keys, view.groups, strict=True) if key in keys}
    quarantine.decide(_WORDS[decision], {key: (each, groups[key]) for key, each in keys.items()})
    return {
        "schema": SCHEMA,
        "ids": list(keys.values()),
        "decision": decision,
        "trained_in": sorted(
            {cycle for each in keys.values() for cycle in sleeper.intake.quarantine.screenings.trained_in(each)}
        ),
        "undo": _undo(before, keys),
    }


def _undo(before: dict[int, Override | None], keys: dict[int, str]) -> str:
    """The command that brings back what was decided before, where one command can."""
    words = {each.word if each else None for each in before.values()}
    if len(words) > 1:
        return ""
    verb = {word: verb for verb, word in _WORDS.items()}[words.pop()]
    return command_line("sleepctl", "quarantine", verb, operands=tuple(keys.values()))


def _refuse_in_use(sleeper: Sleeper, keys: dict[int, str]) -> None:
    cycle = sleeper.running_cycle or sleeper.suspended_cycle
    if cycle is None:
        return
    for placement in sleeper.ledger.placements(cycle):
        if placement.key in keys:
            raise Busy(f"cycle {cycle} is under way with {placement.id}", hint="sleepctl cancel, then again")


def _known_key(sleeper: Sleeper, identifier: str, present: Container[int]) -> int:
    key = experience_key(identifier)
    is_known = key in present or key in sleeper.intake.quarantine.decisions
    if not is_known and sleeper.intake.quarantine.screenings.find(key) is None:
        raise NotFound(
            f"there is no experience {identifier}",
            hint="ids stand in the agent's file (buffer.path); sleepctl quarantine lists those in quarantine",
        )
    return key


def _group_before(sleeper: Sleeper, key: int) -> int:
    """Of its text as it was before it left the buffer."""
    decided, screened = sleeper.intake.quarantine.decisions.get(key), sleeper.intake.quarantine.screenings.find(key)
    return screened.group if screened else decided.group if decided else 0


async def _causes(sleeper: Sleeper) -> dict[int, Cause]:
    min_salience = sleeper.config.training.min_salience
    return await sleeper.intake.quarantine.causes(sleeper.intake.view, sleeper.history.known(), min_salience)


async def _texts(sleeper: Sleeper, keys: list[int]) -> dict[int, Experience]:
    present = set(sleeper.intake.view.keys).intersection(keys)
    if not present:
        return {}
    try:
        found = await sleeper.intake.buffer.extract(present, characters=SHOWN_AT_ONCE)
    except BufferUnreadable:
        return {}  # the list is worth having without; status says why
    return {experience_key(each.id): each for each in found}


def _entry(sleeper: Sleeper, key: int, cause: Cause | None, text: Experience | None) -> QuarantineEntry:
    screened, decision = sleeper.intake.quarantine.screenings.find(key), sleeper.intake.quarantine.decisions.get(key)
    reason: str = screened.reason if screened else ""
    found = ": ".join(filter(None, (_FOUND[reason], screened.detail))) if screened and reason else ""
    if cause is not None and cause.original is not None and screened:
        found = f"near-duplicate: {screened.detail} like {_name(sleeper, cause.original)}"
        found += f", which was recorded under cycle {cause.cycle}, rolled back" if cause.cycle else ""
    if cause is not None and cause.why == "said_under":
        reason, found = "said_under", f"recorded under cycle {cause.cycle}, which was rolled back"
    if cause is not None and cause.why == "unscreened":
        found = "not screened yet; not trained before that"
    if cause is not None and cause.why == "personal_data":
        reason, found = "personal_data", f"personal data: {counts_text(Counter(screened.personal))}" if screened else ""
    is_shown = text is not None and sleeper.intake.quarantine.screenings.may_text_be_shown(text)
    id_ = decision.id if decision else screened.id if screened else text.id if text else ""
    return QuarantineEntry(
        id=id_,
        state=decision.word if decision else "quarantined",
        reason=reason,
        text=found or ("a copy of what was dropped" if cause and not decision else "nothing was found in it"),
        at=decision.at if decision else sleeper.intake.quarantine.screenings.screened_at(key),
        preview=_preview(sleeper, text) if is_shown and text else "",
        trained_in=sleeper.intake.quarantine.screenings.trained_in(id_),
        is_kept_from_training=cause is not None or (decision is not None and decision.word == "dropped"),
    )


def _preview(sleeper: Sleeper, text: Experience) -> str:
    """The beginnings of prompt and reply; with placeholders where what is trained has them."""
    parts = [part[: 2 * _PREVIEW] for part in (text.prompt, text.response)]
    if sleeper.config.quarantine.personal_data == "mask":
        parts = [masked(part)[0] for part in parts]
    return " → ".join(part[:_PREVIEW] for part in parts)


def _name(sleeper: Sleeper, key: int) -> str:
    screened = sleeper.intake.quarantine.screenings.find(key)
    return screened.id if screened else "one that was screened before"
