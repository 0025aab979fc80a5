"""``sleepctl sync``: bundles up and down through a directory or a remote; ``--dry-run`` lists what leaves."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

import msgspec

from sleepd.bundles.bundle_sync import BundleSync
from sleepd.bundles.exporting import Outgoing
from sleepd.bundles.foreign import ForeignBundle, foreign_bundles
from sleepd.errors import BundleInvalid, CheckpointInvalid, ConfigError, RemoteFailed, SleepdError
from sleepd.protocol.control import Judge
from sleepd.protocol.status import SCHEMA, RunResult
from sleepd.sleepctl.exit_codes import ExitCode
from sleepd.sleepctl.offline_cycle import champion_in, cycle_directory
from sleepd.sleepctl.pages.bundle_page import ID_DIGITS
from sleepd.sleepctl.pages.decision_page import line
from sleepd.sleepctl.pages.wording import size
from sleepd.sleepctl.session import Session
from sleepd.text.shell import command_line

from .bundle_commands import files_may_fail, require_owner


class SyncRound(msgspec.Struct, frozen=True, kw_only=True):
    """What one round did, or would do."""

    schema: int = SCHEMA
    is_dry_run: bool
    sent: str
    """The file that went up; empty: none."""
    sent_members: dict[str, int]
    """Bytes by name: all that leaves."""
    received: list[str]
    """Ids, or with ``--dry-run`` the files that would be looked at."""
    merged: list[str] = []
    """Files into which experiences of others were written."""
    judging: int | None = None
    """The cycle that judges one of them."""


def sync(session: Session) -> ExitCode:
    """Until Ctrl-C; with ``--once`` one round; with ``--dry-run`` none.

    Raises:
        ConfigError: neither a directory nor a remote is configured, or rclone cannot be used.
    """
    arguments, state = session.arguments, session.places.state
    config = session.places.load_config().config
    empty = "" if config.sync.directory or config.sync.remote else "sync.directory and sync.remote"
    if not empty and not (config.bundle.key or config.bundle.allowed_signers):
        empty = "bundle.key and bundle.allowed_signers"
    if empty:
        text = f"{empty} are empty: nothing goes, nothing comes"
        raise ConfigError(text, hint="sudoedit /etc/sage-sleepd/config.toml")
    find = partial(cycle_directory, state)
    bundle_sync = BundleSync(state, config.sync, config.bundle, find=find, note=session.console.note)
    directory = Path(config.sync.directory or state)
    if arguments.dry_run:
        with files_may_fail(directory):
            _show(session, _planned(bundle_sync, state))
        return ExitCode.OK
    require_owner(state, "sync")
    waiting: dict[str, str] = {}
    while True:
        try:
            with files_may_fail(directory):
                done = _round(session, bundle_sync)
                if config.sync.policy == "take":
                    done = msgspec.structs.replace(done, judging=_judge_next(session, bundle_sync, waiting))
                _show(session, done)
        except ConfigError:
            raise
        except SleepdError as error:
            if arguments.once:
                raise
            session.console.note(f"sync: {_said(error)}; the next round is in {config.sync.minutes:g} minutes")
        if arguments.once:
            return ExitCode.OK
        time.sleep(config.sync.minutes * 60)


def _planned(bundle_sync: BundleSync, state: Path) -> SyncRound:
    outgoing = bundle_sync.outgoing(champion_in(state))
    return SyncRound(
        is_dry_run=True,
        sent=bundle_sync.target(outgoing) if outgoing else "",
        sent_members=_members(outgoing),
        received=[bundle_sync.place(each) for each in bundle_sync.arrivals()],
    )


def _round(session: Session, bundle_sync: BundleSync) -> SyncRound:
    state, outgoing, sent = session.places.state, None, ""
    try:
        outgoing = bundle_sync.outgoing(champion_in(state))
        sent = bundle_sync.send(outgoing) if outgoing else ""
    except (CheckpointInvalid, RemoteFailed) as error:  # others' bundles come nevertheless
        session.console.note(f"sync: nothing is sent: {_said(error)}")
    try:
        if sent:
            bundle_sync.remove_old()
    except RemoteFailed as error:
        session.console.note(f"sync: old bundles stay until the next one is sent: {_said(error)}")
    received = bundle_sync.receive(at=session.clock.now())
    merges = session.places.load_config().config.sync.policy == "merge"
    return SyncRound(
        is_dry_run=False,
        sent=sent,
        sent_members=_members(outgoing if sent else None),
        received=[each.id for each in received],
        merged=[str(each) for each in bundle_sync.merge()] if merges else [],
    )


def _judge_next(session: Session, bundle_sync: BundleSync, waiting: dict[str, str]) -> int | None:
    """Have the daemon judge the newest bundle of a sender; None: it judges none now.

    One that cannot be judged here, or whose cycle ended without a verdict, leaves the turn to the next newest. What is
    older than one that was judged is not judged unasked.

    Args:
        session: asks the daemon.
        bundle_sync: remembers what was asked.
        waiting: why a bundle was not judged the last time it was asked about; the same reason is said once.
    """
    bundles, asked = foreign_bundles(session.places.state), bundle_sync.memory().asked
    judged, held = dict[str, int](), set[str]()
    for each in bundles:
        if each.judged is not None:
            judged[each.signer] = max(each.header.cycle, judged.get(each.signer, 0))
    for bundle in sorted(bundles, key=lambda each: each.header.cycle, reverse=True):
        if bundle.judged is not None or bundle.signer in held:
            continue
        try:
            _refuse_unasked(bundle, judged.get(bundle.signer, 0), asked.get(bundle.id))
            result: RunResult = session.ask(Judge(bundle=bundle.id), RunResult)
        except SleepdError as error:
            if not isinstance(error, BundleInvalid):
                held.add(bundle.signer)
            if waiting.get(bundle.id) != error.message:
                waiting[bundle.id] = error.message
                name = f"bundle {bundle.id[:ID_DIGITS]} of {bundle.signer}"
                session.console.note(f"{name} is not judged now: {_said(error)}")
        else:
            if result.cycle is not None:
                bundle_sync.note_asked(bundle.id, result.cycle)
            return result.cycle
    return None


def _refuse_unasked(bundle: ForeignBundle, judged: int, asked: int | None) -> None:
    """Refuse what only the operator may have judged."""
    hint = command_line("sleepctl", "bundle", "judge", bundle.id[:ID_DIGITS])
    if bundle.header.cycle <= judged:
        raise BundleInvalid(f"cycle {judged} of {bundle.signer} was judged before, and counts as newer", hint=hint)
    if asked is not None:
        raise BundleInvalid(f"cycle {asked} was begun for it, and has no verdict yet", hint=hint)


def _said(error: SleepdError) -> str:
    return f"{error.message}; {error.hint}" if error.hint else error.message


def _members(outgoing: Outgoing | None) -> dict[str, int]:
    return {each.name: each.bytes for each in outgoing.header.members} if outgoing else {}


def _show(session: Session, done: SyncRound) -> None:
    """A round in which nothing happened says nothing, but what would leave is always said."""
    page = []
    if done.sent:
        page.append(line(f"{'would send' if done.is_dry_run else 'sent'} {done.sent}", "green"))
        page += [line(f"  {name}: {size(number)}", "dim") for name, number in done.sent_members.items()]
    elif done.is_dry_run:
        page.append(line("nothing would be sent"))
    verb = "would look at" if done.is_dry_run else "received bundle"
    page += [line(f"{verb} {each}") for each in done.received]
    page += [line(f"experiences of another machine are in {each}") for each in done.merged]
    if done.judging is not None:
        page.append(line(f"cycle {done.judging} judges a bundle: sleepctl bundle list"))
    if page:
        session.console.show_one_of_many(done, page)
