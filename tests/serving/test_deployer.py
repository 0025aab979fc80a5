"""Tests of the deployer on a router that behaves as the real one was measured to."""

from __future__ import annotations

import errno
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sleepd.protocol.deployment.serve_messages import ServeStep
from sleepd.serving.http import HttpServer
from sleepd.store.checkpoints import Checkpoints
from tests.kept import kept
from tests.older_trainer import write_older_cycle
from tests.serving.fake_engines import FakeEngine, FakeRouter, fingerprint, record_files
from tests.serving.serving_stage import ServingStage, fake_gguf, sleep_with_engine, told


class Death(BaseException):
    """The daemon and its serve process end here."""


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, two_champions: Path) -> Iterator[ServingStage]:
    """Two champions, and a router that runs the base."""
    shutil.copytree(two_champions, tmp_path, dirs_exist_ok=True, symlinks=True)
    monkeypatch.setattr("sleepd.serving.serve_process.prepared_gguf", fake_gguf)
    monkeypatch.setattr("sleepd.serving.engines.engine.PAUSE_SECONDS", 0.01)
    ini = tmp_path / "state" / "serving" / "llama-server.ini"
    ini.parent.mkdir(parents=True)
    ini.write_text("version = 1\n\n[agent]\nmodel = base.gguf\nctx-size = 4096\n\n[other]\nlora = mine.gguf\n")
    with FakeRouter(ini) as router:
        yield ServingStage(tmp_path, router, "llama-router", ready_seconds=1.0, wait_idle_seconds=1.0)


def test_champion_is_served_and_proved(stage: ServingStage, router: FakeRouter) -> None:
    """A turn puts the champion into the engine, proves it, and tells so once."""
    state = stage.turns()

    assert (state.wanted, state.served, state.is_proved, state.problem) == (2, 2, True, "")
    assert state.distance < 0.2 < state.next_nearest
    assert router.running == 2
    assert stage.steps == ["asking", "preparing", "waiting", "swapping", "proving"]
    assert [fields["cycle"] for fields in told(stage, "served")] == [2]
    assert stage.spans() == [(2, True)]


def test_served_champion_is_left_alone(stage: ServingStage, router: FakeRouter) -> None:
    """A further turn asks a few prompts of the last proof, and touches neither the file nor the engine."""
    stage.turns()
    router.requests.clear()
    stage.steps.clear()
    stage.clock.advance(3600)
    state = stage.turns()

    assert state.is_proved
    assert stage.steps == ["asking"]
    assert router.paths() == ["/v1/chat/completions"] * 6
    assert len(told(stage, "served")) == 1


def test_only_the_lora_line_changes(stage: ServingStage, router: FakeRouter) -> None:
    """Every other line of the presets stays; without an adapter there is no lora line."""
    before = router.ini.read_text()
    stage.turns()
    with_adapter = router.ini.read_text()
    stage.roll_back(0)
    stage.turns()

    assert [line for line in with_adapter.splitlines() if line not in before.splitlines()] == [
        f"lora = {next(iter(router.known))}"
    ]
    assert router.ini.read_text() == before


def test_rollback_reaches_the_engine(stage: ServingStage, router: FakeRouter) -> None:
    """A rollback to the champion before, and then to the base, is carried out and proved."""
    stage.turns()
    for wanted in (1, None):
        stage.roll_back()
        state = stage.turns()
        assert state.is_proved
        assert [state.served, router.running] == [wanted, wanted]
    assert stage.spans() == [(None, True), (1, False), (2, False)]


def test_restart_with_old_adapter_is_mended(stage: ServingStage, router: FakeRouter) -> None:
    """An engine that came back with another generation is found out at the next proof, and given the right one."""
    stage.turns()
    router.path, router.running, router.known = None, None, {}
    stage.clock.advance(3600)
    state = stage.turns()

    assert state.is_proved
    assert [state.served, router.running] == [2, 2]


def test_busy_engine_is_waited_for(stage: ServingStage, router: FakeRouter) -> None:
    """No reload is asked for while a request is under way."""
    router.load()
    router.is_processing = 3
    stage.turns()

    asked = router.paths()
    assert sum(path.startswith("/slots") for path in asked[: asked.index("/models?reload=1")]) == 4


def test_broken_adapter_is_put_back(stage: ServingStage, router: FakeRouter) -> None:
    """Where the new adapter does not load, the one before is put back and proved, and nobody is told otherwise."""
    stage.roll_back(1)
    stage.turns()
    router.broken = {
        str(path) for path in [fake_gguf(stage.state / "retired" / "cycle_002", router.ini.parent / "adapters")]
    }
    stage.roll_back(2)
    state = stage.turns()

    assert (state.wanted, state.served, state.is_proved, router.running) == (2, 1, True, 1)
    assert state.problem == kept("put-back", state.problem)
    assert state.retry_at is not None
    assert [fields["result"] for fields in told(stage, "serving_failed")] == ["put_back"]


def test_failed_proof_is_not_repeated(stage: ServingStage, router: FakeRouter) -> None:
    """A failed exchange is not tried again before its pause ends, which doubles; an operator may ask."""
    router.broken = {str(router.ini.parent / "adapters" / fake_gguf(stage.state / "cycle_002", Path("/tmp")).name)}
    stage.turns()
    tried = stage.steps.count("swapping")
    stage.turns(3)
    assert stage.steps.count("swapping") == tried == 1

    stage.clock.advance(601)
    stage.turns(2)
    assert stage.steps.count("swapping") == 2
    stage.clock.advance(601)
    stage.turns(2)
    assert stage.steps.count("swapping") == 2

    router.broken = set()
    assert stage.turns(is_asked_for=True).served == 2


def test_silent_engine_is_no_proof(stage: ServingStage, router: FakeRouter) -> None:
    """While the engine is away, what was proved before is shown as past, and it is asked again soon."""
    stage.turns()
    router.status = 503
    state = stage.turns()
    assert (state.served, state.is_proved) == (2, False)
    assert "status 503" in state.problem

    router.status = 200
    stage.clock.advance(31)
    state = stage.turns()
    assert (state.is_proved, state.problem) == (True, "")
    assert stage.spans() == [(2, True)]


@pytest.mark.parametrize("garbage", [b"", b"\xff\xfe", b"[" * 100_000, b'{"choices": 7}', b'{"choices": []}'])
def test_garbage_proves_nothing(stage: ServingStage, router: FakeRouter, garbage: bytes) -> None:
    """Whatever an engine sends instead of an answer, nothing is called served."""
    router.garbage = garbage
    state = stage.turns()
    assert (state.served, state.is_proved, bool(state.problem)) == (None, False, True)
    assert told(stage, "served") == []


def test_other_template_is_told(stage: ServingStage, router: FakeRouter) -> None:
    """An engine with another chat template is left alone: nothing could be proved there."""
    router.extra_tokens = 3
    state = stage.turns()
    assert "another number of tokens" in state.problem
    assert "chat template" in state.hint
    assert stage.steps == ["asking"]


def test_engine_without_logprobs_stays_unproved(stage: ServingStage, router: FakeRouter) -> None:
    """It is given the champion once, and what it runs is called not known."""
    router.has_logprobs = False
    state = stage.turns(2)
    assert (router.running, state.served, state.is_proved) == (2, None, False)
    assert "the weaker test: " in state.problem
    assert stage.steps.count("swapping") == 1


def test_unrecorded_champion_stays_unproved(stage: ServingStage, router: FakeRouter) -> None:
    """A champion of an earlier version is put into the engine once, and never called served."""
    (stage.state / "cycle_002" / "fingerprint.json").unlink()
    record_files(stage.state / "cycle_002")
    state = stage.turns(2)
    assert (router.running, state.served, state.is_proved) == (2, None, False)
    assert stage.steps.count("swapping") == 1


def test_changed_fingerprint_proves_nothing(stage: ServingStage, router: FakeRouter) -> None:
    """A fingerprint that is not what was committed is no measure: no prompt is asked, and the alarm says so."""

    def change(_step: ServeStep) -> None:
        (stage.state / "cycle_002" / "fingerprint.json").write_bytes(msgspec.json.encode(fingerprint(2, None)))

    stage.on_step = change
    state = stage.turns()
    assert "fingerprint.json: is not" in state.problem
    assert (state.is_proved, router.paths()) == (False, [])


def test_damaged_fingerprint_of_another_is_left_out(stage: ServingStage, router: FakeRouter) -> None:
    """What is wrong with another cycle's fingerprint keeps nobody from proving the champion."""
    (stage.state / "cycle_001" / "fingerprint.json").write_text("{")
    assert (stage.turns().served, router.running) == (2, 2)


def test_pruned_generation_is_not_offered(stage: ServingStage, router: FakeRouter) -> None:
    """A cycle whose weights were pruned keeps its fingerprint, and no engine is given it or compared with it."""
    stage.turns()
    Checkpoints(stage.state).prune(stage.state / "cycle_001")
    stage.turns()
    assert [len(request.others) for request in stage.requests] == [1, 0]
    assert (stage.state / "cycle_001" / "fingerprint.json").exists()


def test_retired_fingerprint_goes_along(stage: ServingStage, router: FakeRouter) -> None:
    """A rolled-back champion is still recognised by what stands in ``retired/``, and undoing it serves it again."""
    stage.turns()
    stage.roll_back(0)
    router.path, router.running, router.known = None, None, {}
    state = stage.turns()
    assert (state.served, state.is_proved) == (None, True)
    assert stage.requests[-1].others[0].directory == str(stage.state / "retired" / "cycle_002")
    stage.roll_back(2)
    state = stage.turns()
    assert (state.served, state.is_proved, state.wanted) == (2, True, 2)


def test_damaged_adapter_never_reaches_the_engine(stage: ServingStage, router: FakeRouter) -> None:
    """A file that is not what was committed is found before the engine is touched."""

    def damage(step: ServeStep) -> None:
        if step.phase == "preparing":
            with (stage.state / "cycle_002" / "adapter_model.safetensors").open("ab") as file:
                file.write(b"more")

    stage.on_step = damage
    state = stage.turns()
    assert "is not what was committed" in state.problem
    assert "swapping" not in stage.steps
    assert (state.served, state.is_proved) == (None, True)


def test_stale_path_is_found_out(stage: ServingStage, router: FakeRouter) -> None:
    """An engine that goes on with the old bytes is not believed: the proof fails, and the base is put back."""
    path = fake_gguf(stage.state / "cycle_002", _made(router.ini.parent / "adapters"))
    router.known = {str(path): 1}
    state = stage.turns()
    assert (state.wanted, state.served, router.running) == (2, None, None)
    assert state.problem == kept("stale-path", state.problem)


def test_stale_cache_is_found_out(stage: ServingStage, router: FakeRouter) -> None:
    """An engine that runs the champion and answers long prompts from an older cache is not called proved."""
    stage.turns()
    router.kept_under = 1
    stage.clock.advance(3600)
    state = stage.turns()
    assert not state.is_proved
    assert "under another adapter" in state.problem

    router.kept_under = None
    assert stage.turns(is_asked_for=True).is_proved


def test_adopted_adapter_is_never_called_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An older trainer's adapter is put into the engine once; a fingerprint beside it was committed by nobody."""
    write_older_cycle(tmp_path / "state", 7)
    (tmp_path / "state/cycle_007/fingerprint.json").write_bytes(msgspec.json.encode(fingerprint(7, None)))
    with FakeEngine() as engine:
        stage = ServingStage(tmp_path, engine, "command", command="true")
        stage.write(12)
        state = stage.turns(2)
    assert (state.wanted, state.served, state.is_proved) == (7, None, False)
    assert "nothing was recorded" in state.problem
    assert stage.steps.count("swapping") == 1


def _made(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


@pytest.mark.parametrize("phase", ["asking", "preparing", "waiting", "swapping", "proving"])
def test_death_at_a_step_is_recovered(stage: ServingStage, router: FakeRouter, phase: str) -> None:
    """Whichever step the daemon dies at, the next start finds out what runs, and serves what is wanted."""
    stage.roll_back(1)
    stage.turns()
    stage.roll_back(2)

    def die(step: object) -> None:
        if getattr(step, "phase", "") == phase:
            raise Death

    stage.on_step = die
    with pytest.raises(Death):
        stage.turns()
    assert router.running in (1, 2)

    stage.on_step = lambda _step: None
    state = stage.turns()
    assert (state.served, state.is_proved, router.running) == (2, True, 2)


def test_death_at_a_request_is_recovered(
    stage: ServingStage, router: FakeRouter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever request to the router is a daemon's last one, the next start serves what is wanted, and knows it."""
    asked = HttpServer.request
    left = 0

    def dying(server: HttpServer, method: str, path: str, body: Any = None) -> Any:
        nonlocal left
        if not path.startswith("/v1/"):
            left -= 1
            if left == 0:
                raise Death
        return asked(server, method, path, body)

    monkeypatch.setattr(HttpServer, "request", dying)
    stage.turns()
    for point in range(1, 20):
        stage.roll_back(1 if router.running == 2 else 2)
        left = point
        try:
            stage.turns()
        except Death:
            left = 0
            assert router.running in (1, 2)
            state = stage.turns()
            assert state.is_proved
            assert state.wanted == state.served == router.running
        else:
            break
    assert point > 3


def test_full_disk_leaves_what_was_served(
    stage: ServingStage, router: FakeRouter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the presets cannot be written, the engine runs what it ran, and that is known."""
    stage.roll_back(1)
    stage.turns()
    stage.roll_back(2)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("sleepd.serving.engines.llama_router.replace_file", full)
    state = stage.turns()
    assert (state.wanted, state.served, state.is_proved, router.running) == (2, 1, True, 1)
    assert "No space left on device" in state.problem
    assert "df -h" in state.hint


def test_hanging_engine_is_given_up(stage: ServingStage, router: FakeRouter) -> None:
    """An engine that takes requests and never answers costs one bounded answer, and proves nothing."""
    stage.turns()
    stage.configure(answer_seconds=1.0)
    hang = threading.Event()

    def wait(_method: str, _path: str) -> None:
        hang.wait(60)

    router.on_request = wait
    try:
        state = stage.turns()
    finally:
        hang.set()
    assert not state.is_proved
    assert "no whole answer within 1 s" in state.problem
    assert stage.steps[-1] == "asking"


def test_served_weights_are_not_pruned(stage: ServingStage, router: FakeRouter) -> None:
    """What the engine was proved to run last keeps its weights, whatever retention says."""
    from sleepd.policy.retention import Keep

    stage.roll_back(1)
    stage.turns()

    async def scene(sleeper: object) -> list[int]:
        keeping = sleeper.parts.keeping
        return [each.cycle for each in keeping.prune(Keep(promoted=1, rejected=0), is_dry_run=True)]

    assert 1 not in stage.play(scene)


def test_gpu_is_free_through_a_whole_cycle(stage: ServingStage, router: FakeRouter) -> None:
    """The router has no model loaded in any phase of the worker; afterwards the new champion is loaded and proved."""
    stage.configure(free_before_training=True)
    seen, state = sleep_with_engine(stage, lambda: router.state["value"] == "unloaded")
    assert seen == [True] * len(seen) != []
    assert (router.running, state.served, state.is_proved, state.problem) == (3, 3, True, "")
    assert [cycle for cycle, _ in stage.spans()] == [3, 2]


def test_silent_engine_holds_no_cycle_back(stage: ServingStage, router: FakeRouter) -> None:
    """An engine that cannot be asked to free the GPU costs a warning; the cycle trains."""
    stage.configure(free_before_training=True)
    router.status = 503
    seen, state = sleep_with_engine(stage, lambda: False)
    assert seen
    assert (state.wanted, state.is_proved) == (3, False)


def test_nothing_trained_asks_nothing(tmp_path: Path, router: FakeRouter) -> None:
    """Before the first champion no engine is asked."""
    router.requests.clear()
    fresh = ServingStage(tmp_path / "fresh", router, "llama-router")
    state = fresh.turns()
    assert (state.wanted, state.served, state.is_proved, router.requests) == (None, None, False, [])
