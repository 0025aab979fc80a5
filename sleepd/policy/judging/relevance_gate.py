"""Whether the replies that were trained answer their prompts: what the base makes of them, against a limit. Pure.

A candidate that learned replies to other prompts writes in the agent's style, which lowers the loss on what is held out
as well: nothing measured on the candidate distinguishes the two on few experiences. The base does, which has learned
neither: a reply is likelier after its own prompt than after another one. By how many nats per token is an estimate of
their pointwise mutual information (Li et al. 2016, A Diversity-Promoting Objective Function, section 3). Where it is
not above zero beyond chance, the replies are as good as drawn from a hat.

It is not asked of few replies or few different prompts, nor of a base that makes no difference between prompts at all.
"""

from __future__ import annotations

import math
from typing import Final

from sleepd.protocol.evidence import Relevance
from sleepd.protocol.verdict import Figure

from .confidence import gain_interval

FEWEST_REPLIES, FEWEST_PROMPTS = 16, 4
"""Replies, and different prompts, below which chance decides too often."""
CONFIDENCE: Final = 0.975
"""Of the lower bound: of replies drawn from a hat one set in forty passes."""
LEAST_PROMPT_EFFECT = 0.02
"""Least difference of a reply's loss between two prompts, root mean square, nats per token, for a base that can decide.
Trained models lie above 0.1, random weights far below."""


def is_enough(*, replies: int, prompts: int) -> bool:
    """Whether so many replies and prompts are enough."""
    return replies >= FEWEST_REPLIES and prompts >= FEWEST_PROMPTS


def relevance_figure(found: Relevance | None) -> Figure:
    """The figure, against zero; it is not binding where too little was measured."""
    if found is None:
        return _figure(None, text="replies that fit their prompts: not measured")
    if not found.losses or not is_enough(replies=found.replies, prompts=found.prompts):
        text = (
            f"replies that fit their prompts: undecided with {found.replies} replies to {found.prompts} different "
            f"prompts; at least {FEWEST_REPLIES} to {FEWEST_PROMPTS} are needed"
        )
        return _figure(None, text=text, is_binding=False)
    prompt_effect = math.sqrt(math.fsum((each.other - each.own) ** 2 for each in found.losses) / len(found.losses))
    if prompt_effect < LEAST_PROMPT_EFFECT:
        text = (
            "replies that fit their prompts: undecided, because the base's losses do not depend on the prompt "
            f"({prompt_effect:.2g} nats/token)"
        )
        return _figure(None, text=text, is_binding=False)
    gain = gain_interval([(each.tokens, each.other, each.own) for each in found.losses], CONFIDENCE)
    assert gain.low is not None
    text = (
        f"replies are likelier after their own prompts than after others by {gain.estimate:.3f} nats/token, above "
        f"{gain.low:.3f} with {100 * CONFIDENCE:.3g}% confidence; above 0 counts"
    )
    if gain.low <= 0:
        ask = "does the agent write each reply beside its own prompt?"
        text = f"nothing shows that what was trained fits its prompts: {text} ({ask})"
    return _figure(gain.low, text=text)


def _figure(low: float | None, *, text: str, is_binding: bool = True) -> Figure:
    is_met = low is not None and low > 0
    return Figure(
        name="relevance", value=low, relation="above", limit=0, is_met=is_met, is_binding=is_binding, text=text
    )
