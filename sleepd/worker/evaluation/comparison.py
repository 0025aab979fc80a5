"""Base, parent and candidate side by side: from what each of them said to the evidence. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from sleepd.policy.judging.recall import is_recalled
from sleepd.policy.judging.repetition import find_repetition
from sleepd.policy.judging.reply_statistics import describe
from sleepd.protocol.evidence import Collapse, Metric, ProbeReply, RecallAnswer, RecallQuestion
from sleepd.protocol.job import Reply

from .probe_generation import Answers, HeldOut, Questions

SHOWN = 4
"""Probe prompts, and held-out prompts, whose replies go into the report to be read."""

_WAYS: tuple[Literal["greedy", "sampled", "talk"], ...] = ("greedy", "sampled", "talk")


def collapse(base: Answers, parent: Answers, candidate: Answers) -> list[Collapse]:
    """How each of them speaks, way by way; a way that one of them could not finish in time is left out."""
    found = []
    for way in _WAYS:
        said = [getattr(answers, way) for answers in (base, parent, candidate)]
        if all(said):
            speech = [describe(replies) for replies in said]
            found.append(Collapse(mode=way, base=speech[0], parent=speech[1], candidate=speech[2]))
    return found


def recall(asked: Sequence[RecallQuestion], base: Answers, parent: Answers, candidate: Answers) -> list[RecallAnswer]:
    """The operator's questions, each with three answers; one that not all could finish in time is left out."""
    found = []
    for question, *said in zip(asked, base.recall, parent.recall, candidate.recall, strict=True):
        texts = [one for one in said if one is not None]
        if len(texts) == len(said):
            right = [is_recalled(text, question.expected) for text in texts]
            found.append(
                RecallAnswer(
                    question=question.question,
                    expected=question.expected,
                    base=texts[0],
                    parent=texts[1],
                    candidate=texts[2],
                    base_is_right=right[0],
                    parent_is_right=right[1],
                    candidate_is_right=right[2],
                )
            )
    return found


def probe_replies(asked: Questions, base: Answers, parent: Answers, candidate: Answers) -> list[ProbeReply]:
    """Replies to be read: to some of the probe prompts, and to some of the held-out ones."""
    prompts = [one.prompt for one in asked.probes]
    probes = zip(prompts, base.greedy or [], parent.greedy or [], candidate.greedy or [], strict=False)
    shown = [*list(probes)[:SHOWN]]
    for example, *said in zip(asked.held_out, base.held_out, parent.held_out, candidate.held_out, strict=True):
        texts = [one for one in said if one is not None]
        if len(texts) == len(said):
            shown.append((example.prompt, texts[0], texts[1], texts[2]))
    return [
        ProbeReply(prompt=prompt, base=of_base, parent=of_parent, candidate=of_candidate)
        for prompt, of_base, of_parent, of_candidate in shown[: 2 * SHOWN]
    ]


def holdout_replies(examples: Sequence[HeldOut], parent: Answers, candidate: Answers) -> list[Reply]:
    """The candidate's replies to these examples' prompts, with what was found in them and in the parent's.

    Those that either could not finish in time are left out: a loop may begin late.
    """
    found = []
    for example, before, after in zip(examples, parent.held_out, candidate.held_out, strict=True):
        if before is not None and after is not None:
            repetition = find_repetition(after)
            found.append(
                Reply(
                    id=example.id,
                    prompt=example.prompt,
                    text=after,
                    is_loop=repetition.is_loop,
                    repeated_share=repetition.repeated_share,
                    parent_is_loop=find_repetition(before).is_loop,
                )
            )
    return found


def missing(said: Sequence[Answers]) -> str:
    """What time did not suffice for with any of the models, in words; empty: nothing."""
    parts = [f"{way} replies" for way in _WAYS if any(getattr(one, way) is None for one in said)]
    for what, lists in (
        ("held-out prompts", [one.held_out for one in said]),
        ("questions", [one.recall for one in said]),
    ):
        cut = [None in replies for replies in zip(*lists, strict=True)]
        if any(cut):
            parts.append(f"{sum(cut)} of {len(cut)} {what}")
    return ", ".join(parts)


def metrics(parent: Mapping[str, float] | None, candidate: Mapping[str, float] | None) -> list[Metric]:
    """The figures of the operator's command, by name; None: it did not give that one."""
    before, after = parent or {}, candidate or {}
    return [Metric(name=name, parent=before.get(name), candidate=after.get(name)) for name in sorted({*before, *after})]
