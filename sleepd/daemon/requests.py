"""What each request means, and who may make it."""

from __future__ import annotations

import grp
import math
import os
import pwd
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

import msgspec

from sleepd.config.schema import Config
from sleepd.cycles.sleeper import Sleeper
from sleepd.errors import PermissionDenied, UsageError
from sleepd.policy.retention import Keep
from sleepd.policy.triggers import Policy
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
    Pause,
    Prune,
    Quarantine,
    QuarantineDecide,
    QuarantineShow,
    Reload,
    Resume,
    Rollback,
    Run,
    Show,
    Tag,
    Thresholds,
    Why,
)
from sleepd.protocol.status import SCHEMA, MetricResult, RunResult
from sleepd.text.shell import command_line, quoted
from sleepd.version import VERSION

from .control_socket import Peer
from .quarantine_view import decide_by_hand, quarantine_detail, quarantine_list
from .status_view import buffer_detail, cycles, detail, older_result, overview
from .trained_texts_view import learned


class Requests:
    """Answers requests about one sleeper.

    Args:
        sleeper: what they are about.
        reload: reads the configuration again; returns the changed keys.
        describe: when the next periodic check is, and which file the configuration came from.
    """

    def __init__(
        self,
        sleeper: Sleeper,
        *,
        reload: Callable[[], Awaitable[list[str]]],
        describe: Callable[[], tuple[datetime | None, str]],
    ) -> None:
        self._sleeper = sleeper
        self._reload = reload
        self._describe = describe

    async def respond(self, request: AnyRequest, peer: Peer) -> Any:
        """The answer's data.

        Raises:
            SleepdError: the request is refused, or what it asks for went wrong.
        """
        self._check_permission(request, peer)
        sleeper = self._sleeper
        match request:
            case GetStatus():
                next_check_at, config_path = self._describe()
                return overview(sleeper, next_check_at=next_check_at, config_path=config_path)
            case Check():
                await sleeper.look()
                return sleeper.decide(request.thresholds)
            case Run():
                return await self._run(request)
            case History():
                return {"schema": SCHEMA, "cycles": cycles(sleeper, limit=max(1, request.limit))}
            case Show():
                is_for_operator = is_operator(peer, sleeper.config.control.operator_group)
                return detail(sleeper, request.cycle, is_for_operator=is_for_operator)
            case Experiences():
                await sleeper.look()
                return await learned(sleeper, request.cycle, limit=request.limit)
            case Why():
                return self._why(request)
            case Buffer():
                await sleeper.look()
                return buffer_detail(sleeper)
            case Quarantine():
                await sleeper.look()
                return await quarantine_list(sleeper, limit=max(0, request.limit))
            case QuarantineShow():
                await sleeper.look()
                return await quarantine_detail(sleeper, request.id)
            case GetVersion():
                return {"schema": SCHEMA, "version": VERSION, "v": PROTOCOL_VERSION}
            case _:
                return await self._change(request)

    def _why(self, request: Why) -> dict[str, Any]:
        changes = self._sleeper.ledger.decisions(limit=max(1, request.limit), since=request.since)
        return {"schema": SCHEMA, "current": self._sleeper.decision or self._sleeper.decide(), "changes": changes}

    async def _change(self, request: AnyRequest) -> Any:
        """The requests that change something; each answer says how to undo it."""
        sleeper = self._sleeper
        match request:
            case Cancel():
                cycle = sleeper.cancel()
                return {"schema": SCHEMA, "cycle": cycle, "undo": "sleepctl run --force"}
            case Pause():
                sleeper.pause(is_paused=True)
                await sleeper.look()
                return {"schema": SCHEMA, "is_paused": True, "undo": "sleepctl resume"}
            case Resume():
                sleeper.pause(is_paused=False)
                await sleeper.look()
                return {"schema": SCHEMA, "is_paused": False, "undo": "sleepctl pause"}
            case Rollback():
                return await _rollback(sleeper, request)
            case Tag():
                return _tag(sleeper, request)
            case AddMetric():
                return await _add_metric(sleeper, request)
            case Prune():
                return sleeper.keeping.prune(Keep.of(sleeper.config.state, request.keep), is_dry_run=request.is_dry_run)
            case QuarantineDecide():
                await sleeper.look()
                done = await decide_by_hand(sleeper, request.ids, request.decision)
                await sleeper.look()
                return done
            case Reload():
                return {"schema": SCHEMA, "changed": await self._reload()}
            case _:
                raise UsageError(f"{type(request).__name__} is not answered here", hint="sleepctl --help")

    async def _run(self, order: Run) -> RunResult:
        check_order(order)
        cycle = await self._sleeper.begin(order)
        reason = f"Cycle {cycle} started"
        if not order.wait:
            return RunResult(is_started=True, reason=reason, cycle=cycle, undo="sleepctl cancel")
        await self._sleeper.finished()
        # Not the task's own result: another cycle may have begun and ended since.
        found = detail(self._sleeper, cycle)
        summary, older = found.summary, older_result(self._sleeper, found.summary)
        return RunResult(
            is_started=True, reason=summary.reason, cycle=cycle, summary=summary, older=older, undo=found.undo
        )

    def _check_permission(self, request: AnyRequest, peer: Peer) -> None:
        config = self._sleeper.config
        if not needs_operator(request, config) or is_operator(peer, config.control.operator_group):
            return
        raise PermissionDenied(
            f"user {peer.uid} may look, but not {_described(request)}",
            hint=f"as root, or as a member: sudo usermod -aG {quoted(config.control.operator_group)} USER, "
            "then log in again",
        )


async def _rollback(sleeper: Sleeper, request: Rollback) -> dict[str, Any]:
    champion, was = sleeper.rollback(request.cycle)
    await sleeper.look()
    return {
        "schema": SCHEMA,
        "champion": champion,
        "was": was,
        "quarantined": await sleeper.intake.quarantine_said_under(was) if was else 0,
        "undo": f"sleepctl rollback {was or 0}",
    }


def _tag(sleeper: Sleeper, request: Tag) -> dict[str, Any]:
    was = sleeper.keeping.tag(request.cycle, request.name)
    undo = command_line(
        "sleepctl", "tag", request.cycle, *([] if was else ["--remove"]), operands=(was,) if was else ()
    )
    return {"schema": SCHEMA, "cycle": request.cycle, "tag": request.name, "undo": undo}


async def _add_metric(sleeper: Sleeper, request: AddMetric) -> MetricResult:
    if request.value is not None and not math.isfinite(request.value):
        raise UsageError(f"{request.name}: expected a number, found {request.value}", hint="sleepctl metric --help")
    result = sleeper.metrics.add(
        request.cycle, request.name, request.value, at=sleeper.clock.now(), config=sleeper.config
    )
    await sleeper.look()  # which rolls back what breaks a limit
    return msgspec.structs.replace(result, champion=sleeper.checkpoints.champion())


def check_order(order: Run) -> None:
    """Refuse an order that makes no sense.

    Raises:
        UsageError: with the argument, what was expected and what came.
    """
    limits: list[tuple[str, float | None, float, float]] = [
        ("epochs", order.epochs, 1, 1000),
        ("learning_rate", order.learning_rate, 1e-8, 1.0),
        ("max_experiences", order.max_experiences, 1, 10**6),
    ]
    for name, value, low, high in limits:
        if value is not None and not low <= value <= high:
            raise UsageError(f"{name}: expected {low:g} to {high:g}, found {value:g}", hint="sleepctl run --help")


def needs_operator(request: AnyRequest, config: Config) -> bool:
    """Whether the request changes what the owner decided: all but looking, and sleeping when due."""
    if isinstance(request, Run):
        return request.force or request.is_explicit or _loosens(request.thresholds, config)
    return isinstance(request, OPERATOR_REQUESTS)


def _loosens(thresholds: Thresholds, config: Config) -> bool:
    return Policy.of(config, thresholds).is_looser_than(Policy.of(config))


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
