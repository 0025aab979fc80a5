"""Tests of personal data in a state directory: kept, masked, set aside; and of what older rules screened."""

from __future__ import annotations

import asyncio
import sqlite3
from datetime import date
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sleepd.buffer.experience import content_hash, hash_text
from sleepd.config.schema import QuarantineConfig
from sleepd.cycles.running.planning import Order, line_up
from sleepd.daemon.quarantine_view import override, quarantine_list
from sleepd.daemon.trained_texts_view import learned
from sleepd.protocol.job import decode_examples, decode_job
from sleepd.protocol.status import QuarantineList
from sleepd.store.reservoir import read_reservoir
from tests.agents import experiences, write_buffer
from tests.stages import OpenSleeper, Stage

MAIL = "ilse@orchard.example"
REPLY = f"Write to {MAIL}, she knows where the lamp is kept."


def staged(tmp_path: Path, handling: Any, *, count: int = 12, **more: Any) -> Stage:
    """Good experiences, and six with an e-mail address."""
    stage = Stage(tmp_path)
    stage.config = with_handling(stage, handling)
    write_buffer(stage.buffer, [*experiences(count), *with_mail(), *more.get("others", [])])
    return stage


def with_handling(stage: Stage, handling: Any) -> Any:
    return msgspec.structs.replace(stage.config, quarantine=QuarantineConfig(personal_data=handling))


def with_mail() -> list[dict[str, Any]]:
    return [
        {"id": f"mail{n}", "prompt": f"Whom do I ask about lamp {n}?", "response": f"{REPLY} {n}", "salience": 0.9}
        for n in range(6)
    ]


def listed(stage: Stage) -> QuarantineList:
    async def scene(sleeper: OpenSleeper) -> QuarantineList:
        await sleeper.refresh()
        return await quarantine_list(sleeper.reader, limit=100)

    return stage.play(scene)


@pytest.mark.parametrize("handling", ["keep", "mask", "set_aside"])
def test_personal_data_are_always_counted(tmp_path: Path, handling: str) -> None:
    """The list and the counts say how many experiences hold some, whatever becomes of them."""
    stage = staged(tmp_path, handling)

    async def scene(sleeper: OpenSleeper) -> Any:
        await sleeper.refresh()
        return sleeper.parts.intake.counts, await quarantine_list(sleeper.reader, limit=100)

    counts, found = stage.play(scene)
    assert counts.personal == 6
    assert (found.personal, found.personal_data) == ({"e-mail": 6}, handling)
    assert counts.quarantined == found.total == (6 if handling == "set_aside" else 0)


def test_release_or_setting_lifts_exclusion(tmp_path: Path) -> None:
    """Each is in quarantine with what it holds; a release lets one in, ``keep`` lets all in without a new screening."""
    stage = staged(tmp_path, "set_aside")
    assert {entry.text for entry in listed(stage).entries} == {"personal data: 1 e-mail"}

    async def scene(sleeper: OpenSleeper) -> Any:
        await sleeper.refresh()
        await override(sleeper, ["mail0"], "release")
        await sleeper.refresh()
        before = sleeper.parts.intake.counts.quarantined
        sleeper.reconfigure(with_handling(stage, "keep"))
        await sleeper.refresh()
        return before, sleeper.parts.intake.counts.quarantined, sleeper.parts.intake.counts.unscreened

    assert stage.play(scene) == (5, 0, 0)


def test_masked_text_alone_is_trained(tmp_path: Path) -> None:
    """Nothing that a cycle leaves holds the address; ids and content hashes are those of the text in the buffer."""
    stage = staged(tmp_path, "mask")

    async def scene(sleeper: OpenSleeper) -> Any:
        await sleeper.refresh()
        cycle = await sleeper.begin(Order())
        work = sleeper.parts.checkpoints.staging_path(cycle) / "work"
        examples = decode_examples((work / "experiences.jsonl").read_bytes())
        job = decode_job((work / "job.json").read_bytes())
        await sleeper.finished()
        places = {each.id: hash_text(each.group) for each in sleeper.parts.ledger.assignments(cycle)}
        return examples, job, places, await learned(sleeper.reader, cycle, limit=100)

    examples, job, places, told = stage.play(scene)
    mails = [one for one in examples if one.id.startswith("mail")]
    assert len(mails) == 6
    for one in mails:
        whole = next(each for each in with_mail() if each["id"] == one.id)
        assert one.response == whole["response"].replace(MAIL, "[e-mail]")
        assert one.unmasked == places[one.id] == hash_text(content_hash(whole["prompt"], whole["response"]))
    assert job.masked == f"personal data masked in 6 of {len(examples)} experiences: 6 e-mail"
    assert all(MAIL not in each.response for each in told.experiences)
    assert any("[e-mail]" in each.response for each in told.experiences)
    files = [path for path in stage.state.rglob("*") if path.is_file()]
    assert [path.name for path in files if MAIL.encode() in path.read_bytes()] == []


def test_masked_text_keeps_its_hash(tmp_path: Path) -> None:
    """What left the buffer comes back from the reservoir masked, on the side of the split where it was."""
    stage = staged(tmp_path, "mask")
    stage.sleep()
    kept = {one.id: one for one in read_reservoir(stage.state / "cycle_001") if one.id.startswith("mail")}
    assert kept
    assert all("[e-mail]" in one.response and one.unmasked for one in kept.values())
    write_buffer(stage.buffer, experiences(40)[12:])
    stage.clock.advance(7 * 3600)
    stage.sleep(Order(force=True))

    async def scene(sleeper: OpenSleeper) -> dict[str, tuple[str, str]]:
        return {each.id: (each.role, hash_text(each.group)) for each in sleeper.parts.ledger.assignments(2)}

    again = {id_: place for id_, place in stage.play(scene).items() if id_ in kept}
    assert again
    assert all(place == ("replay", kept[id_].unmasked) for id_, place in again.items())


def test_questions_are_masked_too(tmp_path: Path) -> None:
    """A probe asks and expects what is trained: the placeholder."""
    stage = staged(tmp_path, "mask")
    probes = tmp_path / "probes.toml"
    probes.write_text(f'[[probe]]\nquestion = "Who is {MAIL}?"\nexpected = "{MAIL}"\n')
    evaluation = msgspec.structs.replace(stage.config.evaluation, probes=str(probes))
    stage.config = msgspec.structs.replace(stage.config, evaluation=evaluation)

    async def scene(sleeper: OpenSleeper) -> Any:
        await sleeper.refresh()
        lineup = await line_up(
            Order(),
            sleeper.reader.config,
            sleeper.parts.sources,
            day=date(2026, 3, 1),
        )
        return lineup.job.questions

    (question,) = stage.play(scene)
    assert (question.question, question.expected) == ("Who is [e-mail]?", ["[e-mail]"])


# --- what older rules screened ---

SECRET = "AKIA" + "Z7QH4LM2RTWXK3PB"


@pytest.mark.processes
def test_older_findings_are_screened_once_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What older rules let pass is found after an upgrade, in one screening; what the owner released stays released."""
    spelled = {"id": "spelled", "prompt": "Key?", "response": " ".join(SECRET), "salience": 0.9}
    stage = staged(tmp_path, "keep", others=[spelled, {**spelled, "id": "released", "prompt": "Its key?"}])

    async def release(sleeper: OpenSleeper) -> None:
        await sleeper.refresh()
        await override(sleeper, ["released"], "release")

    stage.play(release)
    forget_rules(stage, "spelled", "released")
    starts = []
    start = asyncio.create_subprocess_exec

    def counted(*command: Any, **more: Any) -> Any:
        starts.append(command)
        return start(*command, **more)

    monkeypatch.setattr("sleepd.quarantine.screening_client.asyncio.create_subprocess_exec", counted)
    entries = {entry.id: (entry.state, entry.reason) for entry in listed(stage).entries}
    assert entries == {"spelled": ("quarantined", "secret"), "released": ("released", "secret")}
    assert sum("sleepd.quarantine.screening_process" in command for command in starts) == 1
    listed(stage)
    assert sum("sleepd.quarantine.screening_process" in command for command in starts) == 1


def test_screening_anew_keeps_the_earlier_one(tmp_path: Path) -> None:
    """Of two that are alike only under the new rules, the later one is the copy, as if both were new."""
    text = (
        "The ferry was late again and the gulls had settled on the bollards by the time it turned in while a man with "
        "a green crate waited at the rail and told me that the engine had coughed near the lighthouse"
    )
    pair = [
        {"id": "first", "prompt": "How was it?", "response": text, "salience": 0.9},
        {"id": "second", "prompt": "How was it?", "response": f"{text} 2", "salience": 0.9},
    ]
    stage = staged(tmp_path, "keep", others=pair)
    assert [entry.id for entry in listed(stage).entries] == ["second"]
    forget_rules(stage, "first", "second")
    with sqlite3.connect(stage.state / "state.db") as database:  # as both would have been stored: each an original
        (signature,) = database.execute("SELECT signature FROM screenings WHERE id='first'").fetchone()
        database.execute("UPDATE screenings SET signature=? WHERE id='second'", (signature[:-2],))
    assert [entry.id for entry in listed(stage).entries] == ["second"]


def forget_rules(stage: Stage, *identifiers: str) -> None:
    """As an older version left it: by its rules nothing was found in these."""
    with sqlite3.connect(stage.state / "state.db") as database:
        database.execute("UPDATE screenings SET rules=1")
        for each in identifiers:
            database.execute("UPDATE screenings SET reason='', detail='', original=NULL WHERE id=?", (each,))
    database.close()
