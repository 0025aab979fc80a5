"""What a running engine is proved to run: asked with the prompts of a fingerprint, or with those of the last proof.

The answers of a proof are kept. A server that is asked again, also after a restart, agrees with its own earlier answers
to rounding; another generation, or a stale cache, does not. So a few prompts are enough while nothing has changed.
Where they differ, everything is asked. One further question was never sent before: no kept answer passes for it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from sleepd.errors import DECODE_ERRORS, CheckpointInvalid
from sleepd.files import make_directory, read_document, replace_file
from sleepd.policy.identification import as_near_as_before
from sleepd.protocol.checkpoint.checkpoint_files import FINGERPRINT_FILE
from sleepd.protocol.deployment.adapter_fingerprint import (
    MAX_FILE_BYTES,
    AdapterFingerprint,
    Identity,
    PromptAnswer,
    PromptReference,
)
from sleepd.protocol.deployment.serve_messages import Generation
from sleepd.store.checkpoints import read_manifest

from .endpoint import Endpoint
from .uncached_identity import answers_from_cache, identity_of, is_same, most_apart
from .unsent_prompt import UnsentAnswer, ask_unsent, is_still_said

RECORD_FILE: Final = "last_proof.json"
ASKED_AGAIN: Final = 4
"""Prompts that are asked again; one of them is the long one."""
KEPT_UNSENT: Final = 8
"""Generations of which the answer to a question that was never sent before is kept, the newest."""
_REPEATED = (
    "it repeats its answers to the same questions and answers a new one otherwise: something in front of it, or its"
    " cache, keeps answers"
)


class EngineProof(msgspec.Struct, frozen=True, kw_only=True):
    """What the answers show."""

    identity: Identity
    is_wanted: bool
    """They prove what is wanted."""
    can_tell: bool = True
    """False: these answers cannot prove or refute it, whatever the engine runs."""
    instance: str | None = None
    """Which instance of the engine listened before the first question."""

    @property
    def is_known(self) -> bool:
        """They name what the engine runs."""
        return self.identity.is_named


class ProofRecord(msgspec.Struct, frozen=True, kw_only=True):
    """``last_proof.json``: some prompts of the last proof, with the engine's own answers."""

    key: str
    identity: Identity
    prompts: list[PromptReference]
    answers: list[PromptAnswer]
    nearest: float | None = None
    """The smallest distance of a proof of this engine: its own difference from the recorded answers."""
    unsent: dict[str, UnsentAnswer] = {}
    """By the generation that was proved, as in ``key``."""


class Prover:
    """Asks one engine what it runs.

    Args:
        endpoint: the engine.
        key: what else must be the same for its earlier answers to count: address and model name.
        directory: where the last proof's answers are kept.
        look: which instance of it listens now.
    """

    def __init__(self, endpoint: Endpoint, key: str, directory: Path, look: Callable[[], str]) -> None:
        self._endpoint = endpoint
        self._look = look
        self._key = key
        self._record_file = directory / RECORD_FILE

    def prove(
        self, wanted: Generation | None, others: Sequence[Generation], *, is_swapped: bool = False
    ) -> EngineProof:
        """What the engine runs.

        Args:
            wanted: what it should run; None: the base.
            others: what it may be found to run instead, the likeliest first.
            is_swapped: it was given something else just now: earlier answers count for nothing.

        Raises:
            EngineUnreachable: it does not answer.
            EngineFailed: it answers with errors.
            OSError: the disk did not take its answers.
        """
        instance = self._look()
        return msgspec.structs.replace(self._proof(wanted, others, is_swapped), instance=instance)

    def _proof(self, wanted: Generation | None, others: Sequence[Generation], is_swapped: bool) -> EngineProof:
        if not is_swapped and (again := self._ask_again(wanted)) is not None:
            return again
        known = list(fingerprints_of(wanted, others))
        if not known:
            text = f"nothing was recorded to prove {named(wanted)} by: it was trained by an earlier version"
            return EngineProof(identity=Identity(kind="too_coarse", reason=text), is_wanted=False, can_tell=False)
        identity, first = identity_of(self._endpoint, known)
        identity = as_near_as_before(identity, self._nearest())
        is_wanted = identity.is_named and identity.cycle == (wanted.cycle if wanted else None)
        if is_wanted and not self._is_said_anew(wanted):
            identity, is_wanted = Identity(kind="neither", reason=_REPEATED), False
        if is_wanted:
            self._keep(identity, wanted, known[0], first)
        is_recorded = wanted is None or known[0].cycle == wanted.cycle
        can_tell = identity.kind not in ("no_logprobs", "too_coarse") and (is_recorded or identity.kind != "neither")
        return EngineProof(identity=identity, is_wanted=is_wanted, can_tell=can_tell)

    def _ask_again(self, wanted: Generation | None) -> EngineProof | None:
        """The last proof, where it was of this and the engine's answers are the same still; None: they are not."""
        record = self._record()
        if record is None or record.key != self._key_of(wanted):
            return None
        most = most_apart(record.identity)
        kept = answers_from_cache(self._endpoint, record.prompts)
        if not all(is_same(record.answers[place], answer, most) for place, answer in kept.items()):
            return None
        for prompt, was in zip(record.prompts, record.answers, strict=True):
            if not is_same(was, self._endpoint.ask(prompt), most):
                return None
        if not self._is_said_anew(wanted):
            return None
        return EngineProof(identity=record.identity, is_wanted=True)

    def forget_nearest(self) -> None:
        """How far the engine was from what it ran tells nothing any more: its base model may be another one.

        Raises:
            OSError: the disk did not take it.
        """
        record = self._record()
        if record is not None:
            self._write(msgspec.structs.replace(record, nearest=None))

    def _nearest(self) -> float | None:
        record = self._record()
        return record.nearest if record is not None and record.key.startswith(f"{self._key} ") else None

    def _is_said_anew(self, wanted: Generation | None) -> bool:
        """Whether a question that was never sent before is answered as when this generation was proved."""
        record = self._record()
        kept = record.unsent.get(self._key_of(wanted)) if record else None
        return kept is None or is_still_said(self._endpoint, kept)

    def _keep(
        self,
        identity: Identity,
        wanted: Generation | None,
        fingerprint: AdapterFingerprint,
        answers: Sequence[PromptAnswer],
    ) -> None:
        pairs = list(zip(fingerprint.prompts, answers, strict=True))
        long = [pair for pair in pairs if pair[0].kind == "long"][:1]
        chosen = [*[pair for pair in pairs if pair not in long][: ASKED_AGAIN - len(long)], *long]
        was, key = self._record(), self._key_of(wanted)
        unsent = dict(was.unsent) if was else {}
        if key not in unsent and (answered := ask_unsent(self._endpoint, fingerprint, identity.cycle)) is not None:
            unsent[key] = answered
        record = ProofRecord(
            key=key,
            identity=identity,
            prompts=[prompt for prompt, _ in chosen],
            answers=[answer for _, answer in chosen],
            nearest=min((each for each in (identity.distance, self._nearest()) if each is not None), default=None),
            unsent=dict(list(unsent.items())[-KEPT_UNSENT:]),
        )
        self._write(record)

    def _write(self, record: ProofRecord) -> None:
        make_directory(self._record_file.parent)
        replace_file(self._record_file, msgspec.json.encode(record))

    def _record(self) -> ProofRecord | None:
        """None: there is none, or it is not understood, and everything is asked."""
        try:
            return msgspec.json.decode(read_document(self._record_file, MAX_FILE_BYTES), type=ProofRecord)
        except (OSError, *DECODE_ERRORS):
            return None

    def _key_of(self, wanted: Generation | None) -> str:
        return f"{self._key} {f'{wanted.cycle} {wanted.sha256}' if wanted else 'base'}"


def named(generation: Generation | None) -> str:
    """It, in a sentence."""
    return "the base" if generation is None else f"cycle {generation.cycle}"


def read_fingerprint(generation: Generation) -> AdapterFingerprint | None:
    """What the worker recorded of it; None: nothing, as of an adapter of an earlier version or of another trainer.

    Raises:
        CheckpointInvalid: the file is not what was committed, is no fingerprint, or that of another cycle.
    """
    path = Path(generation.directory) / FINGERPRINT_FILE
    committed = read_manifest(path.parent).files.get(FINGERPRINT_FILE)
    if committed is None:
        return None
    try:
        content = read_document(path, MAX_FILE_BYTES)
        found = msgspec.json.decode(content, type=AdapterFingerprint)
    except (OSError, *DECODE_ERRORS) as error:
        raise CheckpointInvalid(f"{path}: not understood: {error}", hint="sleepctl rollback") from error
    if hashlib.sha256(content).hexdigest() != committed.sha256:
        raise CheckpointInvalid(f"{path}: is not what was committed", hint="sleepctl rollback")
    if found.cycle != generation.cycle or not found.prompts:
        text = f"{path}: expected the fingerprint of cycle {generation.cycle}, found that of cycle {found.cycle}"
        raise CheckpointInvalid(text, hint="sleepctl rollback")
    return found


def fingerprints_of(wanted: Generation | None, others: Sequence[Generation]) -> Iterator[AdapterFingerprint]:
    """That of the wanted one first; a damaged one of another generation is left out.

    Raises:
        CheckpointInvalid: that of the wanted one is damaged.
    """
    for each in [wanted, *(other for other in others if other != wanted)]:
        try:
            found = None if each is None else read_fingerprint(each)
        except CheckpointInvalid:
            if each == wanted:
                raise
            continue
        if found is not None:
            yield found
