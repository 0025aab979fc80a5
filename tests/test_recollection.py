"""What a cycle learned from, read anew in the buffer, and the command that undoes a cycle."""

from __future__ import annotations

import json
import os
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sleepd.buffer.experience import Experience, content_hash, id_hash
from sleepd.buffer.trained_texts import (
    MOST_SHOWN,
    SHOWN_CHARACTERS,
    Found,
    Place,
    limited,
    trained_texts,
    whereabouts,
)
from sleepd.cycles.running.planning import Order
from sleepd.daemon.quarantine_view import override
from sleepd.daemon.status_view import detail, offline_copies, overview
from sleepd.daemon.trained_texts_view import learned as recollected
from sleepd.errors import NotFound
from sleepd.protocol.answers import Learned
from sleepd.protocol.control import Cancel, Experiences
from sleepd.protocol.status import CycleDetail, CycleSummary
from sleepd.quarantine import keeper, screening_client, screening_table
from sleepd.registry.rollback import undo_of
from sleepd.sleepctl.offline_cycle import read_detail
from sleepd.store.checkpoints import Checkpoints
from sleepd.store.sqlite.ledger import Ledger
from tests.agents import changed, experiences, write_buffer
from tests.older_trainer import write_older_cycle
from tests.stages import OpenSleeper, Stage


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    """Twelve experiences and one promoted cycle."""
    stage = Stage(tmp_path)
    stage.write(12)
    stage.sleep()
    return stage


def recollect(stage: Stage, cycle: int = 1, *, limit: int = 100) -> Learned:
    """As the daemon answers."""

    async def scene(sleeper: OpenSleeper) -> Learned:
        await sleeper.refresh()
        return await recollected(sleeper.reader, cycle, limit=limit)

    return stage.play(scene)


def test_trained_is_shown_and_holdout_hidden(stage: Stage) -> None:
    """Every trained experience, word by word; nothing was learned from the holdout."""
    told = recollect(stage)
    trained = {place["id"] for place in json.loads((stage.state / "cycle_001/lineage.json").read_text())["trained"]}
    written = {record["id"]: record["response"] for record in experiences(12)}
    assert {each.id for each in told.experiences} == trained
    assert all(each.response == written[each.id] for each in told.experiences)
    assert (told.present, told.changed, told.gone, told.problem) == (len(trained), [], [], "")


def test_reused_id_is_not_shown(stage: Stage) -> None:
    """The buffer was edited since: what is gone and what is another text are told by id."""
    trained = [each.id for each in recollect(stage).experiences]
    records = [record for record in experiences(12) if record["id"] != trained[0]]
    next(record for record in records if record["id"] == trained[1])["response"] = "Something else entirely."
    write_buffer(stage.buffer, records)
    told = recollect(stage)
    assert (told.gone, told.changed) == ([trained[0]], [trained[1]])
    assert {each.id for each in told.experiences} == set(trained[2:])
    assert "Something else" not in str(told)


def test_most_salient_come_first(tmp_path: Path) -> None:
    """A limit cuts from below, and what is cut is still counted."""
    stage = Stage(tmp_path)
    records = experiences(12)
    for number, record in enumerate(records):
        record["salience"] = 0.6 + number / 100
    write_buffer(stage.buffer, records)
    stage.sleep()
    everything, some = recollect(stage), recollect(stage, limit=3)
    saliences = [each.salience for each in everything.experiences]
    assert saliences == sorted(saliences, reverse=True)
    assert some.experiences == everything.experiences[:3]
    assert some.present == everything.present > 3


def test_unreadable_buffer_is_explained(stage: Stage) -> None:
    """No text is shown; it is not said that the experiences are gone."""
    stage.buffer.unlink()
    os.mkfifo(stage.buffer)
    told = recollect(stage)
    assert told.experiences == []
    assert "buffer.json" in told.problem


def test_vanishing_buffer_is_explained(stage: Stage) -> None:
    """It was counted a moment ago, and cannot be read now: said, not passed over."""

    async def scene(sleeper: OpenSleeper) -> Learned:
        await sleeper.refresh()
        stage.buffer.unlink()
        stage.buffer.mkdir()
        return await recollected(sleeper.reader, 1, limit=5)

    told = stage.play(scene)
    assert (told.experiences, told.present > 0) == ([], True)
    assert "buffer.json" in told.problem


def test_an_unknown_cycle_is_refused(stage: Stage) -> None:
    """By its number."""
    with pytest.raises(NotFound, match="there is no cycle 77"):
        recollect(stage, 77)


def test_changed_text_is_not_shown() -> None:
    """The counts are of one moment, the texts of the next: only what is still the same is shown."""
    place = Place("a", content_hash("Who?", "Me."), "train")
    known = whereabouts([place], {id_hash("a"): Found(place.group, 0.9)})
    other = Experience(id="a", prompt="Who?", response="You.", salience=0.9)
    same = Experience(id="a", prompt="Who?", response="Me.", salience=0.9)
    assert known.present == [place]
    assert trained_texts(1, known, [other], limit=5).experiences == []
    assert [each.response for each in trained_texts(1, known, [same], limit=5).experiences] == ["Me."]


def test_texts_and_limits_are_bounded() -> None:
    """An answer stays small whatever the buffer holds and whatever is asked for."""
    text = Experience(id="a", prompt="p" * 10**6, response="r" * 10**6, salience=0.9)
    place = Place("a", content_hash(text.prompt, text.response), "train")
    known = whereabouts([place], {id_hash("a"): Found(place.group, 0.9)})
    shown = trained_texts(1, known, [text], limit=1).experiences[0]
    assert (len(shown.prompt), len(shown.response)) == (SHOWN_CHARACTERS, SHOWN_CHARACTERS)
    assert [limited(limit) for limit in (-1, 0, 7, 10**9)] == [0, 0, 7, MOST_SHOWN]
    assert Experiences(cycle=1).limit == 10


def test_released_secret_is_not_shown(tmp_path: Path) -> None:
    """Everybody who may look at the service may ask for a report; a secret is for the operator."""
    stage = Stage(tmp_path)
    secret = "AKIA" + "IOSFODNN7" + "EXAMPLQ"
    records = [*experiences(12), *experiences(1, start=12)]
    records[-1] |= {"response": f"The key of the store is {secret}, keep it.", "salience": 0.99}
    write_buffer(stage.buffer, records)

    async def released(sleeper: OpenSleeper) -> Any:
        await sleeper.refresh()
        return await override(sleeper, [records[-1]["id"]], "release")

    stage.play(released)
    stage.sleep()
    told = recollect(stage)
    withheld = [each for each in told.experiences if each.is_withheld]
    assert [each.id for each in withheld] == [records[-1]["id"]]
    assert secret not in str(told)


def test_outdated_screening_is_not_shown(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """What today's rules have not looked at yet may hold what they would find: it is shown once they have."""
    assert not any(each.is_withheld for each in recollect(stage).experiences)
    monkeypatch.setattr(screening_table, "RULES", screening_table.RULES + 1)
    with monkeypatch.context() as failing:
        failing.setattr(keeper, "screened", partial(screening_client.screened, python="/bin/false"))
        told = recollect(stage).experiences
    assert told
    assert all(each.is_withheld and each.prompt == each.response == "" for each in told)
    assert not any(each.is_withheld for each in recollect(stage).experiences)


# --- the command that undoes it ---


def undo(stage: Stage, cycle: int) -> str:
    """The command for that cycle."""
    ledger = Ledger(stage.state / "state.db")
    try:
        return undo_of(cycle, ledger, Checkpoints(stage.state))
    finally:
        ledger.close()


def undo_from_disk(stage: Stage, cycle: int) -> str:
    """The command that ``sleepctl`` names when the daemon is not running."""

    async def write(sleeper: OpenSleeper) -> dict[str, bytes]:
        await sleeper.refresh()
        return offline_copies(sleeper.reader, overview(sleeper.reader, next_check_at=None, config_path=""))

    written = msgspec.json.decode(stage.play(write)["history.json"])["cycles"]
    summary = next(each for each in msgspec.convert(written, list[CycleSummary]) if each.cycle == cycle)
    return read_detail(stage.state, summary).undo


def follow(stage: Stage, command: str) -> None:
    """Do what the command says."""

    async def scene(sleeper: OpenSleeper) -> Any:
        return sleeper.rollback(int(command.removeprefix("sleepctl rollback ")))

    stage.play(scene)


def test_undo_names_previous_champion(stage: Stage) -> None:
    """The first by the base; of a superseded one the command takes all that came after with it; typed, it works."""
    for number in (2, 3):
        stage.write(12 * number)
        stage.clock.advance(86400)
        stage.sleep()
    assert [undo(stage, cycle) for cycle in (1, 2, 3)] == [f"sleepctl rollback {before}" for before in (0, 1, 2)]
    follow(stage, undo(stage, 2))
    assert Checkpoints(stage.state).champion() == 1
    assert [undo(stage, cycle) for cycle in (1, 2, 3)] == ["sleepctl rollback 0", "", ""]


def test_offline_undo_is_the_same(stage: Stage) -> None:
    """A rejection, a rollback, pruned weights and a new lineage: the ledger and the files name the same command."""
    for number, order in enumerate((Order(), Order(strategy="gentle"), Order(strategy="gentle")), 2):
        stage.write(12 * number)
        stage.clock.advance(86400)
        stage.sleep(order)
    stage.write(60)
    stage.clock.advance(86400)
    assert stage.sleep(behaviour="reject").state == "rejected"

    def compare() -> list[str]:
        live = [undo(stage, cycle) for cycle in range(1, 6)]
        assert [undo_from_disk(stage, cycle) for cycle in range(1, 6)] == live
        return live

    assert compare() == [*(f"sleepctl rollback {before}" for before in range(4)), ""]
    checkpoints = Checkpoints(stage.state)
    checkpoints.prune(checkpoints.promoted_path(2))
    assert compare()[2] == "sleepctl rollback 1"
    follow(stage, "sleepctl rollback 3")
    assert compare()[3:] == ["", ""]


async def looked(sleeper: OpenSleeper) -> None:
    """One poll of the buffer, at which an adapter is adopted."""
    await sleeper.refresh()


def test_adopted_champion_has_one_undo(tmp_path: Path) -> None:
    """Of an older trainer's adapter the daemon and the files name the same command: while it is in use, and after."""
    stage = Stage(tmp_path)
    stage.config = changed(stage.config, "training", strategy="gentle")
    write_older_cycle(stage.state, 7)
    stage.write(12)

    def compare(*cycles: int) -> list[str]:
        shown = [stage.play(partial(described, cycle=cycle)).undo for cycle in cycles]
        assert [undo(stage, cycle) for cycle in cycles] == [undo_from_disk(stage, cycle) for cycle in cycles] == shown
        return shown

    async def described(sleeper: OpenSleeper, *, cycle: int) -> CycleDetail:
        return detail(sleeper.reader, cycle)

    stage.play(looked)
    assert compare(7) == ["sleepctl rollback 0"]
    stage.write(40)
    assert stage.sleep().cycle == 8
    assert compare(7, 8) == ["", "sleepctl rollback 7"]


def test_unused_adapter_has_no_undo(stage: Stage) -> None:
    """A rejected cycle changed nothing."""
    stage.write(24)
    stage.clock.advance(86400)
    assert stage.sleep(behaviour="reject").state == "rejected"
    assert undo(stage, 2) == ""


def test_pruned_weights_are_no_undo(stage: Stage) -> None:
    """The nearest champion that still has its weights, as rollback itself would choose."""
    for number in (2, 3):
        stage.write(12 * number)
        stage.clock.advance(86400)
        stage.sleep()
    checkpoints = Checkpoints(stage.state)
    checkpoints.prune(checkpoints.promoted_path(2))
    assert undo(stage, 3) == "sleepctl rollback 1"


def test_running_cycle_is_undone_by_cancel(tmp_path: Path) -> None:
    """Nothing is in use yet; what it learns can be discarded."""
    stage = Stage(tmp_path)
    stage.write(12)

    async def scene(sleeper: OpenSleeper) -> str:
        cycle = await sleeper.begin(Order())
        command = undo_of(cycle, sleeper.parts.ledger, sleeper.parts.checkpoints)
        sleeper.cancel()
        await sleeper.finished()
        return command

    assert stage.play(scene, behaviour="wait") == f"sleepctl {Cancel.__name__.lower()}"
    assert undo(stage, 1) == ""


def test_rated_down_since_is_named(stage: Stage) -> None:
    """What was trained and is rated down afterwards is named; its text still stands in the buffer."""
    trained = recollect(stage).experiences
    rating = json.dumps({"id": trained[0].id, "rating": -1})
    (stage.buffer.parent / "feedback.jsonl").write_text(rating + "\n")
    told = recollect(stage)
    assert told.rejected == [trained[0].id]
    assert told.present == len(trained)
