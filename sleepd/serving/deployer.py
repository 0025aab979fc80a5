"""What the engine runs is brought to what ``current`` names, again and again.

Rule 1: wanted is what the link says; served is what the engine's answers proved. The two are never mixed up.
Rule 2: an attempt that ended without a proof is not repeated until something else is wanted, the operator asks, or its
pause has ended. The pauses double.
Rule 3: nothing has to be remembered. What a crash left is found by asking the engine.

Theory of operation. One background task, ``run``. It takes a turn when it is woken (a cycle ended, a champion was
rolled back, the configuration was read again), at the start, and every ``serve.proof_minutes``. A turn asks a serve
process (``serve_process``) to see to it that the engine runs what is wanted, and writes down what was proved. Between
two turns such a process watches for a restart of the engine: what was proved counts no longer, and once another
instance listens, a turn is taken.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

import msgspec

from sleepd.clock import Clock
from sleepd.config.schema import Config
from sleepd.errors import CheckpointInvalid, SleepdError
from sleepd.host import worker_python
from sleepd.log import get_logger
from sleepd.protocol.deployment.serve_messages import (
    Action,
    Generation,
    Phase,
    ServedState,
    ServeOutcome,
    ServeRequest,
    ServeStep,
)
from sleepd.store.checkpoints import Checkpoints
from sleepd.store.sqlite.ledger import Ledger
from sleepd.store.sqlite.notes import SERVE_ATTEMPT, ServeAttempt
from sleepd.store.sqlite.served import ServedTable

from .generations import Generations
from .serve_client import Ask

FIRST_PAUSE_SECONDS: Final = {"unreachable": 30.0, "not_served": 600.0, "put_back": 600.0}
"""After the first attempt without a proof; it doubles with each further one."""
LONGEST_PAUSE_SECONDS: Final = {"unreachable": 3600.0, "not_served": 86400.0, "put_back": 86400.0}
SILENT: Final = 2
"""So often an engine may be away before that is a warning: it may be restarted just now."""
REST_SECONDS: Final = 30.0
"""Between two turns that restarts of the engine ask for: one that ends again and again is not asked each time."""
ALARM: Final = "not_served"


class Deployer:
    """Serving in one state directory.

    Args:
        config: the configuration in force.
        ledger: where proofs are kept.
        checkpoints: where generations stand.
        clock: where time comes from.
        listener: called with every past fact.
        note_alarm: called with a name and a text: something lasts, or, with an empty text, no longer.
        ask: has a request carried out.
    """

    def __init__(
        self,
        config: Config,
        ledger: Ledger,
        checkpoints: Checkpoints,
        clock: Clock,
        *,
        listener: Callable[[str, dict[str, Any]], None],
        note_alarm: Callable[[str, str], None],
        ask: Ask,
    ) -> None:
        self._config = config
        self._ledger = ledger
        self._directory = checkpoints.directory
        self._clock = clock
        self._listener = listener
        self._note_alarm = note_alarm
        self._ask = ask
        self.table = ServedTable(ledger.database)
        self._generations = Generations(ledger, checkpoints)
        self._wake = asyncio.Event()
        self._busy = asyncio.Lock()
        self._phase: Phase = ""
        self._is_asked_for = False
        self._was_asked = False
        self._is_silent = False
        self._is_freed = False
        self._instance: str | None = None
        self._has_restarted = False

    def wake(self, *, is_asked_for: bool = False) -> None:
        """Take a turn soon; ``is_asked_for``: an operator wants it, whatever pause there is."""
        self._is_asked_for |= is_asked_for
        self._wake.set()

    def reconfigure(self, config: Config) -> None:
        """Use another configuration from now on, and take a turn."""
        if config.serve != self._config.serve:
            self._was_asked = False
        self._config = config
        self.wake(is_asked_for=True)

    async def run(self) -> None:
        """Take turns, for ever."""
        while True:
            self._wake.clear()
            seconds = await self.turn()
            waits: list[asyncio.Future[Any]] = [asyncio.ensure_future(self._wake.wait())]
            if seconds is not None:
                waits.append(asyncio.ensure_future(self._restart()))
            try:
                await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for each in waits:
                    each.cancel()
                await asyncio.gather(*waits, return_exceptions=True)

    async def _restart(self) -> None:
        """Wait until another instance of the engine listens than the one that was asked last."""
        begun = self._clock.monotonic()
        while not self._has_restarted:
            request = msgspec.structs.replace(self._request("watch", None, []), instance=self._instance)
            outcome = await self._carry_out(request)
            if outcome.result != "watched":
                get_logger().warning("engine_not_watched", text=outcome.text, hint=outcome.hint)
                await asyncio.Event().wait()  # the next turn comes with its time
            if self._instance is not None and outcome.instance != self._instance:
                self._is_silent = True
                self._has_restarted = bool(outcome.instance)
                self._listener("serving", {})
            self._instance = outcome.instance
        await asyncio.sleep(max(0.0, REST_SECONDS - (self._clock.monotonic() - begun)))

    async def turn(self) -> float | None:
        """Bring the engine to what is wanted, where something is to be done; returns after how long to come again."""
        async with self._busy:
            is_asked_for, self._is_asked_for = self._is_asked_for, False
            has_restarted, self._has_restarted = self._has_restarted, False
            if not self._config.serve.kind:
                self._note_alarm(ALARM, "")
                return None
            if self._is_freed:
                return None
            try:
                return await self._turn(is_asked_for=is_asked_for, has_restarted=has_restarted)
            except SleepdError as error:
                self._fail(error.message, error.hint)
                return FIRST_PAUSE_SECONDS["unreachable"]
            finally:
                self._phase = ""
                self._listener("serving", {})

    async def _turn(self, *, is_asked_for: bool, has_restarted: bool) -> float | None:
        wanted = self._generations.wanted()
        last = self.table.last()
        others = self._generations.others(wanted, last.cycle if last else None)
        if wanted is None and not others:
            return None  # nothing was trained yet that an engine could be given, or be known by
        attempt = self._attempt(wanted)
        is_back = has_restarted and attempt is not None and attempt.result == "unreachable"
        left = 0.0 if is_asked_for or is_back or attempt is None else self._pause_left(attempt)
        if left > 0 and self._was_asked and not has_restarted:
            return left
        request = self._request("ensure", wanted, others)
        if attempt is not None:
            request = msgspec.structs.replace(request, was_given=attempt.was_given, failures=attempt.failures)
        request = msgspec.structs.replace(request, may_swap=left <= 0, is_asked_for=is_asked_for)
        outcome = await self._carry_out(request)
        self._was_asked, self._instance = True, outcome.instance
        self._note_served(outcome)
        if outcome.result != "proved" and left > 0:
            return left  # it was only asked what the engine runs
        self._note_attempt(wanted, attempt, outcome)
        return self._seconds_until_next(wanted)

    def _request(self, action: Action, wanted: Generation | None, others: list[Generation]) -> ServeRequest:
        last = self.table.last()
        fallback = None if last is None or last.cycle is None else self._generations.find(last.cycle)
        return ServeRequest(
            action=action,
            wanted=wanted,
            fallback=fallback,
            has_fallback=last is not None and (last.cycle is None or fallback is not None),
            others=others,
            settings=msgspec.to_builtins(self._config.serve),
            state_directory=str(self._directory),
            base=self._config.model.base,
            cache_directory=self._config.model.cache_directory,
            python=worker_python(self._config.worker.python),
        )

    async def _carry_out(self, request: ServeRequest) -> ServeOutcome:
        try:
            return await self._ask(request, self._on_step)
        except SleepdError as error:
            return ServeOutcome(result="unreachable", text=error.message, hint=error.hint)

    def _on_step(self, step: ServeStep) -> None:
        self._phase = step.phase
        if step.is_known:
            self.table.note_found(step.cycle, at=self._clock.now())
        if step.phase in ("swapping", "putting_back", "freeing"):
            self.table.end_span(at=self._clock.now())
        self._listener("serving", {"phase": step.phase, "text": step.text})

    # --- what came of it ---

    def _note_served(self, outcome: ServeOutcome) -> None:
        """Write down what was proved, or that what was proved before holds no longer."""
        self._is_silent = outcome.result == "unreachable"
        if not outcome.is_known:
            if not self._is_silent:
                self.table.end_span(at=None)
            return
        was = self.table.last()
        distance, next_nearest = outcome.distance, outcome.next_nearest
        at = self._clock.now()
        self.table.note_proof(outcome.cycle, at=at, distance=distance, next_nearest=next_nearest)
        if was is None or was.cycle != outcome.cycle or was.until is not None:
            text = f"{_named(outcome.cycle)} is served: the engine's own answers prove it"
            fields = {"cycle": outcome.cycle, "was": was.cycle if was else None}
            figures = {"distance": distance, "next_nearest": next_nearest}
            get_logger().info("served", text=text, **fields, **figures)
            self._listener("served", {**fields, **figures, "text": text})

    def _note_attempt(self, wanted: Generation | None, was: ServeAttempt | None, outcome: ServeOutcome) -> None:
        is_failure = outcome.result in FIRST_PAUSE_SECONDS
        was_given = was is not None and was.was_given
        attempt = ServeAttempt(
            key=self._key(wanted),
            result=outcome.result,
            text=outcome.text,
            hint=outcome.hint,
            at=self._clock.now(),
            failures=(was.failures if was else 0) + 1 if is_failure else 0,
            was_given=not is_failure or (was_given and not outcome.has_swapped),
        )
        self._ledger.set_note(SERVE_ATTEMPT, attempt)
        is_news = attempt.text and (was is None or was.text != attempt.text)
        if is_news:
            cycle = wanted.cycle if wanted else None
            get_logger().error("serving_failed", cycle=cycle or 0, text=attempt.text, hint=attempt.hint)
            fields = {"wanted": cycle, "result": attempt.result, "text": attempt.text, "hint": attempt.hint}
            self._listener("serving_failed", fields)
        is_alarm = is_failure and (attempt.result != "unreachable" or attempt.failures >= SILENT)
        self._note_alarm(ALARM, attempt.text if is_alarm else "")

    def _fail(self, text: str, hint: str) -> None:
        """The link, a checkpoint or the ledger is damaged: nothing was asked of the engine."""
        get_logger().error("serving_failed", cycle=0, text=text, hint=hint)
        self._note_alarm(ALARM, text)

    def _attempt(self, wanted: Generation | None) -> ServeAttempt | None:
        """The last attempt, where it was at the same; None: at something else, or there was none."""
        attempt = self._ledger.note(SERVE_ATTEMPT)
        return attempt if attempt is not None and attempt.key == self._key(wanted) else None

    def _key(self, wanted: Generation | None) -> str:
        serve = self._config.serve
        return f"{f'{wanted.cycle} {wanted.sha256}' if wanted else 'base'} {serve.kind} {serve.url} {serve.model}"

    def _pause_left(self, attempt: ServeAttempt) -> float:
        if attempt.result not in FIRST_PAUSE_SECONDS:
            return 0.0
        first, longest = FIRST_PAUSE_SECONDS[attempt.result], LONGEST_PAUSE_SECONDS[attempt.result]
        pause: float = min(longest, first * 2.0 ** min(30, attempt.failures - 1))
        passed = (self._clock.now() - attempt.at).total_seconds()
        return max(0.0, pause - max(0.0, passed))

    def _seconds_until_next(self, wanted: Generation | None) -> float:
        attempt = self._attempt(wanted)
        left = self._pause_left(attempt) if attempt else 0.0
        return left or self._config.serve.proof_minutes * 60

    # --- the GPU, before a cycle ---

    async def free(self) -> None:
        """Ask the engine to give the GPU to a cycle, where that is configured; ``resume`` takes it back."""
        serve = self._config.serve
        if not (serve.kind and serve.free_before_training):
            return
        async with self._busy:
            self._is_freed = True
            self._wake.set()  # nobody watches an engine that is to stop
            wanted = self._generations.wanted()
            outcome = await self._carry_out(self._request("free", wanted, []))
            self._phase = ""
            if outcome.result != "freed":
                get_logger().warning("gpu_not_freed", text=outcome.text, hint=outcome.hint)

    def resume(self) -> None:
        """No cycle trains any more."""
        self._is_freed = False
        self.wake()

    # --- what is shown ---

    def served_cycle(self) -> int | None:
        """What was proved last, whose weights stay; None: the base, or nothing."""
        last = self.table.last()
        return last.cycle if last else None

    @property
    def state(self) -> ServedState | None:
        """What the engine runs, as far as that is proved; None: no engine is configured."""
        serve = self._config.serve
        if not serve.kind:
            return None
        problem, hint, wanted = "", "", None
        try:
            wanted = self._generations.wanted()
        except CheckpointInvalid as error:
            problem, hint = error.message, error.hint
        span, attempt = self.table.open_span(), self._attempt(wanted)
        if attempt is not None and not problem:
            problem, hint = attempt.text, attempt.hint
        if self._is_silent and span is not None and not problem:
            problem = "the engine was restarted or is away: what it runs is asked again once it listens"
        left = self._pause_left(attempt) if attempt else 0.0
        return ServedState(
            kind=serve.kind,
            url=serve.url,
            model=serve.model,
            wanted=wanted.cycle if wanted else None,
            served=span.cycle if span else None,
            is_proved=span is not None and not self._is_silent,
            since=span.since if span else None,
            proved_at=span.proved_at if span else None,
            distance=span.distance if span else None,
            next_nearest=span.next_nearest if span else None,
            phase=self._phase,
            problem=problem,
            hint=hint,
            retry_at=self._clock.now() + timedelta(seconds=left) if left > 0 else None,
        )


def _named(cycle: int | None) -> str:
    return "the base" if cycle is None else f"cycle {cycle}"
