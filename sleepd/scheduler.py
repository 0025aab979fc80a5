"""``SleepScheduler``: the older scheduler's face, for the session scripts that call it.

Where a daemon runs on the same state directory, it is asked; else the work is done here, by the same code, while
this process holds the state directory's lock. Nothing is kept between two calls.

``python -m sleepd.scheduler [--check | --force]`` is the older script.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
import structlog

from . import log
from .client import Client
from .clock import SystemClock
from .config.checks import discover
from .config.layers import load
from .config.schema import Config
from .cycles.composition import Parts
from .cycles.read_model import ReadModel
from .cycles.sleeper import Sleeper
from .daemon.status_view import older_result
from .daemon.translation import decision_view, order_of, thresholds
from .errors import Busy, ConfigError, NothingToDo, SleepdError, StateLocked, UsageError
from .protocol.control import Check, GetStatus, Run
from .protocol.decision_view import DecisionView
from .protocol.given_thresholds import GivenThresholds
from .protocol.status import RunResult, Status
from .store.legacy_formats import local_naive, read_scheduler_state
from .store.state_lock import read_holder
from .text.display import clean

HISTORY_ENTRIES: Final = 5
_T = TypeVar("_T")


class _DefaultInt(int):
    """A documented default that the caller did not give: the configuration outranks it."""


class _DefaultFloat(float):
    """As ``_DefaultInt``."""


class SleepScheduler:
    """Decides whether to sleep, and sleeps. The older class's constructor and methods.

    Args:
        model_path: the base model; as ``[model] base``.
        experience_buffer_path: as ``[buffer] path``.
        checkpoint_dir: the state directory; as ``[state] directory``.
        min_experiences: as ``[triggers]``; also settable as an attribute afterwards, like the three below.
        min_new_experiences: as ``[triggers]``.
        min_hours_between_sleep: as ``[triggers]``.
        min_salience: as ``[training]``.
        device: ``cpu`` or ``cuda``; None: as ``[worker] device``.

    What is not given comes from the configuration that is found (``$SLEEPD_CONFIG``, the user's, the system's), its
    drop-ins and the environment, as for the daemon; else it is the default shown.

    Raises:
        ConfigError: no buffer is given and none is configured, or the configuration has an error.
    """

    def __init__(
        self,
        model_path: str | os.PathLike[str] | None = None,
        experience_buffer_path: str | os.PathLike[str] | None = None,
        checkpoint_dir: str | os.PathLike[str] | None = None,
        min_experiences: int = _DefaultInt(5),
        min_new_experiences: int = _DefaultInt(2),
        min_hours_between_sleep: float = _DefaultFloat(6.0),
        min_salience: float = _DefaultFloat(0.6),
        device: str | None = None,
    ) -> None:
        if not structlog.is_configured():
            # To standard error: callers print JSON on standard output.
            log.configure("warning")
        config = load(discover(os.environ), environment=os.environ).config
        self._config = _with_paths(config, model_path, experience_buffer_path, checkpoint_dir, device)
        if not self._config.buffer.paths:
            raise ConfigError(
                "no experience buffer is known: none was given, and no configuration names one",
                hint="SleepScheduler(experience_buffer_path=…), or [buffer] path in ~/.config/sage-sleepd/config.toml",
            )
        self._has_own_buffer = experience_buffer_path is not None
        self._has_own_base = model_path is not None
        self.min_experiences = min_experiences
        self.min_new_experiences = min_new_experiences
        self.min_hours_between_sleep = min_hours_between_sleep
        self.min_salience = min_salience

    # --- the older methods ---

    def should_run_sleep_cycle(self) -> tuple[bool, str]:
        """Whether a sleep is due now and nothing speaks against it, and why."""
        decision = self._decide()
        return decision.should_sleep, decision.reason

    def run_sleep_cycle(
        self,
        epochs: int | None = None,
        learning_rate: float | None = None,
        max_experiences: int | None = None,
        strategies: Sequence[str] = (),
    ) -> dict[str, Any]:
        """Sleep if due, and wait for the end.

        Args:
            epochs: None: as the strategy has it.
            learning_rate: None: as the strategy has it.
            max_experiences: most new experiences; None: as configured.
            strategies: two, against each other on the same experiences; empty: the configured one.

        Returns:
            Not due: ``status`` (``skipped``), ``reason``, ``timestamp``. With a verdict: ``sleep_cycle,
            num_experiences, epochs, final_loss, avg_salience, epoch_losses, learning_rate, timestamp``, and
            ``status`` (``completed``), ``promoted``, ``reason``, ``holdout``; of two strategies that of the better one,
            with ``strategy``, and ``rival`` for the other. Else: ``status`` (``failed``,
            ``cancelled``, ``interrupted``), ``reason``, ``hint``, ``sleep_cycle``, ``timestamp``.

        Raises:
            SleepdError: it could not be tried.
        """
        order = Run(epochs=epochs, learning_rate=learning_rate, max_experiences=max_experiences)
        return self.order(msgspec.structs.replace(order, strategies=list(strategies)))

    def get_status(self) -> dict[str, Any]:
        """How things stand; times are naive and local, as they always were."""
        decision = self._decide()
        found = {condition.name: condition.found for condition in decision.conditions}
        state = read_scheduler_state(Path(self._config.state.directory))
        hours = found["min_hours_between_sleep"]
        return {
            "total_experiences": int(found["min_experiences"] or 0),
            "experiences_since_last_sleep": int(found["min_new_experiences"] or 0),
            "total_sleep_cycles": state.total_sleep_cycles if state else 0,
            "last_sleep_time": state.last_sleep_time if state else None,
            "should_run_sleep": decision.should_sleep,
            "reason": decision.reason,
            "sleep_history": msgspec.to_builtins(state.sleep_history[-HISTORY_ENTRIES:]) if state else [],
            "hours_since_last_sleep": hours,
        }

    # --- what both faces share ---

    def order(self, request: Run) -> dict[str, Any]:
        """Sleep as ordered, and wait for the end; the result is that of ``run_sleep_cycle``."""
        request = msgspec.structs.replace(request, wait=True, thresholds=self._thresholds())

        async def here(sleeper: Sleeper, reader: ReadModel) -> dict[str, Any]:
            cycle = await sleeper.begin(order_of(request))
            await sleeper.finished()
            return older_result(reader, *reader.outcome(cycle))

        def there(client: Client) -> dict[str, Any]:
            result = client.call(request, RunResult)
            return result.older or {}

        try:
            return self._with_lock_holder(here, there)
        except (NothingToDo, Busy) as refusal:
            moment = local_naive(datetime.now(UTC))
            return {"status": "skipped", "reason": refusal.message, "timestamp": moment}

    def _decide(self) -> DecisionView:
        given = self._thresholds()

        async def here(sleeper: Sleeper, _reader: ReadModel) -> DecisionView:
            await sleeper.refresh()
            return decision_view(sleeper.decide(thresholds(given)))

        return self._with_lock_holder(here, lambda client: client.call(Check(thresholds=given), DecisionView))

    def _thresholds(self) -> GivenThresholds:
        """Those that were given explicitly."""

        def given(value: _T) -> _T | None:
            return None if isinstance(value, _DefaultInt | _DefaultFloat) else value

        return GivenThresholds(
            min_experiences=given(self.min_experiences),
            min_new_experiences=given(self.min_new_experiences),
            min_hours_between_sleep=given(self.min_hours_between_sleep),
            min_salience=given(self.min_salience),
        )

    def _with_lock_holder(
        self, here: Callable[[Sleeper, ReadModel], Awaitable[_T]], there: Callable[[Client], _T]
    ) -> _T:
        """Do it here while holding the lock, or ask the daemon that holds it."""

        async def locally() -> _T:
            parts = Parts(self._config, clock=SystemClock(), listener=_tell_nobody)
            sleeper = Sleeper(parts)
            try:
                return await here(sleeper, ReadModel(parts))
            finally:
                await sleeper.end_cycle()
                sleeper.close()

        try:
            return _run(locally)
        except StateLocked:
            holder = read_holder(Path(self._config.state.directory))
            if holder is None or not holder.socket:
                raise
            with Client(Path(holder.socket), timeout=None) as client:
                self._refuse_other_paths(client)
                return there(client)

    def _refuse_other_paths(self, client: Client) -> None:
        """The daemon works with its own buffer and base; a caller who names others must not believe otherwise."""
        status = client.call(GetStatus(), Status)
        for is_given, argument, its, asked in (
            (self._has_own_buffer, "experience_buffer_path", status.buffer.path, self._config.buffer.path_text),
            (self._has_own_base, "model_path", status.base, self._config.model.base),
        ):
            if is_given and its != asked:
                raise UsageError(
                    f"the daemon on {self._config.state.directory} works with {its}, not {asked}",
                    hint=f"leave {argument} out, or name another checkpoint_dir",
                )


def _tell_nobody(_event: str, _fields: dict[str, Any]) -> None:
    """There are no subscribers without a daemon."""


def _run(work: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
    """Run ``work`` to its end, in a thread of its own where the caller has a running loop already."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work())
    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(lambda: asyncio.run(work())).result()


def _with_paths(
    config: Config,
    model: str | os.PathLike[str] | None,
    buffer: str | os.PathLike[str] | None,
    state: str | os.PathLike[str] | None,
    device: str | None,
) -> Config:
    """The configuration, with what the caller gave in its place."""
    replace = msgspec.structs.replace
    if model is not None:
        config = replace(config, model=replace(config.model, base=os.fspath(model)))
    if buffer is not None:
        config = replace(config, buffer=replace(config.buffer, path=str(Path(buffer).expanduser().absolute())))
    if state is not None:
        config = replace(config, state=replace(config.state, directory=str(Path(state).expanduser().absolute())))
    if device is not None:
        kind = device.partition(":")[0]
        if kind not in ("cpu", "cuda", "auto"):
            raise UsageError(f"device: expected cpu, cuda or auto, found {device!r}", hint="leave it out for auto")
        config = replace(config, worker=replace(config.worker, device=kind))
    return config


def main(arguments: Sequence[str] | None = None) -> int:
    """The older script: check, or sleep if due, or (``--force``) sleep; prints JSON."""
    parser = argparse.ArgumentParser(prog="python -m sleepd.scheduler", description="Sleep if due, as configured.")
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--check", action="store_true", help="report whether a cycle is due, and do nothing")
    choice.add_argument("--force", action="store_true", help="start a cycle even if the three conditions are not met")
    options = parser.parse_args(arguments)
    try:
        scheduler = SleepScheduler()
        if options.check:
            status = scheduler.get_status()
            print(f"Should run: {status['should_run_sleep']}")  # noqa: T201
            print(f"Reason: {clean(status['reason'])}")  # noqa: T201
            print(json.dumps(status, indent=2))  # noqa: T201
            return 0
        results = scheduler.order(Run(force=options.force))
    except SleepdError as error:
        sys.stderr.write(f"sleepd.scheduler: {clean(error.message)}\nhint: {clean(error.hint)}\n")
        return error.exit_code
    print(json.dumps(results, indent=2))  # noqa: T201
    return 0 if results["status"] in ("completed", "skipped") else 1


if __name__ == "__main__":
    sys.exit(main())
