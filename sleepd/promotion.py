"""Whether a candidate may be used. Pure: evidence in, verdict out.

A candidate is promoted when all of this holds, each shown with its figure:
- the four proofs of effect in the worker's report: something was supervised, the adapter is not null and differs from
  its parent, the losses are finite, and what was written to disk is what was measured;
- the reply loss on held-out experiences fell against the parent's;
- of its greedy replies to held-out prompts no more loop than of its parent's to the same prompts. A small base loops
  by itself when it is decoded greedily; what counts is whether the training made it worse.

What passing does not prove: that the fall is more than noise, that general abilities are unharmed, or that replies are
better in any sense but likelihood.
"""

from __future__ import annotations

import math

from .job import Check, Report
from .verdict import Outcome, Verdict

REQUIRED_CHECKS = ("supervised_tokens", "adapter_changed", "losses_finite", "reload_matches")


def judge(report: Report) -> Verdict:
    """Whether this candidate is better than its parent and has damaged nothing that was measured."""
    objections = [*_effect(report), *_holdout(report), *_replies(report)]
    if objections:
        return Verdict(
            outcome=Outcome.REJECTED,
            reason="; ".join(text for _, text in objections),
            failed=[name for name, _ in objections],
        )
    assert report.holdout_before is not None
    assert report.holdout_after is not None
    gain = report.holdout_before - report.holdout_after
    thin = ", thin evidence" if report.held_out < 8 else ""
    return Verdict(
        outcome=Outcome.PROMOTED,
        reason=f"holdout reply loss {report.holdout_before:.3f} -> {report.holdout_after:.3f} "
        f"(-{gain:.3f} nats/token on {report.held_out} experiences{thin})",
        failed=[],
    )


def _effect(report: Report) -> list[tuple[str, str]]:
    by_name: dict[str, Check] = {check.name: check for check in report.checks}
    objections = []
    for name in REQUIRED_CHECKS:
        check = by_name.get(name)
        if check is None:
            objections.append((name, f"{name}: not measured"))
        elif not check.passed:
            figures = f"{check.figure:.3g}, limit {check.limit:.3g}"
            objections.append((name, f"{name}: {check.detail} ({figures})"))
    return objections


def _holdout(report: Report) -> list[tuple[str, str]]:
    before, after = report.holdout_before, report.holdout_after
    if report.held_out == 0 or before is None or after is None:
        return [("holdout", "holdout: nothing was held out to measure on")]
    if not (math.isfinite(before) and math.isfinite(after)):
        return [("holdout", f"holdout: loss is not finite ({before} -> {after})")]
    if not after < before:
        return [("holdout", f"holdout reply loss did not fall ({before:.3f} -> {after:.3f} nats/token)")]
    return []


def _replies(report: Report) -> list[tuple[str, str]]:
    if not report.replies:
        return [("replies", "replies: none were made to look at")]
    loops = [reply for reply in report.replies if reply.is_loop]
    parents = sum(reply.parent_is_loop for reply in report.replies)
    if len(loops) <= parents:
        return []
    worst = max(loops, key=lambda reply: reply.repeated_share)
    return [
        (
            "replies",
            f"{len(loops)} of {len(report.replies)} greedy replies loop, of the parent's {parents} "
            f"(worst: {worst.repeated_share:.0%} of its words in repeated phrases)",
        )
    ]
