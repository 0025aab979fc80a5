"""What each request means, and who may make it."""

from __future__ import annotations

import asyncio
import grp
import os
import pwd
from collections.abc import Awaitable, Callable
from datetime import datetime

import msgspec

from sleepd.config.schema import Config
from sleepd.cycles.read_model import ReadModel
from sleepd.cycles.sleeper import Sleeper
from sleepd.errors import PermissionDenied, UsageError
from sleepd.policy.timing.simulation import simulate
from sleepd.policy.timing.triggers import Policy
from sleepd.protocol.answers import (
    Cancelled,
    Cycles,
    DaemonVersion,
    ExpectedSleep,
    MetricResult,
    PastAlarm,
    Paused,
    Pruned,
    PruneResult,
    Reasons,
    Reloaded,
    RolledBack,
    SimulatedTriggers,
    SimulatedView,
    Tagged,
)
from sleepd.protocol.control import (
    OPERATOR_REQUESTS,
    PROTOCOL_VERSION,
    AddMetric,
    AnyRequest,
    Buffer,
    Cancel,
    Check,
    Experiences,
    GetStatus,
    GetVersion,
    History,
    Judge,
    Pause,
    Prune,
    Quarantine,
    QuarantineDecide,
    QuarantineShow,
    Reload,
    Resume,
    Rollback,
    Run,
    Search,
    Show,
    Simulate,
    Tag,
    When,
    Why,
)
from sleepd.protocol.conversion import converted
from sleepd.protocol.status import RunResult
from sleepd.text.shell import command_line, quoted
from sleepd.version import VERSION

from .buffer_search import search
from .control_socket import Peer
from .publisher import Life
from .quarantine_view import override, quarantine_detail, quarantine_list, sample
from .status_view import buffer_detail, cycles, detail, older_result, overview, until_proved
from .trained_texts_view import learned
from .translation import decision_record, decision_view, order_of, policy_of, simulated_view, thresholds


class Requests:
    """Answers requests about one state directory.

    Args:
        sleeper: carries out orders.
        reader: answers questions.
        life: what the daemon alone knows of itself.
        reload: reads the configuration again; returns the changed keys.
    """

    def __init__(
        self, sleeper: Sleeper, reader: ReadModel, life: Life, *, reload: Callable[[], Awaitable[list[str]]]
    ) -> None:
        self._sleeper = sleeper
        self._reader = reader
        self._reload = reload
        self._life = life

    async def respond(self, request: AnyRequest, peer: Peer) -> msgspec.Struct:
        """The answer's data.

        Raises:
            SleepdError: the request is refused, or what it asks for went wrong.
        """
        self._check_permission(request, peer)
        sleeper, reader = self._sleeper, self._reader
        match request:
            case GetStatus():
                life = self._life
                return overview(reader, next_check_at=life.next_check_at, config_path=str(life.config_path))
            case Run():
                return await self._run(request)
            case History():
                limit = max(1, request.limit)
                found = cycles(reader, limit=limit, before=request.before)
                return Cycles(cycles=found, served=reader.served(limit=limit))
            case Show():
                is_for_operator = is_operator(peer, reader.config.control.operator_group)
                return detail(reader, request.cycle, is_for_operator=is_for_operator)
            case Why():
                return self._reasons(max(1, request.limit), request.since)
            case Simulate():
                return await self._simulate(request)
            case When():
                await sleeper.refresh()
                return ExpectedSleep(**reader.forecast()._asdict())
            case GetVersion():
                return DaemonVersion(version=VERSION, v=PROTOCOL_VERSION)
            case Check():
                await sleeper.refresh()
                return decision_view(sleeper.decide(thresholds(request.thresholds)))
            case Experiences() | Search() | Buffer() | Quarantine() | QuarantineShow():
                await sleeper.refresh()
                return await self._about_the_buffer(request)
            case _:
                return await self._change(request)

    def _reasons(self, limit: int, since: datetime | None) -> Reasons:
        reader = self._reader
        changes = [decision_record(each) for each in reader.decisions(limit=limit, since=since)]
        alarms = [converted(each, PastAlarm) for each in reader.past_alarms(limit=limit, since=since)]
        current, adopted = decision_view(reader.decision), reader.adopted_strategy
        return Reasons(current=current, changes=changes, alarms=alarms, adopted_strategy=adopted)

    async def _simulate(self, request: Simulate) -> SimulatedTriggers:
        """In a thread: a month of recorded facts takes a while."""
        reader, now = self._reader, self._reader.now
        looks = reader.looks(request.since)

        def run() -> list[SimulatedView]:
            policies = (Policy.of(reader.config), policy_of(request.triggers, reader.config))
            return [simulated_view(simulate(looks, policy, until=now)) for policy in policies]

        configured, given = await asyncio.to_thread(run)
        return SimulatedTriggers(
            first=looks[0].at if looks else None,
            looks=len(looks),
            began=reader.begun_since(request.since),
            configured=configured,
            given=given,
        )

    async def _about_the_buffer(
        self, request: Experiences | Search | Buffer | Quarantine | QuarantineShow
    ) -> msgspec.Struct:
        """What is answered from the buffer as it was just read."""
        match request:
            case Experiences():
                return await learned(self._reader, request.cycle, limit=request.limit)
            case Search():
                return await search(self._reader, request.words, limit=request.limit)
            case Buffer():
                unnamed = await self._reader.buffer.ratings_without_reply()
                found = buffer_detail(self._reader, moments=request.moments, ratings_without_reply=unnamed)
                return msgspec.structs.replace(found, sample=await sample(self._reader, request.sample))
            case Quarantine():
                return await quarantine_list(self._reader, limit=max(0, request.limit))
            case QuarantineShow():
                return await quarantine_detail(self._reader, request.id)

    async def _change(self, request: AnyRequest) -> msgspec.Struct:
        """The requests that change something; each answer has the command that undoes it."""
        sleeper = self._sleeper
        match request:
            case Cancel():
                return Cancelled(cycle=sleeper.cancel(), undo="sleepctl run --force")
            case Pause() | Resume():
                is_paused = isinstance(request, Pause)
                sleeper.pause(is_paused=is_paused)
                await sleeper.refresh()
                return Paused(is_paused=is_paused, undo="sleepctl resume" if is_paused else "sleepctl pause")
            case Rollback():
                return await self._rollback(request)
            case Tag():
                return self._tag(request)
            case AddMetric():
                return await self._add_metric(request)
            case Judge():
                cycle = await sleeper.begin_judging(request.bundle)
                reason = f"Cycle {cycle} judges bundle {request.bundle[:12]}"
                return RunResult(is_started=True, reason=reason, cycle=cycle, undo="sleepctl cancel")
            case Prune():
                pruned = sleeper.prune(request.keep, is_dry_run=request.is_dry_run)
                return PruneResult(pruned=[converted(each, Pruned) for each in pruned], is_dry_run=request.is_dry_run)
            case QuarantineDecide():
                await sleeper.refresh()
                done = await override(sleeper, request.ids, request.decision)
                await sleeper.refresh()
                return done
            case Reload():
                return Reloaded(changed=await self._reload())
            case _:
                raise UsageError(f"{type(request).__name__} is not answered here", hint="sleepctl --help")

    async def _run(self, request: Run) -> RunResult:
        cycle = await self._sleeper.begin(order_of(request))
        reason = f"Cycle {cycle} started"
        if not request.wait:
            return RunResult(is_started=True, reason=reason, cycle=cycle, undo="sleepctl cancel")
        await self._sleeper.finished()
        # Not the task's own result: another cycle may have begun and ended since.
        shown, rival = self._reader.outcome(cycle)
        found = detail(self._reader, shown.cycle)
        return RunResult(
            is_started=True,
            reason=found.summary.reason,
            cycle=shown.cycle,
            summary=found.summary,
            rival=found.rival,
            older=older_result(self._reader, shown, rival),
            undo=found.undo,
        )

    async def _rollback(self, request: Rollback) -> RolledBack:
        champion, was = self._sleeper.rollback(request.cycle)
        await self._sleeper.refresh()
        quarantined = await self._sleeper.recount_said_under(was) if was else 0
        serving = self._reader.serving
        return RolledBack(
            champion=champion,
            was=was,
            quarantined=quarantined,
            served=serving.served if serving else None,
            serving=until_proved(serving) if serving else "",
            undo=f"sleepctl rollback {was or 0}",
        )

    def _tag(self, request: Tag) -> Tagged:
        was = self._sleeper.tag(request.cycle, request.name)
        undo = command_line(
            "sleepctl", "tag", request.cycle, *([] if was else ["--remove"]), operands=(was,) if was else ()
        )
        return Tagged(cycle=request.cycle, tag=request.name, undo=undo)

    async def _add_metric(self, request: AddMetric) -> MetricResult:
        cycle, name = request.cycle, request.name
        effect = self._sleeper.add_metric(cycle, name, request.value)
        await self._sleeper.refresh()  # which rolls back what breaks a limit
        was = effect.was
        undo = command_line(
            *("sleepctl", "metric", "remove" if was is None else "add", cycle),
            operands=(name,) if was is None else (name, f"{was:g}"),
        )
        return MetricResult(
            cycle=cycle,
            name=name,
            value=request.value,
            figures=effect.figures,
            is_broken=effect.is_broken,
            was_champion=effect.was_champion,
            champion=self._reader.champion(),
            undo=undo,
        )

    def _check_permission(self, request: AnyRequest, peer: Peer) -> None:
        config = self._reader.config
        if not needs_operator(request, config) or is_operator(peer, config.control.operator_group):
            return
        raise PermissionDenied(
            f"user {peer.uid} may read, but not {_described(request)}",
            hint=f"as root, or as a member: sudo usermod -aG {quoted(config.control.operator_group)} USER, "
            "then log in again",
        )


def needs_operator(request: AnyRequest, config: Config) -> bool:
    """Whether the request changes what the operator decided: all but looking, and sleeping when due."""
    if isinstance(request, Run):
        order = order_of(request)
        loosened = Policy.of(config, order.thresholds).is_looser_than(Policy.of(config))
        return order.force or order.is_explicit or loosened
    if isinstance(request, Buffer):
        return request.sample > 0
    return isinstance(request, OPERATOR_REQUESTS)


def is_operator(peer: Peer, group: str) -> bool:
    """Root, the daemon's own user, and the members of the operators' group."""
    if peer.uid in (0, os.getuid()):
        return True
    try:
        gid = grp.getgrnam(group).gr_gid
    except KeyError:
        return False
    try:
        name = pwd.getpwuid(peer.uid).pw_name
    except KeyError:  # a user id without a name, as in containers
        return peer.gid == gid
    return gid in os.getgrouplist(name, peer.gid)


def _described(request: AnyRequest) -> str:
    if isinstance(request, Run):
        return "force a cycle" if request.force else "run a cycle on other terms than the configured ones"
    return type(request).__name__.lower()
