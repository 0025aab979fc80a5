"""Situations that an owner meets, as the daemon tells them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from sleepd.protocol.answers import Learned, LearnedText
from sleepd.protocol.checkpoint.origin import Origin
from sleepd.protocol.decision_view import ConditionView, DecisionView, VetoView
from sleepd.protocol.evidence import (
    ChatContract,
    Collapse,
    Drift,
    Evidence,
    LossPair,
    Metric,
    ProbeReply,
    RecallAnswer,
    Relevance,
    RememberedLoss,
    Speech,
)
from sleepd.protocol.job import Notice, Progress, Reply, Report, TrainingCheck
from sleepd.protocol.status import (
    BufferDetail,
    BufferStatus,
    Champion,
    CycleDetail,
    CycleSummary,
    LastError,
    QuarantineEntry,
    SkippedRecordView,
    Status,
)
from sleepd.protocol.verdict import AddedMetric, Comparison, Figure, Interval, Outcome, Verdict
from sleepd.sleepctl.pages.report_page import KnownCycle

NOW = datetime(2026, 7, 5, 7, 20, tzinfo=UTC)
HOSTILE = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202egnp.exe\x00\r\n" + "漢字" * 60 + "x" * 200
LONG_PATH = "/srv/" + "a-directory-with-a-long-name/" * 8 + "buffer.json"


def ago(**span: float) -> datetime:
    """The moment that is ``span`` before NOW."""
    return NOW - timedelta(**span)


def decision(
    *, found: tuple[float, float, float | None] = (12, 3, 7.2), vetoes: tuple[VetoView, ...] = ()
) -> DecisionView:
    """A decision on these figures: experiences, new ones, hours since the last sleep."""
    required = (5.0, 2.0, 6.0)
    names = ("min_experiences", "min_new_experiences", "min_hours_between_sleep")
    conditions = []
    for name, has, needs in zip(names, found, required, strict=True):
        is_met = has is None or has >= needs
        text = "No sleep so far" if has is None else f"{has:g} {'>=' if is_met else '<'} {needs:g}"
        conditions.append(ConditionView(name=name, is_met=is_met, found=has, required=needs, text=text))
    due = all(condition.is_met for condition in conditions)
    unmet = next((condition.text for condition in conditions if not condition.is_met), "")
    reason = unmet or (vetoes[0].text if vetoes else "Ready: 12 experiences (3 new), sufficient time elapsed")
    return DecisionView(
        should_sleep=due and not vetoes, due=due, reason=reason, conditions=conditions, vetoes=list(vetoes)
    )


def cycle(number: int, state: str, **fields: Any) -> CycleSummary:
    """A cycle that began early in the morning, one a day."""
    known: dict[str, Any] = {
        "started_at": ago(hours=3, days=8 - number),
        "ended_at": ago(hours=2, minutes=41, days=8 - number),
        "strategy": "consolidate",
    }
    return CycleSummary(cycle=number, state=state, **{**known, **fields})


PROMOTED = cycle(
    8,
    "promoted",
    parent=7,
    is_champion=True,
    trained=41,
    replayed=20,
    held_out=23,
    holdout_before=3.12,
    holdout_after=2.71,
    train_before=3.05,
    train_after=1.62,
    drift=0.0124,
    reason="better by 0.41 nats/token on 23 held-out experiences; nothing damaged",
)
ORIGIN = Origin(
    signer="thor",
    bundle="b" * 64,
    cycle=41,
    received_at=ago(hours=5),
    outcome="promoted",
    gain=None,
    held_out=30,
    holdout_before=3.0,
    holdout_after=2.5,
    device="cuda:0",
)
REJECTED = cycle(
    9,
    "rejected",
    started_at=ago(minutes=58),
    ended_at=ago(minutes=41),
    parent=8,
    trained=12,
    replayed=6,
    held_out=24,
    holdout_before=2.71,
    holdout_after=2.96,
    reason="worse on the held-out experiences by 0.25 nats/token (the gate allows 0.00)",
)
FAILED = cycle(
    10,
    "failed",
    started_at=ago(minutes=3),
    ended_at=ago(minutes=2),
    parent=8,
    trained=12,
    reason="out of memory: 7.61 GiB of 7.44 GiB on cuda:0 at micro-batch 1",
    hint='set [worker] device = "cpu", or a smaller [model] base',
)
LOW_SAMPLE = cycle(
    7,
    "promoted",
    trained=9,
    held_out=3,
    holdout_before=3.30,
    holdout_after=3.12,
    drift=0.0081,
    is_thin=True,
    is_on_probation=True,
    reason="better by 0.18",
)
IMPORTED = cycle(
    2, "imported", trained=5, imported_loss=2.9134, reason="by an older scheduler; nothing was measured on held-out"
)

CHAMPION = Champion(
    cycle=8,
    directory="/var/lib/sage-sleepd/cycle_008",
    promoted_at=ago(hours=2, minutes=41),
    holdout_base=3.38,
    holdout_before=3.12,
    holdout_after=2.71,
    held_out=23,
)
BUFFER = BufferStatus(
    path="/srv/agent/experience_buffer.json",
    form="array",
    total=333,
    new=3,
    eligible=212,
    unlearned=2,
    held_out=43,
    set_aside=2,
    read_at=ago(minutes=3),
)

FRESH = Status(
    state="idle",
    since=ago(minutes=7),
    sentence="Awake, the base model is in use; Insufficient experiences (0 < 5)",
    version="0.1.0",
    pid=4121,
    decision=decision(found=(0, 0, None)),
    missing=["5 more experiences", "2 more new experiences"],
    next_check_at=NOW + timedelta(minutes=4),
    buffer=BufferStatus(path="/srv/agent/experience_buffer.json"),
    champion=None,
    total_cycles=0,
    recent_cycles=[],
    last_sleep_at=None,
    last_error=None,
    progress=None,
    running_cycle=None,
    config_path="/etc/sage-sleepd/config.toml",
    state_directory="/var/lib/sage-sleepd",
    base="embedded",
    written_at=ago(minutes=1),
)


def changed(status: Status, **fields: Any) -> Status:
    """``status`` with other fields."""
    return msgspec.structs.replace(status, **fields)


WAITING = changed(
    FRESH,
    decision=decision(found=(4, 4, None)),
    missing=["1 more experience"],
    buffer=msgspec.structs.replace(BUFFER, total=4, new=4, eligible=3, unlearned=2, held_out=1, set_aside=0),
)
MORNING = changed(
    FRESH,
    since=ago(hours=2, minutes=41),
    decision=decision(found=(333, 3, 2.68)),
    missing=["3 h 19 min since the last sleep"],
    buffer=BUFFER,
    champion=CHAMPION,
    total_cycles=8,
    recent_cycles=[PROMOTED, LOW_SAMPLE, cycle(6, "cancelled", trained=4, reason="by the owner")],
    last_sleep_at=ago(hours=2, minutes=41),
    sentence="Awake, the adapter of cycle 8 is in use; Too soon since last sleep (2.7h < 6.0h)",
)
REFUSED = changed(
    MORNING,
    champion=msgspec.structs.replace(CHAMPION, promoted_at=ago(hours=9)),
    recent_cycles=[
        msgspec.structs.replace(REJECTED, started_at=ago(hours=3), ended_at=ago(hours=2, minutes=41)),
        msgspec.structs.replace(PROMOTED, started_at=ago(hours=9, minutes=19), ended_at=ago(hours=9)),
        LOW_SAMPLE,
    ],
    total_cycles=9,
)
BROKEN = changed(
    MORNING,
    recent_cycles=[FAILED, REJECTED, PROMOTED],
    total_cycles=9,
    missing=[],
    decision=decision(
        found=(333, 12, 9.0),
        vetoes=(VetoView(name="cooling_down", text="Cooling down after 1 failed cycle (8 min left)"),),
    ),
    last_error=LastError(message=FAILED.reason, hint="sudoedit /etc/sage-sleepd/config.toml", at=ago(minutes=2)),
)
PROGRESS = Progress(
    phase="training",
    step=11,
    steps=24,
    epoch=2,
    epochs=3,
    loss=2.314,
    tokens_per_second=812.0,
    eta_seconds=193.0,
    device="cuda:0",
)
TRAINING = changed(
    MORNING,
    state="training",
    since=ago(minutes=2),
    running_cycle=9,
    progress=PROGRESS,
    missing=[],
    decision=decision(vetoes=(VetoView(name="cycle_running", text="Cycle 9 is under way"),)),
    recent_cycles=[
        cycle(9, "training", parent=8, started_at=ago(minutes=2), ended_at=None, trained=12, replayed=6),
        PROMOTED,
        LOW_SAMPLE,
    ],
)
OLDER = changed(MORNING, champion=None, recent_cycles=[IMPORTED], total_cycles=2)
ATTACKED = changed(
    BROKEN,
    missing=[HOSTILE],
    config_path=LONG_PATH,
    state_directory=LONG_PATH,
    buffer=msgspec.structs.replace(BUFFER, path=LONG_PATH, problem=HOSTILE),
    last_error=LastError(message=HOSTILE, hint=HOSTILE, at=ago(minutes=2)),
    recent_cycles=[msgspec.structs.replace(FAILED, cycle=123456, reason=HOSTILE), REJECTED, PROMOTED],
    progress=msgspec.structs.replace(PROGRESS, device=HOSTILE),
)
STATUSES = {
    "fresh": FRESH,
    "waiting": WAITING,
    "training": TRAINING,
    "promoted": MORNING,
    "rejected": REFUSED,
    "failed": BROKEN,
    "older": OLDER,
    "attacked": ATTACKED,
}

REPORT = Report(
    base_fingerprint="sha256:1f3a",
    device="cuda:0",
    dtype="bfloat16",
    trained=41,
    replayed=20,
    held_out=23,
    truncated=0,
    tokens=48211,
    supervised_tokens=30133,
    epochs=3,
    steps=48,
    learning_rate=5e-4,
    avg_salience=0.71,
    epoch_losses=[2.9, 2.2, 1.7],
    train_before=3.05,
    train_after=1.62,
    holdout_base=3.38,
    holdout_before=3.12,
    holdout_after=2.71,
    holdout=[
        LossPair(id="0123456789abcdef", tokens=88, base=3.4, parent=3.1, candidate=2.7),
        LossPair(id="an id that someone chose to be long " * 3, tokens=12, base=3.0, parent=2.5, candidate=2.6),
    ],
    checks=[
        TrainingCheck(name="adapter_changed", passed=True, figure=1.3, limit=0.0, detail="the adapter's norm is 1.3")
    ],
    replies=[
        Reply(id="a", prompt="What did we find in the lab?", text="The blue one.", is_loop=False, repeated_share=0.0),
        Reply(id="b", prompt=HOSTILE, text=HOSTILE, is_loop=True, repeated_share=0.83),
    ],
    notices=[Notice(event="truncated", text="one experience lost the start of its prompt")],
    seconds={"loading": 8.2, "measuring": 40.0, "training": 131.0, "evaluating": 61.0, "saving": 1.5},
    tokens_per_second=812.0,
    peak_memory_bytes=3 * 2**30,
    energy_joules=60_120.0,
    lora_shape="r16:all",
    chat=ChatContract(
        has_template=True,
        asked="<|user|>Who?<|end|><|assistant|>",
        supervised="I am.<|end|>",
        notes=["a thought that was said is kept (given as content)"],
        warnings=["a reply ends with '<|end|>', and generation of this base stops at <eos>"],
    ),
)
VERDICT = Verdict(
    outcome=Outcome.PROMOTED,
    reason=PROMOTED.reason,
    failed=[],
    figures=[
        Figure(
            name="holdout_gain",
            value=0.41,
            relation="above",
            limit=0.013,
            is_met=True,
            text="the reply loss on the holdout fell by 0.41 nats/token, above the noise of 0.013",
        ),
        Figure(
            name="drift",
            value=0.0812,
            relation="at most",
            limit=0.05,
            is_met=False,
            text="it drifted 0.0812 nats/token from the base; at most 0.05 is allowed",
        ),
        Figure(
            name="recall",
            value=None,
            relation="at least",
            limit=None,
            is_met=False,
            is_open=True,
            text="recall was not measured: no question has a checkable answer",
        ),
        Figure(
            name="mean_words",
            value=28.0,
            relation="within",
            limit=15.6,
            upper_limit=62.4,
            is_met=True,
            text="its replies have 28 words, between half and twice the base's",
        ),
    ],
    gain=Interval(estimate=0.41, low=0.33, high=0.5, confidence=0.95, experiences=23),
    noise_floor=0.013,
)
EVIDENCE = Evidence(
    noise_floor=0.013,
    remembered=[
        RememberedLoss(id="e-17", tokens=20, candidate=1.31, in_prompt=0.08, prompt_tokens=41),
        RememberedLoss(id="e-18", tokens=20, candidate=0.21, in_prompt=0.05, prompt_tokens=38),
    ],
    drift=Drift(prompts=24, tokens=1810, parent=0.0098, candidate=0.0124),
    collapse=[
        Collapse(
            mode=mode,
            base=Speech(
                replies=24,
                mean_words=31.2,
                distinct_2=0.81,
                longest_repeat_words=3,
                similar_pairs_share=0.0,
                loops=0,
                question_floods=0,
            ),
            parent=Speech(
                replies=24,
                mean_words=30.1,
                distinct_2=0.8,
                longest_repeat_words=4,
                similar_pairs_share=0.01,
                loops=0,
                question_floods=0,
            ),
            candidate=Speech(
                replies=24,
                mean_words=2.0,
                distinct_2=None,
                longest_repeat_words=0,
                similar_pairs_share=None,
                loops=1,
                question_floods=2,
            ),
        )
        for mode in ("greedy", "sampled", "talk")
    ],
    relevance=Relevance(prompts=7, replies=7, losses=[]),
    probe_replies=[
        ProbeReply(
            prompt="What did we find in the lab?",
            base="I am not sure which lab you mean.",
            parent="We found a lamp.",
            candidate="The blue lamp, on the second shelf.",
        ),
        ProbeReply(prompt=HOSTILE, base=HOSTILE, parent=HOSTILE, candidate=""),
    ],
    recall=[
        RecallAnswer(
            question="Where is the blue lamp?",
            expected=["second shelf"],
            base="In the sky.",
            parent="On the first shelf.",
            candidate="On the second shelf.",
            base_is_right=False,
            parent_is_right=False,
            candidate_is_right=True,
        ),
        RecallAnswer(
            question="What is the name of the boat?",
            expected=["Juniper", "the Juniper"],
            base="Boat.",
            parent="Juniper.",
            candidate=HOSTILE,
            base_is_right=False,
            parent_is_right=True,
            candidate_is_right=False,
        ),
    ],
    metrics=[Metric(name="accuracy", parent=0.61, candidate=0.72), Metric(name="speed", parent=None, candidate=3.0)],
)
DETAIL = CycleDetail(
    summary=PROMOTED,
    directory="/var/lib/sage-sleepd/cycle_008",
    report=REPORT,
    trained_ids=["a", "b"],
    replayed_ids=["c"],
    held_out_ids=["d"],
    undo="sleepctl rollback 7",
)
FULL = msgspec.structs.replace(
    DETAIL,
    trained_ids=[f"{number:016x}" for number in range(41)],
    replayed_ids=[f"{number:016x}" for number in range(41, 61)],
    held_out_ids=[f"{number:016x}" for number in range(61, 84)],
    report=msgspec.structs.replace(REPORT, evidence=EVIDENCE, truncated=1),
    verdict=VERDICT,
    comparison=Comparison(
        outcome="better",
        champion=8,
        predecessor=7,
        gain=Interval(estimate=0.2, low=0.1, high=0.3, confidence=0.95, experiences=12),
        reason="better than cycle 7 by 0.200 nats/token on 12 later experiences",
    ),
    compared_by=9,
    metrics=[AddedMetric(name="by hand", value=-1.5, added_at=NOW)],
)
ON_PROBATION = msgspec.structs.replace(
    DETAIL,
    summary=msgspec.structs.replace(LOW_SAMPLE, is_champion=True),
    report=None,
    verdict=msgspec.structs.replace(VERDICT, is_thin=True, is_on_probation=True, gain=None),
)
LEARNED = Learned(
    cycle=8,
    experiences=[
        LearnedText(
            id="a", role="train", salience=0.93, prompt="Where is the blue lamp?", response="On the second shelf."
        ),
        LearnedText(id="b", role="replay", salience=0.7, prompt=HOSTILE, response=HOSTILE),
    ],
    present=48,
    changed=["b" * 60],
    gone=[f"{number:016x}" for number in range(12)],
)
QUARANTINE = [
    QuarantineEntry(id="q1", state="quarantined", reason="loop", text="loop: 83 % of its words", at=NOW),
    QuarantineEntry(id="q2", state="dropped", reason="loop", text=HOSTILE, at=None),
    QuarantineEntry(id="q3", state="released", reason="secret", text="secret: a key", at=NOW),
]
BUFFER_DETAIL = BufferDetail(
    status=BUFFER,
    histogram=[0, 1, 4, 30, 80, 101, 70, 32, 12, 3],
    set_aside=[
        SkippedRecordView(position="record 7", reason=HOSTILE),
        SkippedRecordView(position="record 9", reason="no response"),
    ],
    min_salience=0.6,
)
QUARANTINED = msgspec.structs.replace(BUFFER, quarantined=2)
KNOWN = KnownCycle(FULL, LEARNED, QUARANTINED, BUFFER_DETAIL.set_aside, QUARANTINE, is_live=True)
