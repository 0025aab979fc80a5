"""One cycle in a few sentences, each of them measured: for the screen of ``report`` and for the page."""

from __future__ import annotations

from sleepd.cycle import JUDGED_STATES, TERMINAL_STATES
from sleepd.protocol.evidence import TOKEN_CAP
from sleepd.protocol.status import CycleDetail, CycleSummary
from sleepd.protocol.verdict import Interval, LearnedGain
from sleepd.sleepctl.pages.wording import change, count, has_low_sample, losses, older_loss


def sentences(detail: CycleDetail) -> list[str]:
    """What became of it, what it learned from, what that gained, and how much that is worth."""
    summary, verdict = detail.summary, detail.verdict
    found = [_outcome(summary)]
    if summary.trained and summary.state in JUDGED_STATES:
        again = f" and repeated {summary.replayed} learned before" if summary.replayed else ""
        found.append(f"It learned from {count(summary.trained, 'experience')}{again}.")
    if (older := older_loss(summary)) or summary.holdout_after is None:
        found.append(f"Its {older}." if older else "Nothing was measured on held-out experiences.")
    else:
        found.append(_gain(summary, verdict.gain if verdict else None))
    if verdict is not None and verdict.learned is not None:
        found += _learned(verdict.learned, verdict.gain)
    found += _beside(detail)
    if detail.report is not None and detail.report.host:
        found.append(f"All of it was measured on {detail.report.measured_where}.")
    if has_low_sample(summary):
        found.append("That is a low sample (fewer than 8): the difference may be chance.")
    if summary.is_on_probation:
        found.append("It is on probation: later experiences decide whether it stays in use.")
    return found


def _outcome(summary: CycleSummary) -> str:
    if summary.is_champion:
        return "Its adapter is in use."
    if summary.is_rolled_back:
        return "Its adapter was in use and was rolled back."
    match summary.state:
        case "promoted":
            return "Its adapter was promoted; a later one is in use now."
        case "rejected" | "inconclusive":
            return "Its adapter was not promoted; the previous one stayed in use."
        case "imported" | "adopted":
            return "An older trainer made it."
        case state if state in TERMINAL_STATES:
            return "It ended without a verdict; the previous adapter stayed in use."
        case "measured":
            return "It was measured; its verdict waits for the other one of its pair."
    return "It has not ended; there is no verdict yet."


def _beside(detail: CycleDetail) -> list[str]:
    """How it did against the other strategy on the same experiences."""
    pair = detail.verdict.pair if detail.verdict else None
    if pair is None:
        return []
    other = f"cycle {pair.rival}, which trained the strategy {pair.strategy} on the same experiences"
    if pair.rival_state != "measured":
        return [f"It was judged alone: {other}, has no figures ({pair.rival_state})."]
    which = {True: "was better than", False: "was not as good as", None: "was compared with"}[pair.is_better]
    return [f"It {which} {other}."]


def _gain(summary: CycleSummary, gain: Interval | None) -> str:
    """The holdout's figures as a loss, which is not the same as better replies."""
    before, after = summary.holdout_before, summary.holdout_after
    over = f"On {count(summary.measured_on, 'experience')} that it never trained on, the reply loss"
    if before is None or after is None:
        return f"{over} is {losses(before, after)} nats/token."
    direction = "fell" if after < before else "did not fall"
    text = f"{over} {direction}: {losses(before, after)} nats/token ({change(before, after)}; lower is better)"
    if gain is not None and gain.low is not None and gain.high is not None:
        text += f", a gain between {gain.low:.3f} and {gain.high:.3f} (each bound with {gain.confidence:.0%})"
    return text.replace("-", "−") + "."


def _learned(found: LearnedGain, gain: Interval | None) -> list[str]:
    """Why it was promoted although it is not shown better; what is recalled in other words is not measured here."""
    replies = count(found.gain.experiences, "experience")
    is_worse = gain is not None and gain.high is not None and gain.high < 0
    said = [
        f"It was promoted because it learned: on {replies} that it trained for the first time the reply loss fell, "
        f"{losses(found.before, found.after)} nats/token."
    ]
    if found.kept is not None and found.kept.low is not None:
        before = count(found.kept.experiences, "experience")
        said.append(f"On {before} that were learned before, {_at_most(found.kept.low)}.")
    said.append(f"It is {'worse' if is_worse else 'not shown to be better'} on what it never trained on.")
    if found.unseen is not None and found.unseen.low is not None:
        capped = f"Where a token counts for at most {TOKEN_CAP:.1f} nats"
        said.append(f"{capped}, {_at_most(found.unseen.low)}; less than {found.margin:.2g} was allowed.")
    return said


def _at_most(low: float) -> str:
    """The bound of a loss that is not worse."""
    return "the loss did not rise" if low >= 0 else f"the loss rose by less than {-low:.3f} nats/token, if at all"
