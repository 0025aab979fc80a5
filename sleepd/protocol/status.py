"""The facts about the daemon, a cycle, a decision: the structures of answers, of ``status.json`` and of ``--json``.

All times are UTC with offset; all losses are nats per supervised token; None means "not measured" or "none", never 0.
A structure that a program may read carries ``schema``, raised when a field changes its meaning or goes away.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from sleepd.clock import Moment

from .chat_example import ChatExample
from .checkpoint.origin import Origin
from .decision_view import DecisionView
from .deployment.serve_messages import ServedSpan, ServedState
from .job import Progress, Report
from .verdict import AddedMetric, Comparison, Verdict

SCHEMA = 1


class SkippedRecordView(msgspec.Struct, frozen=True, kw_only=True):
    """A record of the buffer that is not used."""

    position: str
    """Where it stands: ``record 7`` or ``line 12``, counted from 1."""
    reason: str


class BufferStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The buffer as last read."""

    path: str
    form: str = "absent"
    """``array``, ``object``, ``lines``, ``empty`` or ``absent``."""
    total: int = 0
    new: int = 0
    eligible: int = 0
    """At or above ``min_salience``, and not in quarantine."""
    unlearned: int = 0
    """Eligible, not held out, and not trained in the champion's lineage."""
    held_out: int = 0
    set_aside: int = 0
    quarantined: int = 0
    """Readable, and excluded from training: ``sleepctl quarantine``."""
    unscreened: int = 0
    """Not screened yet, and excluded from training until then."""
    personal: int = 0
    """They hold personal data."""
    personal_data: Literal["keep", "mask", "set_aside"] = "keep"
    """What is done with those."""
    read_at: Moment | None = None
    problem: str = ""
    """Why the last good view is shown instead of the file as it is now; empty: it is current."""
    unread_since: Moment | None = None
    to_learn_since: Moment | None = None
    """Since when there is that problem, and since when the oldest experience waits to be learned; None: not at all."""


class BufferMoment(msgspec.Struct, frozen=True, kw_only=True):
    """What the buffer held at a poll."""

    at: Moment
    total: int
    new: int
    unlearned: int
    held_out: int
    quarantined: int


class BufferDetail(msgspec.Struct, frozen=True, kw_only=True):
    """What ``sleepctl buffer`` shows."""

    status: BufferStatus
    histogram: list[int]
    """Experiences by salience, ten bins from 0 to 1; the last one includes 1."""
    set_aside: list[SkippedRecordView]
    """The first hundred."""
    min_salience: float
    left_out: int = 0
    """Older ones than the most that are used."""
    rated_down: int = 0
    ratings_without_reply: int = 0
    """Of ``feedback.jsonl``: they name no reply of the buffer. It is yet to come, has left it, or has another name."""
    ratings_without_reply_at: list[str] = []
    """Where the newest of them stand, three at most."""
    files: int = 1
    sample: list[QuarantineDetail] = []
    """The first ones with their texts, where they were asked for."""
    moments: list[BufferMoment] = []
    """What it held earlier, oldest first, where that was asked for."""
    schema: int = SCHEMA


class CycleSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One cycle in a line."""

    cycle: int
    state: str
    started_at: Moment
    ended_at: Moment | None = None
    parent: int | None = None
    """The champion it continues; None: the base."""
    strategy: str = ""
    rival: int | None = None
    """The other cycle of its pair, which trained another strategy on the same experiences; None: it is in no pair."""
    pair_gain: float | None = None
    """By how much its loss on held-out experiences is below that of its rival; None: the two were not compared."""
    is_forced: bool = False
    is_champion: bool = False
    is_rolled_back: bool = False
    trained: int = 0
    replayed: int = 0
    held_out: int = 0
    judging: int | None = None
    """Of the held-out ones, those that the next two figures are of: the others decided about early stopping. None: all
    of them."""
    holdout_before: float | None = None
    holdout_after: float | None = None
    train_before: float | None = None
    train_after: float | None = None
    reason: str = ""
    """The verdict's, or why it failed."""
    hint: str = ""
    tag: str = ""
    """The operator's word for it, which keeps its weights."""
    is_pruned: bool = False
    """Its weights were removed; what was measured on it stays."""
    gain_low: float | None = None
    """The gain on held-out experiences lies above it, with ``promotion.confidence``."""
    gain_high: float | None = None
    """It lies below it, with the same confidence."""
    drift: float | None = None
    """KL from the base on reference prompts, nats per token."""
    drift_limit: float | None = None
    """The limit that its drift was held against; None: not measured, or the cycle is an old one, of which ``show``
    has the limits."""
    loops: int | None = None
    """Of its replies to the probe prompts, those that run in a loop."""
    energy_joules: float | None = None
    worker_seconds: float | None = None
    """Wall time of its worker; None: it did not report."""
    is_thin: bool = False
    """Judged on fewer than eight held-out experiences."""
    is_on_probation: bool = False
    """Put in use although the evidence was open, and later experiences have not decided yet."""
    origin: Origin | None = None
    """Where another machine's adapter came from, with what was measured there; None: it was trained here."""
    imported_loss: float | None = None
    """Whole-sequence loss from an older scheduler's history: not comparable with the others, never in one column."""

    @property
    def measured_on(self) -> int:
        """Held-out experiences that the holdout figures are of."""
        return self.held_out if self.judging is None else self.judging


class CycleDetail(msgspec.Struct, frozen=True, kw_only=True):
    """What ``sleepctl show N`` shows."""

    summary: CycleSummary
    directory: str
    """Where its files stand; empty: nothing was kept."""
    report: Report | None
    verdict: Verdict | None = None
    """Every figure with its limit; None: it was not judged, or by a version that kept no figures."""
    comparison: Comparison | None = None
    """As a champion, against the one before it, on experiences that came later; None: not compared yet."""
    compared_by: int | None = None
    """The cycle that compared it."""
    metrics: list[AddedMetric] = []
    """Added by hand, oldest first."""
    trained_ids: list[str]
    replayed_ids: list[str]
    held_out_ids: list[str]
    released_ids: list[str] = []
    """Of the trained ones, those that an earlier cycle held out: they have judged, and are learned now."""
    undo: str = ""
    """The command that undoes it; empty: there is nothing to undo."""
    served: list[ServedSpan] = []
    """When an engine was proved to run it, newest first."""
    origin: Origin | None = None
    """Where another machine's adapter came from; None: it was trained here."""
    rival: CycleSummary | None = None
    """The other cycle of its pair; None: it is in no pair, or nothing is known of that one."""
    schema: int = SCHEMA


class Champion(msgspec.Struct, frozen=True, kw_only=True):
    """The adapter in use. The holdout figures are those measured on it when it was judged."""

    cycle: int
    directory: str
    promoted_at: Moment
    holdout_base: float | None
    holdout_before: float | None
    holdout_after: float | None
    held_out: int
    is_adopted: bool = False
    """An older trainer made it."""
    measured_by: int | None = None
    """Of an adopted one: the cycle that measured it against the base; None: nobody has measured it."""
    is_thin: bool = False
    """It was judged on fewer than eight held-out experiences."""
    is_on_probation: bool = False
    """Put in use although the evidence was open, and later experiences have not decided yet."""
    comparison: Comparison | None = None
    """With the one before it, on experiences that came later; None: not compared yet."""
    quantization: str = ""
    """What the base was quantised to when it was measured, ``none`` or ``nf4``; empty: nobody recorded it."""
    new_lineage: str = ""
    """Why the next cycle starts from the base and does not continue it; empty: it continues it."""
    origin: Origin | None = None
    """Where another machine's adapter came from; None: it was trained here."""


class LastError(msgspec.Struct, frozen=True, kw_only=True):
    """The newest thing that went wrong and has not gone right since."""

    message: str
    hint: str
    at: Moment


class Alarm(msgspec.Struct, frozen=True, kw_only=True):
    """Something that lasts and that the operator should look at."""

    name: str
    """``overdue``, ``too_many_cycles``, ``clock_set_back``, ``watch_unavailable``, ``status_not_written``,
    ``metrics_not_written``, ``history_not_written``, ``state_not_recorded``, ``screening_failed``, ``not_served`` (the
    engine does not run what is promoted) or ``champion_rolled_back``."""
    text: str


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """The whole state, as ``sleepctl status`` and ``status.json`` have it."""

    state: str
    """``idle``, ``paused``, ``starting``, ``stopping``, ``stopped``, or the state of the cycle under way."""
    since: Moment
    sentence: str
    """The same sentence that systemd shows."""
    version: str
    pid: int
    decision: DecisionView
    alarms: list[Alarm] = []
    missing: list[str]
    """What is missing for the next sleep, a sentence each."""
    next_check_at: Moment | None
    buffer: BufferStatus
    champion: Champion | None
    total_cycles: int
    """Judged cycles, those of an older scheduler included."""
    endings: dict[str, int] = {}
    """How many cycles of this machine's own ended in each way; empty: none, or an older version wrote it."""
    recent_cycles: list[CycleSummary]
    """The last three, newest first."""
    last_sleep_at: Moment | None
    last_error: LastError | None
    progress: Progress | None
    running_cycle: int | None
    config_path: str
    state_directory: str
    base: str = ""
    """The configured base model."""
    adopted_strategy: str = ""
    """Which strategy replaces the configured one, and why (``training.adopt_better``); empty: none does."""
    serving: ServedState | None = None
    """What the engine that answers the agent was proved to run; None: no engine is configured."""
    free_bytes: int | None = None
    """On the disk of the state directory; None: an older version wrote it."""
    written_at: Moment
    schema: int = SCHEMA


class DecisionRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A decision as the ledger has it: written when it changed."""

    at: Moment
    decision: DecisionView
    facts: dict[str, Any]


class QuarantineEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One experience that is excluded from training, or that the operator released."""

    id: str
    state: Literal["quarantined", "dropped", "released"]
    reason: str
    """``loop``, ``questions``, ``near_duplicate``, ``secret``, ``too_long``, ``bare_question`` (many replies are
    nothing but a question), ``said_under``, ``personal_data``; empty: nothing is found in it, or it was not seen."""
    text: str
    """The same in a sentence, with the figure."""
    at: Moment | None
    """When it was screened, or when the operator decided."""
    preview: str = ""
    """The beginning of prompt and reply; empty: it is not in the buffer any more, or holds a secret."""
    trained_in: list[int] = []
    """Cycles that trained it before."""
    is_kept_from_training: bool = True
    """False: nothing excludes it from training, whatever ``state`` is; only one that was asked for by its id is so."""


class QuarantineList(msgspec.Struct, frozen=True, kw_only=True):
    """What ``sleepctl quarantine`` shows."""

    entries: list[QuarantineEntry]
    """In file order, then what the operator decided on others."""
    total: int
    """Of which ``entries`` may be the first ones."""
    unscreened: int = 0
    personal: dict[str, int] = {}
    """Of each kind of personal data, how many experiences of the buffer hold some."""
    personal_data: Literal["keep", "mask", "set_aside"] = "keep"
    schema: int = SCHEMA


class QuarantineDetail(ChatExample, frozen=True, kw_only=True, omit_defaults=False):
    """What ``sleepctl quarantine show`` and ``sleepctl buffer --sample`` show of one experience."""

    entry: QuarantineEntry
    salience: float | None
    """None: it is not in the buffer any more, and the texts are empty. -1: a person rated it down."""
    said_under: int | None = None
    """The cycle whose adapter gave the reply; None: unknown, or the base."""
    is_said_under_by_time: bool = False
    """Its record names no adapter: that follows from when it was said, and from what was proved to be served then."""
    schema: int = SCHEMA


class RunResult(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to ``run`` and to ``check`` with ``apply``: at once with ``started``, or, waited for, at the end."""

    is_started: bool
    reason: str
    cycle: int | None = None
    summary: CycleSummary | None = None
    rival: CycleSummary | None = None
    """Of a pair the other cycle; ``summary`` is the better one."""
    older: dict[str, Any] | None = None
    """It and ``summary`` are set when it was waited for; it is in the older scheduler's words."""
    undo: str = ""
    schema: int = SCHEMA
