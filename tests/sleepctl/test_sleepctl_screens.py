"""The screens: what an owner reads, in 80 columns, whatever the texts hold."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sleepd.protocol.decision_view import ConditionView, VetoView
from sleepd.protocol.job import Progress
from sleepd.protocol.status import DecisionRecord, QuarantineEntry, RunResult, Status
from sleepd.sleepctl.pages import wording as words
from sleepd.sleepctl.pages.cycle_table import history_page
from sleepd.sleepctl.pages.decision_page import buffer_page, decision_page, run_page, why_page
from sleepd.sleepctl.pages.report_page import KnownCycle, report_page
from sleepd.sleepctl.pages.show_page import show_page
from sleepd.sleepctl.pages.status_page import status_page
from sleepd.sleepctl.pages.terminal import Page, Row, Span, clean, columns, pad, render, shorten
from tests.sleepctl import sleepctl_scenes as scenes

_HOSTILE_CYCLE = msgspec.structs.replace(
    scenes.REJECTED, cycle=10**9, reason=scenes.HOSTILE, hint=scenes.HOSTILE, strategy=scenes.HOSTILE
)
_HOSTILE_DECISION = scenes.decision(vetoes=(VetoView(name=scenes.HOSTILE, text=scenes.HOSTILE),))
_CHANGES = [
    DecisionRecord(at=scenes.NOW, decision=_HOSTILE_DECISION, facts={scenes.HOSTILE: scenes.HOSTILE, "n": None})
]

PAGES: dict[str, Page] = {
    **{name: status_page(status, now=scenes.NOW, is_live=True) for name, status in scenes.STATUSES.items()},
    **{f"{name}, down": status_page(status, now=scenes.NOW, is_live=False) for name, status in scenes.STATUSES.items()},
    "history": history_page(
        [_HOSTILE_CYCLE, scenes.FAILED, scenes.PROMOTED, scenes.LOW_SAMPLE, scenes.IMPORTED], scenes.NOW, is_live=True
    ),
    "show": show_page(scenes.DETAIL, scenes.NOW),
    "show, attacked": show_page(
        msgspec.structs.replace(scenes.DETAIL, summary=_HOSTILE_CYCLE, directory=scenes.LONG_PATH), scenes.NOW
    ),
    "show, everything": show_page(scenes.FULL, scenes.NOW),
    "report": report_page(
        KnownCycle(
            scenes.FULL, scenes.LEARNED, scenes.BUFFER, scenes.BUFFER_DETAIL.set_aside, scenes.QUARANTINE, is_live=True
        ),
        scenes.NOW,
    ),
    "report, attacked": report_page(
        KnownCycle(
            msgspec.structs.replace(scenes.FULL, summary=_HOSTILE_CYCLE, directory=scenes.LONG_PATH),
            msgspec.structs.replace(scenes.LEARNED, problem=scenes.HOSTILE, gone=[scenes.HOSTILE] * 20),
            scenes.BUFFER,
            [],
            [],
            is_live=False,
        ),
        scenes.NOW,
    ),
    "report, nothing kept": report_page(
        KnownCycle(msgspec.structs.replace(scenes.DETAIL, report=None), None, scenes.BUFFER, [], [], is_live=True),
        scenes.NOW,
    ),
    "show, nothing kept": show_page(msgspec.structs.replace(scenes.DETAIL, report=None, directory=""), scenes.NOW),
    "buffer": buffer_page(scenes.BUFFER_DETAIL, scenes.NOW),
    "check": decision_page(scenes.MORNING.decision),
    "check, attacked": decision_page(_HOSTILE_DECISION),
    "why": why_page(_HOSTILE_DECISION, _CHANGES, scenes.NOW),
    "run": run_page(RunResult(is_started=True, reason=scenes.HOSTILE, cycle=9)),
    "run, ended": run_page(RunResult(is_started=True, reason="due", cycle=9, summary=_HOSTILE_CYCLE)),
}


def text_of(page: Page, *, is_coloured: bool = False) -> str:
    """The page on 80 columns."""
    return render(page, width=80, is_coloured=is_coloured)


def status_text(status: Status, *, is_live: bool = True) -> str:
    """The status screen on 80 columns."""
    return text_of(status_page(status, now=scenes.NOW, is_live=is_live))


@pytest.mark.parametrize("name", PAGES)
def test_every_screen_fits_80_columns(name: str) -> None:
    """No line of any screen is wider than 80 columns, with long paths and hostile texts too."""
    too_wide = [line for line in text_of(PAGES[name]).splitlines() if columns(line) > 80]
    assert too_wide == []


@pytest.mark.parametrize("width", [40, 57, 120])
@pytest.mark.parametrize("name", PAGES)
def test_every_screen_fits_other_widths(name: str, width: int) -> None:
    """On a narrow terminal lines are wrapped, on a wide one they are not pushed over its edge."""
    text = render(PAGES[name], width=width, is_coloured=False)
    assert [line for line in text.splitlines() if columns(line) > width] == []


@pytest.mark.parametrize("name", PAGES)
def test_screens_pass_no_control_character(name: str) -> None:
    """Without colour a screen holds line ends and printable characters and nothing else."""
    bad = {character for character in text_of(PAGES[name]) if character != "\n" and not character.isprintable()}
    assert bad == set()


@pytest.mark.parametrize("name", PAGES)
def test_colour_changes_nothing_but_the_colour(name: str) -> None:
    """The coloured screen without its own colour codes is the plain screen: no text smuggles one in."""
    coloured = text_of(PAGES[name], is_coloured=True)
    assert re.sub(r"\x1b\[\d+m", "", coloured) == text_of(PAGES[name])


@pytest.mark.parametrize("name", ["fresh", "waiting", "training", "promoted", "rejected", "failed"])
def test_status_fits_24_lines(name: str) -> None:
    """Nothing scrolls away, the shell's own line included."""
    assert len(text_of(PAGES[name]).splitlines()) <= 23


def test_champion_shows_age_and_holdout() -> None:
    """The figures that were measured on the champion stand beside its age."""
    text = status_text(scenes.MORNING)
    assert "cycle 8, promoted today 04:39" in _unlocalised(text)
    assert "3.12 → 2.71 (−0.41 nats" in text
    assert "23 experiences)\n" in text
    assert "the base model has 3.38" in text


def test_champion_of_packed_base_says_so() -> None:
    """An adapter that was measured on a base in nf4 is not taken for one that was measured on the whole base."""
    champion = msgspec.structs.replace(scenes.CHAMPION, quantization="nf4")
    assert "measured on the base in nf4" in status_text(msgspec.structs.replace(scenes.MORNING, champion=champion))
    assert "base in" not in status_text(scenes.MORNING)


def test_unread_buffer_is_not_called_absent() -> None:
    """A file in UTF-16 is there and was not read; only a look that did not find the file says that it is not there."""
    unread = msgspec.structs.replace(scenes.BUFFER, form="absent", read_at=None, problem="is UTF-16, expected UTF-8")
    assert "Buffer      not read yet\n" in status_text(scenes.changed(scenes.FRESH, buffer=unread))
    missed = msgspec.structs.replace(unread, read_at=scenes.NOW, problem="")
    assert "does not exist yet\n" in status_text(scenes.changed(scenes.FRESH, buffer=missed))


def _unlocalised(text: str) -> str:
    local = scenes.CHAMPION.promoted_at.astimezone()
    return text.replace(f"{local:%H:%M}", "04:39").replace("yesterday 04:39", "today 04:39")


def test_unmet_conditions_show_what_is_missing() -> None:
    """A condition that is met is not listed; one that is not says how much is missing."""
    text = status_text(scenes.WAITING)
    assert " 1 more experience (4 of 5)\n" in text
    assert "more new experience" not in text
    assert re.search(r"3 h 19 min more .*\(of 6 h\)", status_text(scenes.MORNING))


def test_veto_is_shown_beside_met_conditions() -> None:
    """An owner who waits in vain finds out what holds it back."""
    assert "Next sleep  Cooling down " in status_text(scenes.BROKEN)


def test_unknown_condition_uses_daemon_text() -> None:
    """A condition that this program does not know keeps its text."""
    condition = ConditionView(name="moon", is_met=False, found=0.1, required=1.0, text="The moon is not full")
    assert words.lacking(condition) == "The moon is not full"


def test_last_error_shows_its_command() -> None:
    """Error, then an arrow and its hint on a line of its own."""
    text = status_text(scenes.BROKEN)
    assert re.search(r"Last error  out of .*\n.*\n +→ sudoedit /etc/", text)
    assert "Last error  none" in status_text(scenes.MORNING)


def test_training_shows_bar_and_figures() -> None:
    """The snapshot of a running cycle says all that is known of it."""
    text = status_text(scenes.TRAINING)
    assert "█" * 14 + "░" * 18 + "  46%  training" in text
    figures = ("step 11 of 24", "epoch 2 of 3", "3 min left", "loss 2.31", "812 tokens/s", "cuda:0")
    assert [figure for figure in figures if figure not in text] == []


def test_phase_without_steps_has_no_bar() -> None:
    """While the model loads there is no loss and no share done, so none is shown."""
    text = status_text(scenes.changed(scenes.TRAINING, progress=Progress(phase="loading", device="cpu")))
    head = text.split("\n\n", maxsplit=1)[0]
    assert "loading" in head
    assert "cpu" in head
    assert not re.search(r"[█░%]|loss|left", head)


def test_unmeasured_is_never_zero() -> None:
    """A champion without figures says so in words."""
    bare = msgspec.structs.replace(scenes.CHAMPION, holdout_base=None, holdout_before=None, holdout_after=None)
    text = status_text(scenes.changed(scenes.MORNING, champion=bare, recent_cycles=[]))
    assert "holdout not measured" in text
    assert "0.00" not in text


def test_fewer_than_eight_is_low_sample() -> None:
    """Eight held-out experiences are not thin, seven are."""
    assert words.holdout(3.0, 2.0, 7).endswith("7 experiences) (low sample)")
    assert words.holdout(3.0, 2.0, 8).endswith("8 experiences)")
    assert re.search(r"\+0\.18  0\.008  n<8, probation\n", status_text(scenes.MORNING))


def test_small_change_is_not_rounded_away() -> None:
    """Two figures that differ in the third digit are shown with four."""
    assert words.holdout(3.1214, 3.1185, 9).split()[1:5] == ["3.1214", "→", "3.1185", "(−0.0029"]


def test_older_loss_has_its_own_line() -> None:
    """Its line has a dash for the holdout; the loss stands below, named for what it is."""
    for text in (status_text(scenes.OLDER), text_of(history_page([scenes.IMPORTED], scenes.NOW, is_live=True))):
        row = next(line for line in text.splitlines() if "imported" in line)
        assert row.rstrip().endswith("–")
        assert "2.91" not in row
        assert "loss 2.91 over whole" in re.sub(r"\n +", " ", text)


def test_offline_screen_avoids_present_tense() -> None:
    """No bar, no next sleep, and the cycle that was training is called unfinished."""
    text = status_text(scenes.TRAINING, is_live=False)
    assert text.startswith("○ sage-sleepd is not ")
    assert " was training\n" in text
    assert "Next sleep" not in text
    assert "█" not in text
    assert "unfinished" in text


def test_histogram_shows_single_experience() -> None:
    """A bin that holds one of ten thousand is not drawn empty; an empty one is."""
    detail = msgspec.structs.replace(scenes.BUFFER_DETAIL, histogram=[0, 1, 10_000, 0, 0, 0, 0, 0, 0, 0])
    lines = text_of(buffer_page(detail, scenes.NOW)).splitlines()
    bars = {line[:9].strip(): line.count("█") for line in lines if "–" in line[:9]}
    assert (bars["0.0–0.1"], bars["0.1–0.2"], bars["0.2–0.3"]) == (0, 1, 40)


def test_unlisted_skipped_records_are_counted() -> None:
    """The daemon lists a hundred; the rest is said as a number."""
    many = msgspec.structs.replace(scenes.BUFFER, set_aside=250)
    text = text_of(buffer_page(msgspec.structs.replace(scenes.BUFFER_DETAIL, status=many), scenes.NOW))
    assert "and 248 more" in text


def test_ratings_of_no_reply_are_told() -> None:
    """How many lines of feedback name no reply, and where the newest stand."""
    where = ["/logs/feedback.jsonl line 9", "/logs/feedback.jsonl line 7"]
    for number, said in ((0, ""), (2, "ratings name no reply read so far"), (1, "1  rating names no reply")):
        detail = msgspec.structs.replace(
            scenes.BUFFER_DETAIL, ratings_without_reply=number, ratings_without_reply_at=where[:number]
        )
        text = " ".join(text_of(buffer_page(detail, scenes.NOW)).split())
        assert " ".join(said.split()) in text
        assert [each in text for each in where] == [number > 0, number > 1]
        assert ("the newest" in text) is False
    detail = msgspec.structs.replace(detail, ratings_without_reply=40)
    assert "another name), the newest: /logs/feedback.jsonl line 9" in " ".join(
        text_of(buffer_page(detail, scenes.NOW)).split()
    )


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.4, "0 s"),
        (59.9, "59 s"),
        (60, "1 min"),
        (3600, "1 h"),
        (25920, "7 h 12 min"),
        (86400, "1 d"),
        (97200, "1 d 3 h"),
    ],
)
def test_duration_has_two_largest_units(seconds: float, said: str) -> None:
    """Durations read as a person says them."""
    assert words.duration(seconds) == said


def test_future_moment_is_not_past() -> None:
    """A moment in the future, by plan or by a clock that went back, reads 'in'."""
    assert words.ago(scenes.NOW + timedelta(minutes=4), scenes.NOW) == "in 4 min"
    assert words.ago(scenes.NOW - timedelta(minutes=4), scenes.NOW) == "4 min ago"


@given(st.text())
def test_cleaned_text_is_printable(text: str) -> None:
    """Whatever goes in, nothing that moves a cursor comes out, and what was harmless is unchanged."""
    cleaned = clean(text)
    assert cleaned.isprintable()
    assert not text.isprintable() or cleaned == text


@given(st.text(), st.integers(4, 90))
def test_shortened_text_keeps_its_width(text: str, width: int) -> None:
    """Wide and combining characters are counted as terminals show them."""
    assert columns(shorten(text, width)) <= width
    assert columns(pad(text, width)) == width


@given(st.lists(st.text(), max_size=4), st.sampled_from([None, "", "Label"]), st.integers(20, 80), st.integers(0, 8))
def test_wrapping_loses_no_character(texts: list[str], label: str | None, width: int, hang: int) -> None:
    """Everything but blanks arrives, in order, in lines that fit."""
    out = render([Row([Span(text) for text in texts], label, hang)], width=width, is_coloured=False)
    assert all(columns(line) <= width for line in out.splitlines())
    shown = "".join(out.split())
    assert shown == (label or "") + "".join("".join(clean(text) for text in texts).split())


@pytest.mark.parametrize("said", ["0001-01-01T00:30:00+14:00", "9999-12-31T23:30:00-14:00"])
def test_impossible_time_is_shown_raw(said: str) -> None:
    """What cannot be turned into local time is shown with its own day and minute."""
    shown = words.moment(datetime.fromisoformat(said), scenes.NOW)
    assert shown.lstrip("0") == said[:16].replace("T", " ").lstrip("0")


def test_failed_cycle_claims_no_training() -> None:
    """Of a cycle without a verdict the screens say what was to be trained; it may have ended before any of it."""
    failed = scenes.cycle(9, "failed", trained=11, held_out=4)
    assert "11 to train, " in text_of(run_page(RunResult(is_started=True, reason="", cycle=9, summary=failed)))
    judged = msgspec.structs.replace(failed, state="rejected")
    assert "11 trained, " in text_of(run_page(RunResult(is_started=True, reason="", cycle=9, summary=judged)))


def test_a_report_tells_dropped_from_personal() -> None:
    """What the operator dropped is named so, and personal data, which may be trained, do not stand as set aside."""
    dropped = QuarantineEntry(id="a", state="dropped", reason="", text="nothing was found in it", at=scenes.NOW)
    buffer = msgspec.structs.replace(scenes.BUFFER, quarantined=1, personal=2)
    text = text_of(report_page(KnownCycle(scenes.DETAIL, None, buffer, [], [dropped], is_live=True), scenes.NOW))
    aside, personal = text.split("\nNot trained\n")[1].split("\nPersonal data\n")
    assert ("dropped by the operator" in aside, "personal" in aside) == (True, False)
    assert personal.startswith("  in 2 experiences ")
