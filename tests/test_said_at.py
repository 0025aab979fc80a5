"""Tests of when replies were said, and of the cycle that follows from what was proved to be served then."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from sleepd.buffer.learnables import Learnables, ReadSettings
from sleepd.buffer.own_record import own_record
from sleepd.buffer.said_at import said_at
from sleepd.daemon.quarantine_view import quarantine_detail, quarantine_list
from sleepd.protocol.deployment.serve_messages import ServedSpan
from sleepd.quarantine.rules import Cause
from sleepd.quarantine.served_times import ServedTimes, served_times
from sleepd.sleepctl.commands.experiences.quarantine_commands import detail_page
from tests.agents import experiences, write_buffer
from tests.format_samples import SAMPLES, learned
from tests.kept import kept
from tests.stages import OpenSleeper, Stage
from tests.test_quarantine import Ward

NOON = 1_793_620_800
"""2026-11-02T12:00:00Z."""
ISO = "2026-11-02T12:00:00Z"
SERVICE = ReadSettings(served_as="agent")


@pytest.mark.parametrize(
    ("value", "second"),
    [
        (NOON, NOON),
        (NOON + 0.9, NOON),
        (NOON * 1000 + 999, NOON),
        (NOON * 10**6, NOON),
        (str(NOON * 10**9), NOON),
        (ISO, NOON),
        ("2026-11-02T13:00:00.750+01:00", NOON),
        ("2026-11-02T12:00:00", None),
        ("2026-11-02", None),
        ("yesterday", None),
        ("20261102T120000" + "0" * 40 + "Z", None),
        ("0001-01-01T00:00:00+23:59", None),
        ("9999-12-31T23:59:59-23:59", None),
        (9_999_999_999 + 1, None),
        (0, None),
        (-NOON, None),
        (10**400, None),
        (float("nan"), None),
        (float("inf"), None),
        (True, None),
        (None, None),
        ([NOON], None),
        ("٣" * 10, None),
    ],
)
def test_only_clear_times_are_taken(value: Any, second: int | None) -> None:
    """A number of seconds or of a part of them, and a date with its zone, are a time; anything else is none."""
    assert said_at(value) == second


def test_own_records_carry_their_time() -> None:
    """The time is that of the one reply that the record gives, unless another model or no adapter is named."""
    short = {"prompt": "a", "response": "b", "timestamp": ISO}
    talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    long = {"messages": talk, "timestamp": NOON}
    both = {"messages": [*talk, *talk], "timestamp": NOON}
    changes: list[tuple[dict[str, Any], int | None]] = [
        ({}, NOON),
        ({"model": "agent"}, NOON),
        ({"model": "gpt-5"}, None),
        ({"said_under": None}, None),
        ({"timestamp": "noon"}, None),
    ]
    for record in (short, long):
        for more, second in changes:
            assert [one.said_at for one in learned([{**record, **more}], SERVICE)] == [second], more
    assert [one.said_at for one in learned([both], SERVICE)] == [None, None]
    assert [one.said_at for one in learned([{**both, "supervised": "last"}], SERVICE)] == [NOON]


_TIMED: dict[str, dict[str, Any]] = {
    "request_log": {"timestamp": ISO},
    "litellm": {"endTime": NOON + 0.5},
    "langfuse": {"model": "agent", "end_time": ISO},
    "otel_genai": {"endTimeUnixNano": str(NOON * 10**9)},
    "openclaw": {"timestamp": ISO, "model": "agent"},
    "claude_code": {"timestamp": ISO},
    "codex": {"timestamp": ISO},
    "open_webui": {"timestamp": NOON, "model": "agent"},
    "librechat": {"createdAt": ISO, "model": "agent"},
    "simonw_llm": {"datetime_utc": "2026-11-02T12:00:00", "model": "agent"},
}
"""By the name of the format: where a record of its first sample has the time and the model."""


def timed(name: str, model: str) -> list[dict[str, Any]]:
    """The sample of a format, with a time and a model wherever a reply has one."""
    text = json.dumps(SAMPLES[name]).replace('"agent"', f'"{model}"')

    def add(value: Any) -> Any:
        if isinstance(value, list):
            return [add(each) for each in value]
        if not isinstance(value, dict):
            return value
        inner = {key: add(each) for key, each in value.items()}
        is_place = not {"role", "timestamp", "messageId", "endTime", "trace_id", "datetime_utc"}.isdisjoint(inner)
        more = _TIMED[name] if is_place or {"spanId", "call_type", "request"} & set(inner) else {}
        return inner | {key: model if key == "model" else each for key, each in more.items()}

    records: list[dict[str, Any]] = add(json.loads(text))
    if name == "otel_genai":
        for one in records[0]["resourceSpans"][0]["scopeSpans"][0]["spans"]:
            one["attributes"].append({"key": "gen_ai.request.model", "value": {"stringValue": model}})
    return records[:1] if name == "request_log" else records


@pytest.mark.parametrize("name", _TIMED)
def test_programs_records_carry_their_time(name: str) -> None:
    """Where the log names the served model, each reply has its time; of another model, or none, it has none.

    What makes the id, the group, the side and the text of a reply stays as it was.
    """
    plain_ones = learned(SAMPLES[name][:1] if name == "request_log" else SAMPLES[name], SERVICE)
    ours, theirs = learned(timed(name, "agent"), SERVICE), learned(timed(name, "other"), SERVICE)
    assert [one.said_at for one in ours] == [NOON] * len(plain_ones)
    assert [one.said_at for one in theirs] == [None] * len(plain_ones)
    assert [(one.id, one.whole_response) for one in ours] == [(one.id, one.whole_response) for one in plain_ones]


def test_times_of_a_response_come_first() -> None:
    """The server's own time stands before that of the log's line, which may be written much later."""
    (record,) = timed("request_log", "agent")
    record["response"]["created"] = NOON - 60
    assert [one.said_at for one in learned([record], SERVICE)] == [NOON - 60]


def test_import_keeps_the_agents_time_only() -> None:
    """Our line of a record without a model has the time; of a log that names some model it has none."""
    own = {"prompt": "a", "response": "b", "timestamp": ISO}
    lines = []
    for record in (own, *timed("litellm", "agent")):
        found = [one for _, one in Learnables().read([("record 1", record)])]
        lines += [own_record(one).get("timestamp") for one in found if not isinstance(one, str)]
    assert lines == [NOON, None]


# --- what was served then ---


def span(cycle: int | None, since: float, proved: float, until: float | None = None) -> ServedSpan:
    start = datetime.fromtimestamp(NOON, UTC)
    return ServedSpan(
        cycle=cycle,
        since=start + timedelta(seconds=since),
        proved_at=start + timedelta(seconds=proved),
        until=None if until is None else start + timedelta(seconds=until),
    )


SPANS = [span(8, 300.5, 400), span(None, 200, 250, 300), span(7, 0, 100.9, 200), span(9, 900, 900.2)]


@pytest.mark.parametrize(
    ("second", "cycle"),
    [
        (-1, None),
        (0, 7),
        (50, 7),
        (100, 7),
        (101, None),
        (150, None),
        (220, None),
        (300, None),
        (301, 8),
        (400, 8),
        (401, None),
        (900, 9),
        (10**6, None),
    ],
)
def test_served_from_proof_to_proof(second: int, cycle: int | None) -> None:
    """A cycle is known from its first proof to its last; before, in a gap, under the base and afterwards none is."""
    assert served_times(SPANS).cycle_at(NOON + second) == cycle


@pytest.mark.parametrize(("second", "cycle"), [(10, 7), (60, None), (110, 8), (100, None)])
def test_clock_put_back_names_none(second: int, cycle: int | None) -> None:
    """Where two spans name two cycles for one moment, a clock was put back between them: neither counts there."""
    assert served_times([span(8, 50, 120), span(7, 0, 100)]).cycle_at(NOON + second) == cycle


def test_same_cycle_twice_is_one() -> None:
    """Two spans of one cycle that overlap agree."""
    assert served_times([span(7, 50, 120), span(7, 0, 100)]).cycle_at(NOON + 60) == 7
    assert served_times([]) == ServedTimes()
    assert served_times(SPANS, {8}) == ServedTimes(((NOON + 301, NOON + 401, 8),))


# --- what follows ---


def test_rollback_excludes_by_time() -> None:
    """What was said while the rolled-back cycle was served is out, with what resembles it; a told cycle comes first."""
    ward = Ward()
    ward.served = served_times(SPANS)
    ward.add(1, said_at=NOON + 50)
    ward.add(2, "near_duplicate", original=1)
    ward.add(3, said_at=NOON + 350)
    ward.add(4, said_at=NOON + 50, said_under=8)
    ward.add(5, said_at=NOON + 150)
    ward.rolled_back = {7}
    recorded = Cause("said_under", cycle=7, is_by_time=True)
    assert ward.causes() == {1: recorded, 2: Cause("near_duplicate", original=1, cycle=7, is_by_time=True)}
    ward.decide(1, "released")
    assert set(ward.causes()) == {2}, "its copy is a copy of what is there"
    ward.rolled_back = {8}
    assert set(ward.causes()) == {2, 3, 4}


def test_daemon_goes_by_the_time(tmp_path: Any) -> None:
    """A rollback excludes what was said between two proofs; a later proof adds to it; the future names nothing.

    Result: the list and the page of one experience say "by its time". A restart and a roll forward change nothing else.
    """
    stage = Stage(tmp_path)
    stage.write(12)
    stage.sleep()
    start = stage.clock.now()
    more = [
        {"id": name, "prompt": f"What of {name}?", "response": f"I remember {name} well.", "timestamp": at.isoformat()}
        for name, at in [
            ("early", start + timedelta(minutes=10)),
            ("late", start + timedelta(minutes=70)),
            ("future", start + timedelta(days=30)),
        ]
    ]
    stage.clock.advance(7200)
    write_buffer(stage.buffer, [*experiences(12), *more])

    async def scene(sleeper: OpenSleeper) -> list[Any]:
        table, intake, answers = sleeper.parts.deployer.table, sleeper.parts.intake, []
        proof: dict[str, Any] = {"distance": 0.1, "next_nearest": 0.5}
        table.note_proof(1, at=start, **proof)
        table.note_proof(1, at=start + timedelta(hours=1), **proof)
        await sleeper.refresh()
        sleeper.rollback(None)
        answers.append(await intake.quarantine_said_under(1))
        table.note_found(1, at=start + timedelta(hours=2))
        answers.append(await intake.quarantine_said_under(1))
        table.note_found(1, at=start + timedelta(days=31))
        answers.append(await intake.quarantine_said_under(1))
        texts = {each.id: each.text for each in (await quarantine_list(sleeper.reader, limit=9)).entries}
        detail = await quarantine_detail(sleeper.reader, "early")
        sleeper.rollback(1)
        await sleeper.refresh()
        return [*answers, texts, detail, intake.counts.quarantined]

    first, second, third, texts, detail, after = stage.play(scene)
    assert (first, second, third, after) == (1, 2, 2, 0), "the future has no time"
    assert set(texts) == {"early", "late"}
    assert (detail.said_under, detail.is_said_under_by_time) == (1, True)
    shown = "".join(span.text for row in detail_page(detail, stage.clock.now()) for span in row.spans)
    assert shown == kept("recorded-by-its-time", shown, day=start.date())
