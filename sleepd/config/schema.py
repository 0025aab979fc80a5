"""The operator's configuration: the keys, their meaning and their defaults.

Each field states its meaning and its limits where it is declared; ``render`` writes the shipped file and the
reference in config/README.md from the same words, so they cannot disagree. ``checks`` refuses what makes no sense.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from sleepd.text.personal_data import Handling

from .buffer_config import BufferConfig
from .bundle_config import BundleConfig, SyncConfig
from .reporting_config import MetricsConfig, NotifyConfig
from .serve_config import ServeConfig
from .triggers_config import MOST, TriggersConfig
from .worker_config import WorkerConfig

SAFETY_GATES = ("drift", "collapse", "recall", "relevance")
"""What is measured of the damage that training does."""


class ModelConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which model learns."""

    base: Annotated[
        str,
        Meta(
            min_length=1,
            description='"embedded" (SmolLM2-135M-Instruct), a directory, a .gguf file, or a hub id in the cache.',
        ),
    ] = "embedded"
    cache_directory: Annotated[
        str, Meta(description="The hub cache in which a hub id is searched; empty: the library's default place.")
    ] = ""
    system_prompt: Annotated[
        str, Meta(description="The system prompt that the agent runs with; empty: the model's own default.")
    ] = ""
    quantization: Annotated[
        Literal["none", "nf4"],
        Meta(
            description='"nf4" keeps the base\'s linear layers in four bits, in about a quarter of the memory that '
            'bfloat16 takes; "none": as they are. It needs bitsandbytes (sleepctl doctor). Each cycle then trains and '
            "measures on that base, and the agent must run the same. Another value is another base: sleepctl rebase."
        ),
    ] = "none"


class TrainingConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is trained, and how."""

    strategy: Annotated[
        str,
        Meta(
            description='A named set of hyperparameters: "consolidate", its neighbours "careful" (learns less, drifts '
            'less) and "eager" (the opposite), "rehearse" (for a few short experiences that state facts), or "gentle" '
            "(the older scheduler's recipe)."
        ),
    ] = "consolidate"
    explore: Annotated[
        float,
        Meta(
            ge=0.0,
            le=1.0,
            description="Share of cycles that try a neighbour strategy, too: a pair on the same experiences, of which "
            "the better one is promoted. Such a cycle takes twice the time. 0: none.",
        ),
    ] = 0.0
    adopt_better: Annotated[
        bool,
        Meta(
            description="Whether a strategy that pairs of cycles have proved better replaces the configured one. "
            "status and why show that; false, or another strategy here, takes it back."
        ),
    ] = False
    thoughts: Annotated[
        Literal["as_written", "drop"],
        Meta(
            description='Of a reply that begins with a thought (<think> … </think>): "as_written" trains thought and '
            'answer, "drop" trains the answer alone.'
        ),
    ] = "as_written"
    min_salience: Annotated[
        float,
        Meta(
            ge=0.0,
            le=1.0,
            description="Least salience of a trained experience; experiences below it are still counted.",
        ),
    ] = 0.6
    max_experiences: Annotated[
        int,
        Meta(ge=1, le=MOST, description="Most new experiences in one cycle, the most salient first; the rest wait."),
    ] = 500
    max_holdout: Annotated[
        int, Meta(ge=1, le=1000, description="Most held-out experiences that a candidate is measured on.")
    ] = 64
    reservoir: Annotated[
        int,
        Meta(
            ge=0,
            le=10_000,
            description="Most trained experiences whose texts a checkpoint keeps, to be replayed after the agent has "
            "removed them from its buffer; 0: none are kept.",
        ),
    ] = 500
    replay_tokens: Annotated[
        int,
        Meta(
            ge=1_000,
            le=1_000_000_000,
            description="Most tokens of learned experiences that a cycle trains again, each counted once, at about "
            "four characters a token. Of more, those that were lost, short replies, the newest and the most salient "
            "are trained, and the rest may be forgotten. A cycle trains at least four fifths as many experiences as "
            "the one in use.",
        ),
    ] = 7_000
    seed: Annotated[
        int, Meta(ge=0, le=2**31, description="Random seed, for shuffling and for the adapter's first weights.")
    ] = 0


class QuarantineConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is excluded from training."""

    personal_data: Annotated[
        Handling,
        Meta(
            description="E-mail addresses, telephone and card numbers, IBANs, IP addresses and streets, where "
            'their form shows what they are: "keep" trains them as they are, "mask" trains a '
            'placeholder such as [e-mail] in their place, "set_aside" excludes an experience with any'
            " of them from training. They are always counted."
        ),
    ] = "keep"


class EvaluationConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is measured beside reply loss, drift and collapse."""

    probes: Annotated[
        str,
        Meta(
            description="A TOML file of [[probe]] tables with question and expected answer, to measure recall. "
            "Empty: none."
        ),
    ] = ""
    command: Annotated[
        str,
        Meta(
            description="Your own evaluation: gets an adapter's directory (none: the base), prints a JSON object of "
            "figures. Empty: none."
        ),
    ] = ""
    seconds: Annotated[
        float,
        Meta(
            ge=1.0,
            le=86400.0,
            description="Most time for the replies of each model (base, champion, candidate), and for each run of your "
            "own command.",
        ),
    ] = 120.0


class PromotionConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a candidate must show to be promoted."""

    confidence: Annotated[
        float,
        Meta(
            ge=0.5,
            le=0.9999,
            description="Of the lower bound of the holdout gain, which must be above min_gain. A candidate "
            "without effect is promoted with a probability of at most 1 minus this.",
        ),
    ] = 0.95
    min_gain: Annotated[
        float,
        Meta(
            ge=0.0,
            le=100.0,
            description="Smallest holdout gain that counts, nats per token. The measured noise replaces it where "
            "that is larger.",
        ),
    ] = 0.01
    margin: Annotated[
        float,
        Meta(
            ge=0.0,
            le=100.0,
            description="A candidate that is not shown better on held-out experiences is promoted where it learned: "
            "where it knows what this cycle trained for the first time by more than min_learned, and is worse than the "
            "champion by less than this many nats per token, and by less than a fifth of what the champion gained over "
            "the base: on what the champion had learned, and on held-out experiences, where a token counts for at most "
            "2.3 nats. One that is worse by as much on either is promoted with a probability of at most 1 minus "
            "confidence. 0: only a better one is promoted.",
        ),
    ] = 0.3
    min_learned: Annotated[
        float,
        Meta(
            ge=0.0,
            le=100.0,
            description="For such a promotion: least fall of the reply loss on newly trained replies, nats per token, "
            "that the lower bound must be above.",
        ),
    ] = 0.1
    max_drift: Annotated[
        float,
        Meta(ge=0.0, le=100.0, description="Most KL from the base on reference prompts, nats per token."),
    ] = 0.05
    harms: Annotated[
        tuple[str, ...],
        Meta(
            description="The safety gates: one that misses its limit, or was not measured, rejects the candidate. One "
            "that is left out here is shown and does not decide."
        ),
    ] = SAFETY_GATES
    limits: Annotated[
        tuple[str, ...],
        Meta(
            description="Limits on the figures of your command, or on those that `sleepctl metric add` adds: "
            '"accuracy >= 0.8", "accuracy >= parent - 0.02".'
        ),
    ] = ()
    inconclusive: Annotated[
        Literal["auto", "keep", "probation"],
        Meta(
            description='Where the evidence is inconclusive: "keep" the champion; promote the candidate on '
            '"probation" if it gained with a lower confidence; or "auto": probation only while fewer '
            "than 8 experiences are held out, with no more wrong promotions than confidence allows."
        ),
    ] = "auto"


class StateConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where adapters and the ledger are kept."""

    directory: Annotated[str, Meta(min_length=1, description="Unset: $STATE_DIRECTORY, else the value shown.")] = (
        "/var/lib/sage-sleepd"
    )
    min_free_megabytes: Annotated[
        int, Meta(ge=0, le=MOST, description="No cycle starts with less free space than this in the state directory.")
    ] = 500
    keep_promoted: Annotated[
        int,
        Meta(
            ge=1,
            le=MOST,
            description="So many of the newest promoted cycles keep their weights; the champion, the previous "
            "champion and tagged ones always do.",
        ),
    ] = 5
    keep_rejected: Annotated[
        int,
        Meta(
            ge=0,
            le=MOST,
            description="So many of the newest rejected cycles keep their weights; tagged ones always do.",
        ),
    ] = 3


class ControlConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The socket that sleepctl speaks to."""

    socket: Annotated[
        str, Meta(min_length=1, description="Unset: $RUNTIME_DIRECTORY/sleepd.sock, else the value shown.")
    ] = "/run/sage-sleepd/sleepd.sock"
    socket_mode: Annotated[
        str, Meta(pattern=r"^0?[0-7]{3}$", description="Who may connect, and so read the status: its file mode.")
    ] = "0660"
    operator_group: Annotated[
        str,
        Meta(description="Its members may also force, cancel, pause and roll back; so may root and the daemon's user."),
    ] = "sage-sleepd"


class LogConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the journal gets."""

    level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="The least severe level that is logged.")
    ] = "info"


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of it. Every section may be left out."""

    buffer: BufferConfig = BufferConfig()
    triggers: TriggersConfig = TriggersConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    quarantine: QuarantineConfig = QuarantineConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    promotion: PromotionConfig = PromotionConfig()
    worker: WorkerConfig = WorkerConfig()
    serve: ServeConfig = ServeConfig()
    state: StateConfig = StateConfig()
    control: ControlConfig = ControlConfig()
    log: LogConfig = LogConfig()
    metrics: MetricsConfig = MetricsConfig()
    notify: NotifyConfig = NotifyConfig()
    bundle: BundleConfig = BundleConfig()
    sync: SyncConfig = SyncConfig()


NEEDS_RESTART = ("state", "control")
"""Sections that a reload cannot change under a running daemon."""

FROM_ENVIRONMENT = ("state.directory", "control.socket")
"""Keys that systemd's environment decides when nothing else sets them."""
