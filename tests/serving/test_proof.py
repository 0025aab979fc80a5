"""What an engine runs is proved again by a few of its own earlier answers, and by all prompts where these differ."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from sleepd.protocol.deployment.adapter_fingerprint import AdapterFingerprint, PromptAnswer, PromptReference
from sleepd.protocol.deployment.serve_messages import Generation
from sleepd.serving.proof import ASKED_AGAIN, Prover, read_fingerprint
from sleepd.serving.uncached_identity import SAME_NATS, identity_of
from sleepd.store.checkpoints import Checkpoints
from tests.fingerprints import PROMPTS, Model, answers_of, base_model, fingerprint_of, moved
from tests.serving.fake_engines import record_files
from tests.test_checkpoints import make

BASE = base_model()
PARENT = moved(BASE, 1, 1.0)
NEAR = moved(PARENT, 2, 0.05)


class Answering:
    """An engine that answers as a model does, and counts the questions."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.noise = 0.0
        self.kept: Model | None = None
        """Answers what is asked with the cache; None: the model does."""
        self.asked = 0

    def ask(self, prompt: PromptReference, *, is_cache_used: bool = False) -> PromptAnswer:
        self.asked += 1
        model = self.kept if is_cache_used and self.kept is not None else self.model
        return answers_of(model, noise=self.noise)[prompt.prompt_tokens - 10]

    def answers(self, fingerprint: AdapterFingerprint) -> list[PromptAnswer]:
        return [self.ask(prompt) for prompt in fingerprint.prompts]


@pytest.fixture
def engine() -> Answering:
    """It runs the younger generation."""
    return Answering(NEAR)


@pytest.fixture
def prover(engine: Answering, tmp_path: Path) -> Prover:
    """Of that engine."""
    return Prover(engine, "engine", tmp_path / "serving", lambda: "socket 1")


@pytest.fixture
def wanted(tmp_path: Path) -> Generation:
    """The younger generation, which is nearly like its parent."""
    return generation(tmp_path, NEAR)


def generation(tmp_path: Path, model: Model) -> Generation:
    """Cycle 7 with its fingerprint."""
    fingerprint = fingerprint_of(BASE, model, PARENT)
    directory = make(Checkpoints(tmp_path / "state"), 7)
    (directory / "fingerprint.json").write_bytes(msgspec.json.encode(fingerprint))
    record_files(directory, "fingerprint.json")
    return Generation(cycle=7, directory=str(directory), sha256="a")


def test_few_prompts_prove_it_again(engine: Answering, prover: Prover, wanted: Generation) -> None:
    """An engine that answers as before is proved by four prompts; one that rounds otherwise is asked all of them."""
    assert prover.prove(wanted, []).is_wanted
    engine.asked = 0
    assert prover.prove(wanted, []).is_wanted
    assert engine.asked == ASKED_AGAIN
    engine.asked, engine.noise = 0, 0.03
    assert prover.prove(wanted, []).is_wanted
    assert engine.asked > PROMPTS


def test_near_generation_is_not_taken_for_the_same(engine: Answering, prover: Prover, wanted: Generation) -> None:
    """A parent that is nearer than any limit for an engine's own differences is still found out."""
    proof = prover.prove(wanted, [])
    assert proof.is_wanted
    assert proof.identity.next_nearest is not None
    assert proof.identity.next_nearest < SAME_NATS
    engine.model = PARENT
    found = prover.prove(wanted, [])
    assert (found.identity.kind, found.identity.cycle, found.is_wanted) == ("parent", 6, False)


@pytest.mark.parametrize("like", [0, 2, 3])
def test_single_moved_answer_is_no_stale_one(
    engine: Answering, prover: Prover, wanted: Generation, like: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What came from the cache is stale where it is apart from three answers that were computed anew, not from one."""
    fingerprint = read_fingerprint(wanted)
    assert fingerprint is not None
    prompts = [msgspec.structs.replace(fingerprint.prompts[0], kind="long"), *fingerprint.prompts[1:]]
    known = [msgspec.structs.replace(fingerprint, prompts=tuple(prompts))]
    engine.kept, ask, computed = moved(NEAR, 3, 0.5), engine.ask, []

    def moves(prompt: PromptReference, *, is_cache_used: bool = False) -> PromptAnswer:
        if prompt.kind == "long" and not is_cache_used:
            computed.append(prompt)
            return ask(prompt, is_cache_used=len(computed) == like)
        return ask(prompt, is_cache_used=is_cache_used)

    monkeypatch.setattr(engine, "ask", moves)
    identity, _ = identity_of(engine, known)
    assert (identity.is_named, len(computed)) == ((True, like) if like else (False, 3))


def test_engine_that_is_farther_than_before_is_not_proved(engine: Answering, prover: Prover, tmp_path: Path) -> None:
    """An engine that was near its adapter is not proved when it is far, until the operator says that it is another."""
    engine.model = moved(PARENT, 2, 0.8)
    far = generation(tmp_path, engine.model)
    assert prover.prove(far, []).is_wanted
    engine.noise = 0.35
    found = prover.prove(far, [])
    assert (found.identity.kind, found.is_wanted) == ("neither", False)
    prover.forget_nearest()
    assert prover.prove(far, []).is_wanted


def test_operator_who_asks_has_the_difference_forgotten(
    engine: Answering, prover: Prover, wanted: Generation, tmp_path: Path
) -> None:
    """Without a proof there is nothing to forget; the kept answers stay."""
    prover.forget_nearest()
    assert not list(tmp_path.rglob("last_proof.json"))
    assert prover.prove(wanted, []).is_wanted
    prover.forget_nearest()
    engine.asked = 0
    assert prover.prove(wanted, []).is_wanted
    assert engine.asked == ASKED_AGAIN
