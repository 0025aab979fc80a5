"""Tests of the quarantine in a state directory: screening, cycles, the owner's word, rollbacks, lost ledgers."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from sleepd.buffer.experience import id_hash
from sleepd.cycles.quarantine_override import Verb
from sleepd.cycles.running.planning import Order
from sleepd.daemon.quarantine_view import override, quarantine_detail, quarantine_list
from sleepd.errors import Busy, CheckpointInvalid, NotFound, NothingToDo
from sleepd.protocol.answers import Decided
from sleepd.protocol.status import QuarantineList
from sleepd.quarantine import keeper, screening_client
from tests.agents import experiences, write_buffer
from tests.stages import OpenSleeper, Scene, Stage

LOOP = "I feel ready to learn. " * 20
SECRET = "AKIA" + "Z7QH4LM2RTWXK3PB"
LONG = (
    "The ferry was late again, and the gulls had settled on the bollards by the time it turned in; a man with a green "
    "crate waited at the rail and told me that the engine had coughed near the lighthouse, while the captain laughed."
)


@pytest.fixture
def stage(tmp_path: Any) -> Stage:
    """A dozen good experiences."""
    stage = Stage(tmp_path)
    stage.write(12)
    return stage


def record(identifier: str, response: str, *, prompt: str = "What happened?", **more: Any) -> dict[str, Any]:
    return {"id": identifier, "prompt": prompt, "response": response, "salience": 0.9, **more}


def add(stage: Stage, *records: dict[str, Any], count: int = 12) -> None:
    write_buffer(stage.buffer, [*experiences(count), *records])


def places(stage: Stage, identifier: str) -> dict[int, str]:
    """Cycle -> what an experience was in it."""

    async def scene(sleeper: OpenSleeper) -> dict[int, str]:
        cycles = [summary.cycle for summary in sleeper.parts.ledger.summaries()]
        found = [(cycle, place) for cycle in cycles for place in sleeper.parts.ledger.assignments(cycle)]
        return {cycle: place.role for cycle, place in found if place.id == identifier}

    return stage.play(scene)


def listed(stage: Stage) -> QuarantineList:
    async def scene(sleeper: OpenSleeper) -> QuarantineList:
        await sleeper.refresh()
        return await quarantine_list(sleeper.reader, limit=100)

    return stage.play(scene)


def decide(stage: Stage, decision: Any, *identifiers: str) -> Decided:
    async def scene(sleeper: OpenSleeper) -> Decided:
        await sleeper.refresh()
        return await override(sleeper, identifiers, decision)

    return stage.play(scene)


def next_night(stage: Stage, **order: Any) -> None:
    stage.clock.advance(7 * 3600)
    stage.sleep(Order(force=True, **order))


def test_quarantined_is_in_no_cycle(stage: Stage) -> None:
    """A loop and a secret are neither trained, nor replayed, nor held out, in no night, forced or not."""
    add(stage, record("loop", LOOP), record("secret", f"Your key is {SECRET}."))
    stage.sleep()
    add(stage, record("loop", LOOP), record("secret", f"Your key is {SECRET}."), count=20)
    next_night(stage)
    assert places(stage, "loop") == places(stage, "secret") == {}
    texts = {entry.id: entry.text for entry in listed(stage).entries}
    assert texts["secret"].startswith("secret: AWS Access Key ")
    assert "'i feel ready to learn' 20 " in texts["loop"]


def test_quarantined_is_new_not_trainable(tmp_path: Any) -> None:
    """Loops make a sleep due and leave it nothing to train; the veto says how many are in quarantine."""
    stage = Stage(tmp_path)
    write_buffer(stage.buffer, [record(f"l{number}", f"{LOOP} {number}") for number in range(6)])

    async def scene(sleeper: OpenSleeper) -> Any:
        decision = await sleeper.refresh()
        with pytest.raises(NothingToDo, match="6 in quarantine"):
            await sleeper.begin(Order(force=True))
        return decision, sleeper.parts.intake.counts

    decision, counts = stage.play(scene)
    assert (counts.total, counts.new, counts.eligible, counts.quarantined) == (6, 6, 0, 6)
    assert decision.due
    assert not decision.should_sleep
    (veto,) = decision.vetoes
    assert veto.name == "nothing_to_train"
    assert "; 6 in quarantine" in veto.text


@pytest.mark.processes
def test_no_text_is_kept(stage: Stage) -> None:
    """Nothing in the state directory holds the secret or the reply that holds it; the list shows neither."""
    add(stage, record("secret", f"Your key is {SECRET}, keep it."))
    stage.sleep()
    assert [entry.preview for entry in listed(stage).entries] == [""]
    files = [path for path in stage.state.rglob("*") if path.is_file()]
    assert files
    assert [path.name for path in files if SECRET.encode() in path.read_bytes()] == []


def test_release_trains_and_reset_undoes(stage: Stage) -> None:
    """Each answer names the command that undoes it."""
    add(stage, record("loop", LOOP))
    assert decide(stage, "release", "loop").undo.split()[1:] == ["quarantine", "reset", "loop"]
    (entry,) = listed(stage).entries
    assert (entry.state, entry.reason) == ("released", "loop")
    stage.sleep()
    assert places(stage, "loop") in ({1: "train"}, {1: "holdout"})
    assert decide(stage, "reset", "loop").undo.split()[1:] == ["quarantine", "release", "loop"]
    (entry,) = listed(stage).entries
    assert (entry.state, entry.trained_in) in (("quarantined", [1]), ("quarantined", []))


def test_dropped_is_never_replayed(stage: Stage) -> None:
    """Trained in the first night, dropped then: no later cycle has it, and the answer names the one that trained it."""
    stage.sleep()
    trained = next(e["id"] for e in experiences(12) if places(stage, e["id"]) == {1: "train"})
    done = decide(stage, "drop", trained)
    assert (done.trained_in, done.undo) == ([1], f"sleepctl quarantine reset {trained}")
    for count in (20, 28, 36):
        stage.write(count)
        next_night(stage)
    assert places(stage, trained) == {1: "train"}


def test_overrides_survive_lost_ledger(stage: Stage) -> None:
    """With state.db gone all is screened anew, and released and dropped are what they were."""
    add(stage, record("loop", LOOP), record("other", f"{LOOP} And so on."))
    decide(stage, "release", "loop")
    decide(stage, "drop", experiences(1)[0]["id"])
    before = listed(stage)
    for path in stage.state.glob("state.db*"):
        path.unlink()
    after = listed(stage)
    assert [(e.id, e.state, e.text) for e in after.entries] == [(e.id, e.state, e.text) for e in before.entries]
    assert {e.id: e.state for e in after.entries} == {
        "other": "quarantined",
        "loop": "released",
        experiences(1)[0]["id"]: "dropped",
    }


def test_damaged_overrides_are_an_error(stage: Stage) -> None:
    """Nobody could say what must never be trained, so nothing starts, and the file is named."""
    decide(stage, "drop", experiences(1)[0]["id"])
    (stage.state / "quarantine.json").write_text("{")
    with pytest.raises(CheckpointInvalid, match=r"quarantine\.json: not understood") as refused:
        listed(stage)
    assert "that you dropped" in refused.value.hint


def test_what_cannot_be_decided(stage: Stage) -> None:
    """An id that nobody knows, a release of what is free, and a reset of nothing; nothing is written."""
    first = experiences(1)[0]["id"]
    with pytest.raises(NotFound, match="there is no experience nobody"):
        decide(stage, "drop", first, "nobody")
    with pytest.raises(NothingToDo, match="is not in quarantine"):
        decide(stage, "release", first)
    with pytest.raises(NothingToDo, match="nothing was decided"):
        decide(stage, "reset", first)
    assert not (stage.state / "quarantine.json").exists()


def test_training_experience_cannot_be_dropped(stage: Stage) -> None:
    """The order is refused with the way out; after the cycle it is taken."""

    async def scene(sleeper: OpenSleeper) -> None:
        cycle = await sleeper.begin(Order())
        inside = sleeper.parts.ledger.assignments(cycle)[0].id
        with pytest.raises(Busy, match=f"cycle {cycle} is under way with {inside}"):
            await override(sleeper, [inside], "drop")
        sleeper.cancel()
        await sleeper.finished()
        await override(sleeper, [inside], "drop")

    stage.play(scene, behaviour="wait")


def test_trained_experience_may_be_reset(stage: Stage) -> None:
    """What was released and is trained now can be put back into quarantine, for only a drop would have to reach it."""
    add(stage, record("loop", LOOP))
    decide(stage, "release", "loop")

    async def scene(sleeper: OpenSleeper) -> None:
        cycle = await sleeper.begin(Order())
        assert "loop" in [place.id for place in sleeper.parts.ledger.assignments(cycle)]
        await override(sleeper, ["loop"], "reset")

    stage.play(scene, behaviour="wait")


def test_gone_experience_keeps_its_text(stage: Stage) -> None:
    """What has left the buffer is overridden with the group of its text, by the screening or by an earlier override."""
    add(stage, record("loop", LOOP))
    (group,) = stage.play(groups_of_overrides("loop", "drop"))
    stage.write(12)
    assert stage.play(groups_of_overrides("loop", "reset")) == []
    assert stage.play(groups_of_overrides("loop", "drop")) == [group] != [0]

    async def forget_screenings(sleeper: OpenSleeper) -> None:
        sleeper.parts.ledger.database.execute("DELETE FROM screenings")

    stage.play(forget_screenings)
    assert stage.play(groups_of_overrides("loop", "release")) == [group]


def groups_of_overrides(identifier: str, verb: Verb) -> Scene:
    """Override it, and return the groups of all that is overridden then."""

    async def scene(sleeper: OpenSleeper) -> list[int]:
        await sleeper.refresh()
        await sleeper.override_quarantine([identifier], verb)
        found = sleeper.parts.intake.quarantine.overrides.get(id_hash(identifier))
        return [found.group] if found else []

    return scene


def test_another_text_is_screened_anew(stage: Stage) -> None:
    """A loop that the agent mends under its id is free; one that it makes is caught, also where it was released."""
    add(stage, record("a", LOOP), record("b", "All is well."))
    decide(stage, "release", "a")
    add(stage, record("a", f"{LOOP} And again."), record("b", LOOP + "No."))
    assert {e.id: e.state for e in listed(stage).entries} == {"a": "released", "b": "quarantined"}
    stage.sleep()
    assert places(stage, "a") == places(stage, "b") == {}
    add(stage, record("a", "It is mended."), record("b", "So is this."))
    assert [e.state for e in listed(stage).entries] == ["released"]


def test_text_changed_meanwhile_is_not_trained(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between looking and fetching the agent rewrites a reply: it is left out, since nobody screened it."""
    add(stage, record("a", "All is well here, as far as I can see."))
    as_it_was = keeper.QuarantineKeeper.excluded

    async def rewrite(self: Any, *arguments: Any) -> Any:
        found = await as_it_was(self, *arguments)
        add(stage, record("a", LOOP))
        return found

    async def scene(sleeper: OpenSleeper) -> list[str]:
        await sleeper.refresh()
        monkeypatch.setattr(keeper.QuarantineKeeper, "excluded", rewrite)
        cycle = await sleeper.begin(Order())
        await sleeper.finished()
        return [place.id for place in sleeper.parts.ledger.assignments(cycle)]

    ids = stage.play(scene)
    assert len(ids) >= 5
    assert "a" not in ids


def test_duplicate_of_trained_is_excluded(stage: Stage) -> None:
    """Also when the original has left the buffer since; the list names it and says how much alike they are."""
    add(stage, record("first", LONG))
    stage.sleep()
    role = places(stage, "first")[1]
    add(stage, record("second", LONG.replace("laughed", "only smiled"), prompt="Tell me again."), count=20)
    found = {entry.id: entry.text for entry in listed(stage).entries}
    if role == "train":
        assert found["second"].endswith(" like first")
        assert found["second"].startswith("near-duplicate: 0.9")
    else:
        assert found == {}, "held out and gone: there is nothing that it doubles"


def test_rollback_excludes_recorded_under_it(stage: Stage) -> None:
    """Said under cycle 1: out while that is rolled back, with its near-duplicate; forward again: free."""
    stage.sleep()
    said = [
        record("path", LONG, metadata={"adapter": str(stage.state / "cycle_001")}),
        record("number", "I am sure of it.", metadata={"sleep_cycle": 1}),
        record("base", "I was not asked."),
        record("alike", f"{LONG} Indeed.", prompt="And then?"),
    ]
    add(stage, *said)

    async def scene(sleeper: OpenSleeper) -> Any:
        await sleeper.refresh()
        before = sleeper.parts.intake.counts.quarantined
        sleeper.rollback(None)
        aside = await sleeper.parts.intake.quarantine_said_under(1)
        entries = (await quarantine_list(sleeper.reader, limit=10)).entries
        counted = sleeper.parts.intake.counts.quarantined
        sleeper.rollback(1)
        await sleeper.refresh()
        return (
            before,
            aside,
            counted,
            {entry.id: entry.text for entry in entries},
            sleeper.parts.intake.counts.quarantined,
        )

    before, aside, counted, texts, after = stage.play(scene)
    assert (before, aside, counted, after) == (1, 3, 3, 1)
    assert set(texts) == {"path", "number", "alike"}
    assert texts["path"].startswith("recorded under cycle 1, ")
    assert "like path, " in texts["alike"]


def test_manual_rollback_excludes_next_cycle(stage: Stage) -> None:
    """After a rollback the next cycle trains none of it, save what the owner released; the ledger rebuilt, the same."""
    stage.sleep()
    add(
        stage,
        record("bad", "I am sure of it.", metadata={"adapter": "cycle_001"}),
        record("fine", "That one was right.", metadata={"adapter": "cycle_001"}),
        count=20,
    )

    async def undo(sleeper: OpenSleeper) -> None:
        sleeper.rollback(None)

    stage.play(undo)
    decide(stage, "release", "fine")
    for path in stage.state.glob("state.db*"):
        path.unlink()
    next_night(stage)
    assert places(stage, "bad") == {}
    assert set(places(stage, "fine")) == {2}


@pytest.mark.processes
def test_without_screening_nothing_is_trained(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process dies: an alarm stands, the veto says how many wait; once it runs again, the night goes on."""
    start = screening_client.asyncio.create_subprocess_exec

    async def scene(sleeper: OpenSleeper) -> Any:
        with monkeypatch.context() as patched:
            patched.setattr(
                screening_client.asyncio, "create_subprocess_exec", lambda *command, **more: start("/bin/false", **more)
            )
            decision = await sleeper.refresh()
            assert "not screened yet" in (await quarantine_detail(sleeper.reader, experiences(1)[0]["id"])).entry.text
        alarms, counts = [alarm.name for alarm in sleeper.parts.alarms.active], sleeper.parts.intake.counts
        return decision, alarms, counts, await sleeper.refresh(), sleeper.parts.alarms.active

    decision, alarms, counts, later, standing = stage.play(scene)
    assert alarms == ["screening_failed"]
    assert (counts.unscreened, counts.eligible) == (12, 0)
    assert decision.vetoes[0].text.endswith("; 12 not screened yet")
    assert later.should_sleep
    assert standing == []


@pytest.mark.processes
def test_looking_does_not_wait_for_ever(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the screening takes longer than the patience, the look returns, and what was found counts later."""
    monkeypatch.setattr(keeper, "PATIENCE_SECONDS", 0.0)

    async def scene(sleeper: OpenSleeper) -> Any:
        await sleeper.refresh()
        waiting, is_screening = sleeper.parts.intake.counts.unscreened, sleeper.parts.intake.quarantine.is_screening
        while sleeper.parts.intake.quarantine.is_screening:
            await asyncio.sleep(0.01)
        await sleeper.refresh()
        return waiting, is_screening, sleeper.parts.intake.counts.unscreened

    assert stage.play(scene) == (12, True, 0)


def test_one_experience_with_its_text(stage: Stage) -> None:
    """Why it is in, what it says, under which cycle it was said; one that left the buffer has no text."""
    add(stage, record("loop", LOOP, metadata={"adapter": "cycle_003"}))

    async def scene(sleeper: OpenSleeper) -> Any:
        await sleeper.refresh()
        here = await quarantine_detail(sleeper.reader, "loop")
        stage.write(12)
        await sleeper.refresh()
        return here, await quarantine_detail(sleeper.reader, "loop")

    here, gone = stage.play(scene)
    assert (here.entry.reason, here.response, here.said_under) == ("loop", LOOP, 3)
    assert (gone.response, gone.salience) == ("", None)


def test_trained_is_not_called_quarantined(stage: Stage) -> None:
    """One that nothing keeps from training says so when it is asked for by its id."""
    add(stage, record("loop", LOOP), record("fine", "The gardener plants two rows of leek along the wall."))

    async def scene(sleeper: OpenSleeper) -> Any:
        await sleeper.refresh()
        return [(await quarantine_detail(sleeper.reader, each)).entry for each in ("fine", "loop")]

    fine, loop = stage.play(scene)
    assert (fine.is_kept_from_training, fine.text) == (False, "nothing was found in it")
    assert loop.is_kept_from_training


def test_a_frequent_prompt_takes_turns(stage: Stage) -> None:
    """Of fifty experiences thirty ask the same: in the job each of these has a share, together a fifth of the whole."""
    common = [record(f"c{n}", f"On day {n} it was the {n * 7}th of them.", prompt="What is new?") for n in range(30)]
    add(stage, *common, count=30)
    shares: dict[str, float] = {}

    async def scene(sleeper: OpenSleeper) -> None:
        cycle = await sleeper.begin(Order())
        lines = (sleeper.parts.checkpoints.staging_path(cycle) / "work" / "experiences.jsonl").read_text().splitlines()
        shares.update(
            {each["id"]: each.get("sampling_share", 1.0) for each in map(json.loads, lines) if each["role"] == "train"}
        )
        await sleeper.finished()

    stage.play(scene)
    frequent = [share for name, share in shares.items() if name.startswith("c")]
    assert len(frequent) > 15
    assert sum(frequent) / sum(shares.values()) == pytest.approx(0.2)
    assert {share for name, share in shares.items() if not name.startswith("c")} == {1.0}
