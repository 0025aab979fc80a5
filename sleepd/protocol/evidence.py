"""What was measured on a candidate, beside the same of its parent and of the base: the same prompts, the same seeds.

These structures travel from the worker in its report, are judged by ``promotion``, stand in ``evaluation.json`` and
are shown by ``sleepctl``. Where there is no parent, the parent is the base. A figure that was not measured is None,
never 0.
"""

from __future__ import annotations

import math
from typing import Final, Literal

import msgspec

from .chat_example import Hash

METRIC_NAME = r"[\w.:/@%+-]{1,64}"
"""What a figure of the operator's may be called."""

TOKEN_CAP: Final = math.log(10)
"""Nats that a token counts for at most in a capped loss: one that was expected with less than one in ten is wrong,
however wrong. A fact that nobody has told cannot be known, and how surely a model is wrong about it says little."""


RECALLED: Final = math.log(2)
"""Nats per token: a reply with a smaller loss is recalled, for its tokens are likelier than not (geometric mean)."""


class CappedLosses(msgspec.Struct, frozen=True, kw_only=True):
    """Reply loss of one experience where a token counts for at most ``TOKEN_CAP``, nats per supervised token."""

    base: float
    parent: float
    candidate: float


class LossPair(msgspec.Struct, frozen=True, kw_only=True):
    """Reply loss of one experience, nats per supervised token."""

    id: str
    tokens: int
    base: float
    parent: float
    candidate: float
    conversation: Hash = ""
    """Replies of one conversation count as one experience; empty: it is a conversation of its own."""
    capped: CappedLosses | None = None
    """None: an older worker did not measure it."""


class TrainedLoss(msgspec.Struct, frozen=True, kw_only=True):
    """Reply loss of one experience that this cycle trained for the first time, nats per supervised token."""

    id: str
    tokens: int
    parent: float
    candidate: float
    conversation: Hash = ""
    """See ``LossPair``."""
    base: float | None = None
    """None: it was not asked for (``Job.measures_surprise``)."""


class RememberedLoss(msgspec.Struct, frozen=True, kw_only=True):
    """Reply loss of one trained experience, nats per supervised token: of the adapter, asked as it was trained, and of
    the base with the experience in its prompt.
    """

    id: str
    tokens: int
    """Supervised ones."""
    candidate: float
    in_prompt: float
    prompt_tokens: int
    """That the experience adds to the prompt."""

    @property
    def is_better_in_prompt(self) -> bool:
        """Whether the base recalls it from the prompt and the adapter does not."""
        return self.in_prompt < RECALLED <= self.candidate


class Drift(msgspec.Struct, frozen=True, kw_only=True):
    """KL from the base on the base's own answers to reference prompts that training never used, nats per token."""

    prompts: int
    tokens: int
    parent: float
    candidate: float


class Speech(msgspec.Struct, frozen=True, kw_only=True):
    """One model's replies to the probe prompts in one way, in figures."""

    replies: int
    mean_words: float
    distinct_2: float | None
    """Different bigrams as a share of all, over all replies (Li et al. 2016, distinct-n); None: too few words."""
    longest_repeat_words: int
    """Of the longest n-gram that stands twice in one reply."""
    similar_pairs_share: float | None
    """Of all pairs of replies, those whose word sets have a Jaccard index above 0.85; None: fewer than two replies."""
    loops: int
    """Replies that run in a loop."""
    question_floods: int


class Collapse(msgspec.Struct, frozen=True, kw_only=True):
    """Base, parent and candidate, asked the same in the same way."""

    mode: Literal["greedy", "sampled", "talk"]
    """``talk`` feeds each model its own replies back."""
    base: Speech
    parent: Speech
    candidate: Speech


class ProbeReply(msgspec.Struct, frozen=True, kw_only=True):
    """Greedy replies to one probe prompt, to be read: before and after."""

    prompt: str
    base: str
    parent: str
    candidate: str


class RecallAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """One of the operator's questions with a checkable answer."""

    question: str
    expected: list[str]
    """Any of these in the reply is right, case aside."""
    base: str
    parent: str
    candidate: str
    base_is_right: bool
    parent_is_right: bool
    candidate_is_right: bool


class Metric(msgspec.Struct, frozen=True, kw_only=True):
    """A figure of the operator's own command."""

    name: str
    parent: float | None
    candidate: float | None


class LaterLoss(msgspec.Struct, frozen=True, kw_only=True):
    """Reply loss of one experience that came after the champion was judged, nats per supervised token; see
    ``Probation.is_capped``.
    """

    id: str
    tokens: int
    predecessor: float
    champion: float
    conversation: Hash = ""
    """See ``LossPair``."""


class Probation(msgspec.Struct, frozen=True, kw_only=True):
    """Champion and predecessor on experiences that neither was trained on, because they came later."""

    champion: int
    predecessor: int | None
    """None: the base."""
    losses: list[LaterLoss]
    margin: float = 0.0
    """The champion is called worse where it is worse by more than this, nats per token: it was promoted for what it had
    learned, and was allowed as much."""
    is_capped: bool = False
    """The losses are capped ones (``TOKEN_CAP``): it was promoted for what it had learned, by such losses."""


class ReplyLosses(msgspec.Struct, frozen=True, kw_only=True):
    """Loss of one trained reply with the base, nats per supervised token: after its own prompt, and after another."""

    id: str
    tokens: int
    own: float
    other: float


class Relevance(msgspec.Struct, frozen=True, kw_only=True):
    """Whether what was trained answers its prompts, as the base reads it."""

    prompts: int
    """Different ones of the replies that could be read."""
    replies: int
    """That could be read."""
    losses: list[ReplyLosses]
    """Of each of these replies; empty: they are too few, or their prompts are."""


class ChatContract(msgspec.Struct, frozen=True, kw_only=True):
    """What a base's chat template was found to do with a sample, before anything was trained."""

    has_template: bool
    asked: str
    """All that stands before the sample's reply, as text."""
    supervised: str
    """The sample's reply and the end of its turn: what is trained of it."""
    notes: list[str] = []
    """What it does, a sentence each."""
    warnings: list[str] = []
    """What may make training worse than it could be."""
    writes_tools: bool | None = None
    """Whether it writes calls of tools and their results; None: an older version did not try."""


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """All of it beside the reply losses on the holdout, which ``Report.holdout`` has."""

    noise_floor: float | None = None
    """What the mean holdout loss of one and the same adapter differs by between two readings, nats per token."""
    drift: Drift | None = None
    collapse: list[Collapse] = []
    probe_replies: list[ProbeReply] = []
    recall: list[RecallAnswer] = []
    metrics: list[Metric] = []
    relevance: Relevance | None = None
    """None: it was not measured."""
    probation: Probation | None = None
    """None: there was nothing to compare (no champion, no predecessor, or too few later experiences)."""
    newly_trained: list[TrainedLoss] = []
    """Of the replies that this cycle trained for the first time, some by rank; empty: an older worker did not measure
    them."""
    remembered: list[RememberedLoss] = []
    """Of some trained replies, what the prompt would do instead; empty: an older worker did not measure it."""
    repeated: list[LossPair] = []
    """Of the replies that the parent's lineage learned and this cycle trained again, some by rank."""


class RecallQuestion(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One entry of the operator's ``probes.toml``."""

    question: str
    expected: list[str]
