"""``tokens``: one experience as the base sees it, and what of it is supervised."""

from __future__ import annotations

import pwd
from contextlib import suppress

import msgspec

from sleepd.buffer.masking import masked_example
from sleepd.config.strategies import STRATEGIES
from sleepd.errors import NotFound, WorkerDied
from sleepd.host import worker_python
from sleepd.protocol.capability import SeenPiece, SeenTokens, ShownText
from sleepd.protocol.control import QuarantineShow
from sleepd.protocol.status import SCHEMA, QuarantineDetail
from sleepd.sleepctl.exit_codes import ExitCode
from sleepd.sleepctl.pages.decision_page import line
from sleepd.sleepctl.pages.terminal import Page, Row, Span
from sleepd.sleepctl.pages.wording import count
from sleepd.sleepctl.session import Session
from sleepd.worker_program import NoAnswer, ask_worker

_MARKS = "⟦⟧↵"


def tokens(session: Session) -> ExitCode:
    """Its text from the daemon, its tokens from the worker's interpreter; FAILED where it cannot be trained."""
    identifier = session.arguments.id
    detail: QuarantineDetail = session.ask(QuarantineShow(id=identifier), QuarantineDetail)
    if detail.salience is None:
        raise NotFound(f"{identifier} is no longer in the buffer, so its text is not available", hint="sleepctl buffer")
    config = session.places.load_config().config
    interpreter = worker_python(config.worker.python)
    arguments = [
        "sleepd.worker.programs.show_tokens",
        "--base",
        config.model.base,
        "--cache",
        config.model.cache_directory,
    ]
    arguments += [f"--system-prompt={config.model.system_prompt}", "--thoughts", config.training.thoughts]
    arguments += ["--max-tokens", str(STRATEGIES[config.training.strategy].max_tokens)]
    # As a cycle does where personal data are masked: what is shown is what is trained.
    is_masked = config.quarantine.personal_data == "mask"
    shown = ShownText(**detail.parts())
    given = msgspec.json.encode(masked_example(shown)[0] if is_masked else shown)
    owner = None
    with suppress(OSError, KeyError):
        owner = pwd.getpwuid(session.places.state.stat().st_uid)
    try:
        seen = ask_worker(interpreter, arguments, SeenTokens, user=owner, stdin=given)
    except NoAnswer as error:
        raise WorkerDied(f"{interpreter} does not answer: {error}", hint="sleepctl doctor") from error
    kept = ""
    if detail.entry.is_kept_from_training:
        kept = f"it is excluded from training: {detail.entry.text}"
    data = {"schema": SCHEMA, "id": identifier, "kept_from_training": kept, **msgspec.to_builtins(seen)}
    session.console.show(data, [*([line(kept, "yellow")] if kept else []), *tokens_page(seen)])
    return ExitCode.FAILED if seen.problem else ExitCode.OK


def tokens_page(seen: SeenTokens) -> Page:
    """The prompt's tokens, then the supervised ones. Control tokens stand in brackets, which no text can forge."""
    if seen.problem:
        return [line(seen.problem, "red"), *([line(f"→ {seen.hint}")] if seen.hint else [])]
    page: Page = []
    for is_supervised, title, style in (
        (False, "before the reply, not supervised", "dim"),
        (True, "supervised", "green"),
    ):
        pieces = [piece for piece in seen.pieces if piece.is_supervised == is_supervised]
        size = count(sum(len(piece.ids) for piece in pieces), "token")
        page += [line(f"{title}: {size}", "bold"), *_lines(pieces, style), line("")]
    if seen.is_truncated:
        page.append(line("it is longer than the strategy's max_tokens, and was cut", "yellow"))
    return [*page, line("⟦…⟧ is a control token; ↵ is a line end; everything else is text", "dim")]


def _lines(pieces: list[SeenPiece], style: str) -> Page:
    rows: Page = []
    spans = [Span("  ")]
    for piece in pieces:
        if piece.is_control:
            spans.append(Span(f"⟦{piece.text}⟧", "yellow"))
            continue
        first, *others = _without_marks(piece.text).split("\n")
        spans.append(Span(first, style))
        for other in others:
            rows.append(Row([*spans, Span("↵", "dim")], hang=2))
            spans = [Span("  "), Span(other, style)]
    return [*rows, Row(spans, hang=2)] if any(span.text.strip(" ") for span in spans) else rows


def _without_marks(text: str) -> str:
    return "".join(each.encode("unicode_escape").decode() if each in _MARKS else each for each in text)
