"""One round: ask what the engine runs; where it is not what is wanted, swap it, and prove the swap.

Rule 1: nothing is called served that the engine's own answers did not prove.
Rule 2: before the step ``swapping`` the engine is as it was. From there on nothing is known until the next proof.
Rule 3: what cannot be proved is not left in the engine: what was proved last is put back, and proved again. Where the
answers cannot tell either way (too few log-probabilities, nothing recorded), it stays, and is called unproved.
Rule 4: no step has to be remembered. After a death at any point the next round asks, and goes on from what it finds.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from sleepd.errors import EngineFailed, EngineUnreachable, SleepdError
from sleepd.protocol.deployment.adapter_fingerprint import LEAST_CHANCES
from sleepd.protocol.deployment.serve_messages import Generation, Phase, Result, ServeOutcome, ServeRequest, ServeStep
from sleepd.store.checkpoints import verify_usable

from .engines.engine import Bench, Engine, remove_old
from .proof import EngineProof, Prover, named

Report = Callable[[ServeStep], object]
_OTHER_TEMPLATE = "start the engine with the base's own chat template, then: sleepctl reload"
_LOOK = "sleepctl live shows what the engine answers; sleepctl reload tries again at once"


class Round:
    """One request, carried out on one engine.

    Args:
        request: what is wanted.
        bench: what the engine's module works with.
        engine: how an adapter gets into it.
        prover: asks what it runs.
        report: called before each step; it raises where nobody listens any more.
    """

    def __init__(self, request: ServeRequest, bench: Bench, engine: Engine, prover: Prover, report: Report) -> None:
        self._request = request
        self._bench = bench
        self._engine = engine
        self._prover = prover
        self._report = report
        self._has_swapped = False

    def run(self) -> ServeOutcome:
        """Carry it out.

        Raises:
            OSError: nobody listens any more, or the disk failed where nothing else can be said.
        """
        try:
            if self._request.action == "free":
                self._step("freeing")
                self._engine.free()
                return ServeOutcome(result="freed")
            return self._ensure()
        except SleepdError as error:
            result: Result = "unreachable" if isinstance(error, EngineUnreachable | EngineFailed) else "not_served"
            return self._outcome(ServeOutcome(result=result, text=error.message, hint=error.hint))

    def _step(self, phase: Phase, text: str = "") -> None:
        self._report(ServeStep(phase=phase, text=text))

    def _outcome(self, outcome: ServeOutcome) -> ServeOutcome:
        return msgspec.structs.replace(outcome, has_swapped=self._has_swapped)

    def _ensure(self) -> ServeOutcome:
        request = self._request
        self._step("asking")
        found: EngineProof | None = None
        try:
            if self._bench.settings.free_before_training:
                self._engine.wake()
            found = self._prover.prove(request.wanted, request.others)
        except EngineUnreachable:
            if not self._engine.can_start or not request.may_swap:
                raise
        except EngineFailed:
            # It may be busy: what was given to it is given again only after it failed twice.
            if not request.may_swap or (request.was_given and request.failures == 0):
                raise
        if found is not None and (found.is_wanted or self._must_stay(found)):
            return self._as_found(found)
        return self._swap(found)

    def _must_stay(self, found: EngineProof) -> bool:
        """Whether a swap would not help, or is not allowed."""
        is_told_already = self._request.was_given and not found.can_tell
        return not self._request.may_swap or is_told_already or found.identity.kind == "other_template"

    def _as_found(self, proof: EngineProof) -> ServeOutcome:
        identity = proof.identity
        outcome = ServeOutcome(
            result="proved" if proof.is_wanted else "not_served" if proof.can_tell else "unproved",
            cycle=identity.cycle if proof.is_known else None,
            is_known=proof.is_known,
            distance=identity.distance,
            next_nearest=identity.next_nearest,
            identity=identity.kind,
            instance=proof.instance,
        )
        if proof.is_wanted:
            return self._outcome(outcome)
        hint = _OTHER_TEMPLATE if identity.kind == "other_template" else _LOOK
        return self._outcome(msgspec.structs.replace(outcome, text=self._difference(proof), hint=hint))

    def _difference(self, proof: EngineProof) -> str:
        """Why what was found is no proof of what is wanted."""
        wanted, identity = named(self._request.wanted), proof.identity
        if proof.is_known:
            runs = "the base" if identity.cycle is None else f"cycle {identity.cycle}"
            return f"the engine runs {runs}, not {wanted}"
        few = f"the engine gives fewer than {LEAST_CHANCES} log-probabilities for a token; "
        without = few if identity.kind == "no_logprobs" else ""
        return f"it cannot be proved that the engine runs {wanted}: {without}{identity.reason}"

    # --- the swap ---

    def _swap(self, before: EngineProof | None) -> ServeOutcome:
        wanted = self._request.wanted
        try:
            prepared = self._prepare(wanted, before)
        except (SleepdError, OSError) as error:
            return self._untouched(before, error)
        self._step("waiting")
        self._engine.wait_until_idle(self._bench.settings.wait_idle_seconds)
        try:
            proof = self._put(wanted, prepared, "swapping")
        except (SleepdError, OSError) as error:
            return self._put_back(before, _sentence(error), _hint(error))
        if not proof.is_wanted and proof.can_tell:
            return self._put_back(before, self._difference(proof), _LOOK)
        remove_old(self._bench.adapters, prepared)
        return self._as_found(proof)

    def _prepare(self, wanted: Generation | None, before: EngineProof | None) -> Path | None:
        """Raises where a file is not what was committed."""
        is_known = before is not None and before.is_known
        cycle = before.identity.cycle if before is not None and is_known else None
        self._report(ServeStep(phase="preparing", text=named(wanted), cycle=cycle, is_known=is_known))
        if wanted is not None:
            verify_usable(Path(wanted.directory))
        return self._engine.prepare(wanted)

    def _put(self, generation: Generation | None, prepared: Path | None, phase: Phase) -> EngineProof:
        self._step(phase, named(generation))
        self._has_swapped = True
        self._engine.swap(prepared)
        self._step("proving", named(generation))
        others = [each for each in (*self._request.others, self._request.wanted) if each is not None]
        return self._prover.prove(generation, others, is_swapped=True)

    def _untouched(self, before: EngineProof | None, error: SleepdError | OSError) -> ServeOutcome:
        """It could not be prepared: the engine runs what it ran."""
        text = f"{named(self._request.wanted)} could not be prepared for the engine: {_sentence(error)}"
        found = ServeOutcome(result="not_served") if before is None else self._as_found(before)
        return msgspec.structs.replace(found, result="not_served", text=text, hint=_hint(error))

    def _put_back(self, before: EngineProof | None, why: str, hint: str) -> ServeOutcome:
        wanted = self._request.wanted
        target = self._to_put_back(before)
        failed = f"{named(wanted)} was put into the engine, and the proof failed: {why}"
        if target == wanted or not self._engine.can_put_back:
            return self._outcome(ServeOutcome(result="not_served", text=failed, hint=hint))
        try:
            proof = self._put(target, self._engine.prepare(target), "putting_back")
        except (SleepdError, OSError) as error:
            text = f"{failed}; {named(target)} could not be put back: {_sentence(error)}"
            return msgspec.structs.replace(self._found_out(), result="not_served", text=text, hint=hint or _hint(error))
        found = self._as_found(proof)
        if proof.is_wanted:
            text = f"{failed}; {named(target)} is served again"
            return msgspec.structs.replace(found, result="put_back", text=text, hint=hint)
        text = f"{failed}; {named(target)} was put back and could not be proved either"
        return msgspec.structs.replace(found, result="not_served", text=text, hint=hint)

    def _found_out(self) -> ServeOutcome:
        """What the engine runs after all that failed, where it tells."""
        try:
            return self._as_found(self._prover.prove(self._request.wanted, self._request.others, is_swapped=True))
        except (SleepdError, OSError):
            return self._outcome(ServeOutcome(result="not_served"))

    def _to_put_back(self, before: EngineProof | None) -> Generation | None:
        """What the engine was found to run; else what was proved last; else the base."""
        request = self._request
        if before is not None and before.is_known:
            if before.identity.cycle is None:
                return None
            for each in request.others:
                if each.cycle == before.identity.cycle:
                    return each
        return request.fallback if request.has_fallback else None


def _sentence(error: SleepdError | OSError) -> str:
    return error.message if isinstance(error, SleepdError) else error.strerror or str(error)


def _hint(error: SleepdError | OSError) -> str:
    return error.hint if isinstance(error, SleepdError) else "make space where serve.directory is (df -h), or check it"
