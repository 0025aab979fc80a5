"""An engine that was restarted is noticed without a question, and proved again; what was proved counts no longer."""

from __future__ import annotations

import asyncio
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sleepd.protocol.deployment.serve_messages import ServedState, ServeOutcome, ServeRequest
from sleepd.serving import deployer, engine_instance
from sleepd.serving.engine_instance import ListeningEngine, watch
from sleepd.serving.serve_client import ServeClient
from tests.serving.fake_engines import FakeEngine
from tests.serving.serving_stage import ServingStage
from tests.stages import OpenSleeper


def listening(port: int = 0) -> socket.socket:
    """A socket that takes connections."""
    return socket.create_server(("127.0.0.1", port))


def address(one: socket.socket) -> str:
    """The URL of an engine that listens on it."""
    return f"http://127.0.0.1:{one.getsockname()[1]}/v1"


@pytest.mark.parametrize("has_tables", [True, False])
def test_restart_is_another_instance(tmp_path: Path, has_tables: bool) -> None:
    """The same address has another name after a restart; unseen sockets tell whether somebody is there."""
    tables = Path("/proc/net") if has_tables else tmp_path
    first = listening()
    url, port = address(first), first.getsockname()[1]
    engine = ListeningEngine(url, tables)
    was = engine.instance()
    assert engine.instance() == was != ""
    first.close()
    assert engine.instance() == ""
    with listening(port):
        assert (engine.instance() == was) is not has_tables


def test_host_that_is_none_is_nobody() -> None:
    """A name that nobody can look up is an engine that is away."""
    assert ListeningEngine(f"http://{'a' * 70}.invalid:8080").instance() == ""


def test_watch_ends_with_a_change() -> None:
    """Another instance, or nobody, ends it; this machine's sockets are looked at often, another's engine seldom."""
    waits: list[float] = []

    def waited(seconds: float) -> bool:
        waits.append(seconds)
        return False

    def scene(was: str, *then: str) -> str:
        waits.clear()
        seen = iter(then)
        return watch(was, 40.0, look=lambda: next(seen), wait=waited)

    assert scene("socket 1", "socket 1", "socket 2") == "socket 2"
    assert waits == [engine_instance.NEAR_SECONDS] * 2
    assert scene("somebody", "") == ""
    assert scene("somebody", "somebody", "somebody") == "somebody"
    assert waits == [engine_instance.FAR_SECONDS, 10.0]


def test_watch_ends_when_nobody_listens() -> None:
    """A daemon that hung up is told nothing, and the process ends."""
    assert watch("socket 1", 40.0, look=lambda: "socket 2", wait=lambda _seconds: True) == "socket 1"


@pytest.fixture
def stage(tmp_path: Path, two_champions: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ServingStage]:
    """Two champions, and an engine that runs the second one."""
    shutil.copytree(two_champions, tmp_path, dirs_exist_ok=True, symlinks=True)
    monkeypatch.setattr(deployer, "REST_SECONDS", 0.0)
    with FakeEngine() as engine:
        engine.running = 2
        yield ServingStage(tmp_path, engine, "command", command="true")


class Watcher:
    """The serve process of a deployer; what it sees of the engine is said by the test."""

    def __init__(self, stage: ServingStage) -> None:
        self.stage = stage
        self.seen: asyncio.Queue[ServeOutcome] = asyncio.Queue()
        self.watching: asyncio.Queue[ServeRequest] = asyncio.Queue()

    async def ask(self, request: ServeRequest, listener: Callable[[Any], object]) -> ServeOutcome:
        if request.action != "watch":
            return await self.stage.ask(request, listener)
        self.watching.put_nowait(request)
        return await self.seen.get()

    async def sees(self, instance: str, result: Any = "watched") -> ServeRequest:
        """It does once it watches again; the request for that."""
        asked = await self.watching.get()
        self.seen.put_nowait(ServeOutcome(result=result, instance=instance))
        return asked


def play(stage: ServingStage, scene: Callable[[Watcher, deployer.Deployer], Any]) -> ServedState:
    """Run the deployer's task beside the scene; what is shown at the end."""

    async def whole(sleeper: OpenSleeper) -> ServedState:
        own, watcher = sleeper.parts.deployer, Watcher(stage)
        own._ask = watcher.ask
        task = asyncio.ensure_future(own.run())
        try:
            async with asyncio.timeout(20):
                await scene(watcher, own)
            state = own.state
            assert state is not None
            return state
        finally:
            task.cancel()

    return stage.play(whole)


def test_restarted_engine_is_proved_again(stage: ServingStage) -> None:
    """Another instance that listens is asked at once, and the one that was proved is watched from before its proof."""

    async def scene(watcher: Watcher, _: deployer.Deployer) -> None:
        first = await watcher.sees("socket 2")
        assert first.instance is not None
        assert first.instance.startswith("socket ")
        await watcher.watching.get()

    assert play(stage, scene).is_proved
    assert stage.steps == ["asking"] * 2
    assert len(stage.spans()) == 1


def test_engine_that_is_away_is_not_proved(stage: ServingStage) -> None:
    """While nobody listens, what was proved is past, and nothing is asked; it is asked once somebody listens."""
    shown: list[ServedState | None] = []

    async def scene(watcher: Watcher, own: deployer.Deployer) -> None:
        await watcher.sees("")
        gone = await watcher.watching.get()
        assert gone.instance == ""
        shown.append(own.state)
        assert stage.steps == ["asking"]
        watcher.seen.put_nowait(ServeOutcome(result="watched", instance="socket 9"))
        await watcher.watching.get()

    assert play(stage, scene).is_proved
    assert stage.steps == ["asking"] * 2
    (away,) = shown
    assert away is not None
    assert (away.served, away.is_proved, "restarted or is away" in away.problem) == (2, False, True)


def test_engine_that_comes_back_is_asked_before_its_pause(stage: ServingStage) -> None:
    """An engine that did not answer is asked when another instance listens, and not when its long pause ends."""
    stage.turns()
    stage.engine.status = 503
    assert stage.turns().retry_at is not None

    async def scene(watcher: Watcher, _: deployer.Deployer) -> None:
        await watcher.watching.get()
        stage.engine.status = 200
        watcher.seen.put_nowait(ServeOutcome(result="watched", instance=""))
        await watcher.sees("socket 9")
        await watcher.watching.get()

    state = play(stage, scene)
    assert (state.is_proved, state.problem) == (True, "")


def test_same_instance_is_not_asked(stage: ServingStage) -> None:
    """A watch that ended because its hour did is begun again, and costs no question."""

    async def scene(watcher: Watcher, _: deployer.Deployer) -> None:
        first = await watcher.watching.get()
        watcher.seen.put_nowait(ServeOutcome(result="watched", instance=first.instance))
        again = await watcher.watching.get()
        assert again.instance == first.instance

    assert play(stage, scene).is_proved
    assert stage.steps == ["asking"]


def test_restarts_are_bounded(stage: ServingStage, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that ends again and again is asked once in a while, and is not called proved meanwhile."""
    monkeypatch.setattr(deployer, "REST_SECONDS", 3600.0)
    shown: list[ServedState | None] = []

    async def scene(watcher: Watcher, own: deployer.Deployer) -> None:
        await watcher.sees("socket 2")
        while own.state is not None and own.state.is_proved:
            await asyncio.sleep(0)
        shown.append(own.state)
        own.wake()
        await watcher.watching.get()

    assert play(stage, scene).is_proved
    assert stage.steps == ["asking"] * 2
    assert [one.is_proved for one in shown if one] == [False]


def test_process_that_cannot_watch_is_no_storm(stage: ServingStage) -> None:
    """Where no process watches, the engine is asked when its time comes, and by nobody before."""

    async def scene(watcher: Watcher, own: deployer.Deployer) -> None:
        await watcher.sees("", "unreachable")
        for _ in range(20):
            await asyncio.sleep(0)
        own.wake()
        await watcher.watching.get()

    assert play(stage, scene).is_proved
    assert stage.steps == ["asking"] * 2


def test_real_process_sees_the_restart(stage: ServingStage, tmp_path: Path) -> None:
    """The process reports another socket on the same port, and ends when it is asked no longer."""
    first = listening()
    settings = msgspec.structs.replace(stage.config.serve, url=address(first))
    request = ServeRequest(
        action="watch",
        wanted=None,
        instance=ListeningEngine(settings.url).instance(),
        settings=msgspec.to_builtins(settings),
        state_directory=str(stage.state),
        base="b",
        python="p",
    )

    async def scene() -> ServeOutcome:
        client = ServeClient(tmp_path / "absent.sock")
        asked = asyncio.ensure_future(client.ask(request, lambda _step: None))
        first.close()
        with listening(first_port):
            async with asyncio.timeout(30):
                return await asked

    first_port = first.getsockname()[1]
    outcome = asyncio.run(scene())
    assert (outcome.result, outcome.instance == request.instance) == ("watched", False)
