"""The screens of ``sleepctl bundle``."""

from __future__ import annotations

from datetime import datetime

from sleepd.bundles.contents import BundleHeader, SentEvidence, SentFigure
from sleepd.bundles.exporting import BundleWritten
from sleepd.bundles.foreign import ForeignBundle
from sleepd.protocol.checkpoint.base_identity import MARK, in_quantization, quantization_of

from .decision_page import line
from .terminal import Page
from .wording import ago, count, holdout, size

ID_DIGITS = 12
"""Of an id, on a screen."""


def written_page(written: BundleWritten, target: str) -> Page:
    """What ``export`` wrote."""
    header = written.header
    page = [line(f"cycle {header.cycle}: {target} ({size(written.bytes)})", "green"), line(f"bundle {written.id}")]
    page.append(line(_texts(header)))
    if written.secrets:
        page.append(line(f"left out, because they hold a secret: {count(written.secrets, 'text')}", "yellow"))
    return page


def foreign_page(bundle: ForeignBundle) -> Page:
    """One bundle, from this machine's point of view."""
    header = bundle.header
    page = [
        line(f"bundle {bundle.id}"),
        line(f"signed by {bundle.signer}: cycle {header.cycle} there, of {header.created_at}"),
        line(f"strategy {header.strategy}, {header.lora_shape}; written by sage-sleepd {header.written_by}"),
        line(f"base {_short(header.base_fingerprint)}"),
        line(_texts(header)),
        *(line(f"  {each.name}: {size(each.bytes)}", "dim") for each in header.members),
    ]
    return page + (
        _evidence_lines(bundle.evidence) if bundle.evidence else [line("what was measured there: not understood")]
    )


def _evidence_lines(evidence: SentEvidence) -> Page:
    there = f"measured there, on {evidence.device}, {evidence.dtype}: {evidence.outcome.value}"
    loss = holdout(evidence.holdout_before, evidence.holdout_after, evidence.held_out)
    figures = [f"  {_figure(each)}" for each in evidence.figures if each.is_binding]
    return [
        line(f"{there}; {loss}"),
        *(line(text, "dim") for text in figures),
        line("These figures are the sender's and decide nothing on this machine."),
    ]


def list_page(bundles: list[ForeignBundle], now: datetime) -> Page:
    """All that were imported, one line each."""
    if not bundles:
        return [line("no bundle was imported")]
    page = []
    for each in bundles:
        came = f", {ago(each.received_at, now)}" if each.received_at else ""
        gain = each.evidence.gain if each.evidence else None
        there = f"gain there {gain.estimate:.3f}" if gain else "gain there unknown"
        cycle = f"from:{each.signer}  cycle {each.header.cycle}"
        page.append(line(f"{each.id[:ID_DIGITS]}  {cycle}  {there}, {_here(each)}{came}"))
    return page


def _here(bundle: ForeignBundle) -> str:
    judged = bundle.judged
    return f"here {judged.outcome} by cycle {judged.cycle}" if judged else "not measured here"


def _texts(header: BundleHeader) -> str:
    return "it holds texts of the agent" if header.has_texts else "it holds no texts of the agent"


def _short(fingerprint: str) -> str:
    """The beginning of each part, and what its weights are quantised to."""
    weights, _, rest = fingerprint.partition(MARK)
    shown = in_quantization(weights[:ID_DIGITS], quantization_of(fingerprint))
    return f"{shown}{MARK}{rest[:ID_DIGITS]}" if rest else shown


def _figure(figure: SentFigure) -> str:
    if figure.value is None:
        return f"{figure.name}: not measured"
    limits = [each for each in (figure.limit, figure.upper_limit) if each is not None]
    return f"{figure.name}: {figure.value:.4g}, {figure.relation} {' and '.join(f'{each:.4g}' for each in limits)}"
