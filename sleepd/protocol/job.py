"""Every message between the daemon and its worker.

The daemon writes a :class:`Job` as ``work/job.json`` into the cycle's staging directory, the experiences beside it as
``work/experiences.jsonl`` (one :class:`TrainingExample` a line), and starts the worker with an inherited socket. The
worker writes the adapter into the staging directory and sends one JSON line a message, ending with exactly one of
:class:`Report` or :class:`Failure`. Nothing travels from daemon to worker on the socket: SIGTERM asks it to stop, and
the closed socket shows it that the daemon is gone.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Annotated, Any, Literal, cast

import msgspec
from msgspec import Meta

from sleepd.errors import DECODE_ERRORS, ProtocolError

from .chat_example import ChatExample
from .evidence import ChatContract, Evidence, LossPair, Probation, RecallQuestion
from .strategy import Strategy

JOB_VERSION = 1
RESUME_POINT = "work/resume.safetensors"
"""In the staging directory: where an interrupted worker goes on from."""
MAX_MESSAGE_BYTES = 16 * 1024 * 1024

Role = Literal["train", "replay", "holdout"]
Phase = Literal["loading", "preparing", "measuring", "training", "evaluating", "saving", "fingerprinting"]
FailureKind = Literal[
    "base_unusable",
    "base_changed",
    "parent_unusable",
    "shape_changed",
    "device_unusable",
    "out_of_memory",
    "nothing_supervised",
    "bad_job",
    "not_finite",
    "not_resumable",
    "champion_worse",
    "died",
    "line_lost",
    "stopped",
    "error",
]
"""Why a worker gives up. ``line_lost`` is told of a worker on another machine, ``died`` of that or of a lost rank."""


class TrainingExample(ChatExample, frozen=True, kw_only=True):
    """One experience as the worker gets it."""

    id: str
    salience: float
    role: Role
    sampling_share: Annotated[float, Meta(gt=0, le=1)] = 1.0
    """Share of the epochs that it is in; below 1 where its prompt was asked again and again."""
    rank: Annotated[int, Meta(ge=0, lt=2**32)] | None = None
    """The order in which a part is chosen for measuring: a number that the text's author cannot know; None: an older
    version staged the cycle."""

    @property
    def order(self) -> int:
        """The rank, or for an older job the number used before."""
        if self.rank is not None:
            return self.rank
        return int.from_bytes(sha256(self.id.encode("utf-8", "surrogatepass")).digest()[:4], "big")


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What to train, on what, from what, to where."""

    version: int = JOB_VERSION
    cycle: int
    base: str
    """``embedded``, a directory of a model, a .gguf file, or a hub id that is already in ``cache_directory``."""
    models_directory: str
    """Where safetensors copies of converted models and the base's cached answers stand."""
    cache_directory: str = ""
    """The hub cache; empty: the library's default place."""
    quantization: Literal["none", "nf4"] = "none"
    """What the base's linear layers are quantised to while they are loaded."""
    expected_base: str = ""
    """Fingerprint of the base the parent was trained on; empty: any."""
    parent: str = ""
    """Directory of the champion's adapter; empty: start from the base."""
    parent_cycle: int | None = None
    staging: str
    system_prompt: str = ""
    masked: str = ""
    """In how many experiences personal data were masked, and which kinds, in words; empty: in none."""
    superseded: str = ""
    """Which learned replies are not replayed because newer ones contradict them, in words; empty: none."""
    unreplayed: str = ""
    """How many learned experiences the replay budget has no room for, in words; empty: none."""
    measures_surprise: bool = False
    """Whether the base's loss is measured on what is trained for the first time, too."""
    thoughts: Literal["as_written", "drop"] = "as_written"
    """What becomes of the thought that stands before a reply."""
    date: Annotated[str, Meta(pattern=r"^(?:\d{4}-\d\d-\d\d)?\Z")] = ""
    """Which day it is for a chat template that writes the date, also where the cycle goes on later; empty: today."""
    strategy: Strategy
    rival: int | None = None
    """The other cycle of its pair: the same examples by another strategy. Its verdict waits for that one's figures."""
    foreign: str = ""
    """Directory of another machine's adapter: it is measured in the place of a trained one, and nothing is trained.
    The experiences with the role ``train`` are then those of this machine that it was trained on there. Empty: train.
    """
    seed: int = 0
    device: str = "auto"
    threads: int = 0
    """CPU threads of torch; 0: as many as the process may use."""
    reservoir: int = 0
    """Most experiences that the checkpoint keeps as texts, to be replayed by later cycles."""
    resume_point_seconds: float = 300.0
    """How often, while training, all that is needed to go on after a break is written down."""
    questions: list[RecallQuestion] = []
    """The operator's, with checkable answers."""
    evaluation_command: str = ""
    """The operator's own: gets an adapter's directory, none for the base, prints a JSON object of figures. Empty:
    none."""
    evaluation_seconds: float = 120.0
    """Most wall time for the replies of each model, and for each run of the operator's command."""
    predecessor: str | None = None
    """Adapter directory of the champion before the parent, empty for the base; None: nothing to compare."""
    predecessor_cycle: int | None = None
    later: list[str] = []
    """Ids of those experiences below that came after the parent was made: the two are compared on them."""
    later_margin: float = 0.0
    """See ``Probation.margin``."""
    later_is_capped: bool = False
    """See ``Probation.is_capped``."""
    confidence: float = 0.95
    """Of each bound of an interval."""


class Hello(msgspec.Struct, frozen=True, kw_only=True, tag="hello"):
    """First message: who answers."""

    version: str
    pid: int
    job_version: int = JOB_VERSION


class Progress(msgspec.Struct, frozen=True, kw_only=True, tag="progress"):
    """Where the worker stands. Sent when the phase changes and after optimizer steps; it is the heartbeat too."""

    phase: Phase
    step: int = 0
    steps: int = 0
    epoch: int = 0
    epochs: int = 0
    loss: float | None = None
    """Reply loss of this step, nats per supervised token."""
    tokens_per_second: float | None = None
    eta_seconds: float | None = None
    """To the end of the whole job, not of the phase; None while there is nothing to estimate it from."""
    device: str = ""
    """As it is used, with the reason where it is not the one asked for: ``cpu (cuda unavailable: …)``."""
    doing: str = ""
    """The step within loading, so that hangs can be distinguished: ``loaded the base's weights``."""

    @property
    def step_text(self) -> str:
        """What follows the phase in a sentence: ``, step 3 of 6``; empty where the phase has no steps."""
        return f", step {self.step} of {self.steps}" if self.steps > 0 else ""


class Notice(msgspec.Struct, frozen=True, kw_only=True, tag="notice"):
    """Something worth one log line, and worth keeping in the report."""

    event: str
    """A past fact, as a log event: ``micro_batch_halved``."""
    text: str
    level: Literal["info", "warning"] = "info"


class TrainingCheck(msgspec.Struct, frozen=True, kw_only=True):
    """One proof of effect, with its figure and its limit."""

    name: Literal["supervised_tokens", "adapter_changed", "losses_finite", "reload_matches"]
    passed: bool
    figure: float
    limit: float
    detail: str


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """A greedy reply of the candidate to a holdout prompt."""

    id: str
    prompt: str
    text: str
    is_loop: bool
    repeated_share: float
    """Share of the reply's words that lie in a repeated 4-gram, 0 to 1."""
    parent_is_loop: bool = False
    """Whether the parent, asked the same, loops too: small bases do, and the adapter is not to blame for it."""


class Report(msgspec.Struct, frozen=True, kw_only=True, tag="report"):
    """What was done and measured, on this adapter. All losses are nats per supervised token, weighted by token.

    Figures that could not be measured are None, never 0.
    """

    base_fingerprint: str
    device: str
    host: str = ""
    """The machine that trained and measured, where it is not the one that serves."""
    dtype: str
    """What was computed in, and what the base was quantised to: ``bfloat16``, or ``bfloat16, base in nf4``."""
    trained: int
    replayed: int
    held_out: int
    truncated: int
    tokens: int
    """Tokens that went through the model in training, all epochs, prompts included."""
    supervised_tokens: int
    """Of these the supervised ones."""
    epochs: int
    steps: int
    learning_rate: float
    avg_salience: float | None
    epoch_losses: list[float]
    trained_measured: int | None = None
    """How many of the trained and replayed ones the next two figures are over, chosen by hash; None: all of them."""
    train_before: float | None
    train_after: float | None
    holdout_base: float | None
    holdout_before: float | None
    """With the parent (which is the base where there is none)."""
    holdout_after: float | None
    holdout: list[LossPair]
    checks: list[TrainingCheck]
    replies: list[Reply]
    notices: list[Notice]
    seconds: dict[str, float]
    """Wall time by phase."""
    tokens_per_second: float
    peak_memory_bytes: Annotated[int, msgspec.Meta(ge=0, le=2**62)]
    """Of the device that the model was on; on a GPU what its allocator held, without the context of the driver."""
    host_memory_bytes: Annotated[int, msgspec.Meta(ge=0, le=2**62)] | None = None
    """Of the worker's process; None: an older worker did not tell."""
    energy_joules: Annotated[float, msgspec.Meta(ge=0)] | None = None
    """What the GPU drew from the base being loaded to the end, by its own count; other processes on it are included.
    None: not measured, as on a CPU."""
    lora_shape: str
    """Rank and modules in one word, such as ``r16:down_proj,…``; two adapters of unequal shape are two lineages."""
    stopping: int = 0
    """Held-out experiences that decided about early stopping, and are in none of the figures."""
    kept_step: int | None = None
    """The optimizer step whose weights are kept; None: early stopping was off."""
    evidence: Evidence = Evidence()
    chat: ChatContract | None = None
    """What the base's chat template does; None: an older worker did not check it."""

    @property
    def measured_where(self) -> str:
        """The device, and the machine where it is another one."""
        return f"{self.device} of {self.host}, not on this machine" if self.host else self.device

    @property
    def evaluation_share(self) -> float | None:
        """Of the cycle's wall time, what went into measuring, before and after training; None: it was not timed.

        Preparing the reference answers that regularise the training is a cost of training.
        """
        total = sum(self.seconds.values())
        measuring = [self.seconds[phase] for phase in ("measuring", "evaluating") if phase in self.seconds]
        return sum(measuring) / total if measuring and total > 0 else None


class Failure(msgspec.Struct, frozen=True, kw_only=True, tag="failure"):
    """The worker gives up, with the reason."""

    kind: FailureKind
    message: str
    hint: str = ""
    traceback: str = ""
    probation: Probation | None = None
    """With ``champion_worse``: what was measured."""


WorkerMessage = Hello | Progress | Notice | Report | Failure

_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(WorkerMessage)


def encode(message: msgspec.Struct) -> bytes:
    """One message as one line."""
    return _encoder.encode(message) + b"\n"


def decode_message(line: bytes) -> WorkerMessage:
    """One line from the worker.

    Raises:
        ProtocolError: it is no message; the field at fault is named.
    """
    try:
        return cast(WorkerMessage, _decoder.decode(line))
    except DECODE_ERRORS as error:
        raise _not_understood("worker message", error) from error


def decode_job(text: bytes) -> Job:
    """A job file.

    Raises:
        ProtocolError: it is no job, or of another version.
    """
    try:
        job = msgspec.json.decode(text, type=Job)
    except DECODE_ERRORS as error:
        raise _not_understood("job", error) from error
    if job.version != JOB_VERSION:
        raise ProtocolError(
            f"the job has version {job.version}, this worker understands {JOB_VERSION}",
            hint="install the same version of sage-sleepd for the daemon and for the worker",
        )
    return job


def decode_examples(text: bytes) -> list[TrainingExample]:
    """The experiences of a job, one a line.

    Raises:
        ProtocolError: a line is no experience.
    """
    decoder = msgspec.json.Decoder(TrainingExample)
    try:
        return decoder.decode_lines(text)
    except DECODE_ERRORS as error:
        raise _not_understood("experience", error) from error


def _not_understood(what: str, error: Exception) -> ProtocolError:
    return ProtocolError(
        f"not understood: {what}: {error}",
        hint="install the same version of sage-sleepd for the daemon and for the worker",
    )
