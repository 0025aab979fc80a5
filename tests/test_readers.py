"""What somebody who may connect, and is no operator, gets to read: no text that holds a secret or was not screened."""

from __future__ import annotations

import typing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sleepd.daemon.control_socket import Peer
from sleepd.daemon.publisher import Life
from sleepd.daemon.quarantine_view import override
from sleepd.daemon.requests import Requests
from sleepd.protocol.control import OPERATOR_REQUESTS, AnyRequest, Experiences, Run, Search, Show, Simulate, Subscribe
from sleepd.quarantine import screening_client
from tests.agents import experiences, write_buffer
from tests.stages import OpenSleeper, Stage
from tests.test_looks import given

SECRET = "AKIA" + "Z7QH4LM2RTWXK3PB"
READER = Peer(pid=1, uid=4242, gid=4242)
OPERATOR = Peer(pid=1, uid=0, gid=0)
READING = [kind for kind in typing.get_args(AnyRequest) if kind not in (*OPERATOR_REQUESTS, Subscribe, Run)]


async def never() -> list[str]:
    return []


def answers(stage: Stage, peer: Peer) -> str:
    """All that the peer may ask for, as one text."""

    async def scene(sleeper: OpenSleeper) -> str:
        requests = Requests(sleeper, sleeper.reader, Life(config_path=Path()), reload=never)
        await sleeper.refresh()
        cycles = [summary.cycle for summary in sleeper.parts.ledger.summaries()]
        asked: list[Any] = [kind() for kind in READING if kind not in (Show, Experiences, Simulate)]
        asked.append(Simulate(triggers=given(), since=stage.clock.now()))
        asked += [Show(cycle=cycle) for cycle in cycles] + [Experiences(cycle=cycle, limit=200) for cycle in cycles]
        return "".join([msgspec.json.encode(await requests.respond(each, peer)).decode() for each in asked])

    return stage.play(scene)


def attacked(stage: Stage) -> None:
    """A buffer with a secret in every place that a text may stand in."""
    broken: list[dict[str, Any]] = [
        {"id": "b1", "prompt": "p", "response": "r", "salience": f"x{SECRET}"},
        {"id": "b2" + SECRET * 20, "prompt": "p", "response": "r", "salience": 0.9},
        {"id": "b3", "prompt": [SECRET], "response": "r", "salience": 0.9},
    ]
    texts = {
        "secret": f"The key of the store is {SECRET}, keep it.",
        "too-long": f"My key is {SECRET} and " + "so it goes on " * 20_000,
        "loop": f"My key is {SECRET}. " * 30,
    }
    added = [{"id": id_, "prompt": f"{id_}?", "response": text, "salience": 0.99} for id_, text in texts.items()]
    asked = {"id": "asked", "prompt": f"Is it {SECRET}?", "response": "It is what you told me.", "salience": 0.99}
    write_buffer(stage.buffer, [*experiences(12), *added, asked, *broken])


def test_search_finds_the_newest(tmp_path: Any) -> None:
    """A search reads prompts and replies, case aside, shows the newest first, and says how many there are."""
    stage = Stage(tmp_path)
    write_buffer(
        stage.buffer,
        [{"id": f"e{n}", "prompt": "Where?", "response": f"Shelf {n}.", "salience": 0.9} for n in range(9)],
    )

    async def scene(sleeper: OpenSleeper) -> Any:
        requests = Requests(sleeper, sleeper.reader, Life(config_path=Path()), reload=never)
        return await requests.respond(Search(words="SHELF", limit=2), READER)

    found = stage.play(scene)
    assert [each.id for each in found.found] == ["e8", "e7"]
    assert (found.total, found.searched) == (9, 9)


def test_readers_see_no_secret(tmp_path: Any) -> None:
    """Secrets, texts too long to screen and records that are none are in no answer to a reader, whatever is asked."""
    stage = Stage(tmp_path)
    attacked(stage)
    stage.sleep()
    told = answers(stage, READER)
    assert "too-long" in told
    assert SECRET not in told


def test_readers_see_no_released_secret(tmp_path: Any) -> None:
    """What the owner let be trained although a secret is in it stays unread, in its reply to a prompt too."""
    stage = Stage(tmp_path)
    attacked(stage)

    async def released(sleeper: OpenSleeper) -> Any:
        await sleeper.refresh()
        return await override(sleeper, ["secret", "too-long", "loop", "asked"], "release")

    stage.play(released)
    stage.sleep()
    stage.clock.advance(7 * 3600)
    attacked(stage)
    assert SECRET not in answers(stage, READER)


def test_readers_see_no_unscreened_text(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the screening fails, and where a text changed since, no text is shown."""
    stage = Stage(tmp_path)
    stage.write(12)
    stage.sleep()
    monkeypatch.setattr(screening_client, "_start", _fails)
    attacked(stage)
    told = answers(stage, READER)
    assert SECRET not in told
    assert "screen" in told


async def _fails(*_: object) -> None:
    raise screening_client.ScreeningFailed("it does not start", hint="")


def test_reports_hide_replies_from_readers(tmp_path: Any) -> None:
    """A report's replies to prompts that hold a secret are for operators alone; the others are for all."""
    stage = Stage(tmp_path)
    stage.write(12)
    stage.sleep()

    async def scene(sleeper: OpenSleeper) -> tuple[Any, Any, Any]:
        requests = Requests(sleeper, sleeper.reader, Life(config_path=Path()), reload=never)
        replies = sleeper.parts.ledger.report(1).replies
        assert replies
        found = sleeper.parts.intake.quarantine.screenings
        for place in sleeper.parts.ledger.assignments(1):
            if place.id == replies[0].id:
                row = found.find(place.key)
                assert row is not None
                found.record([msgspec.structs.replace(row, reason="secret")], at=sleeper.parts.clock.now())
        shown = [(await requests.respond(Show(cycle=1), peer)).report.replies for peer in (READER, OPERATOR)]
        return (replies[0].id, shown[0], shown[1])

    hidden, reader, operator = stage.play(scene)
    assert {reply.id for reply in reader if not reply.prompt and not reply.text} == {hidden}
    assert all(reply.prompt for reply in operator)
