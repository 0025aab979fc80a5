"""``sleepctl report`` and ``show``: what a night came to, with every figure, its limit and the way back."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sleepd import errors
from sleepd.buffer.experience import content_hash, hash_text
from sleepd.protocol import control
from sleepd.protocol.answers import Learned
from sleepd.protocol.job import Report
from sleepd.protocol.status import CycleDetail, CycleSummary, QuarantineList
from sleepd.protocol.verdict import Verdict
from sleepd.sleepctl.pages.cycle_table import history_page
from sleepd.sleepctl.pages.lines.cycle_sentences import sentences
from sleepd.sleepctl.pages.report_page import KnownCycle, report_page
from sleepd.sleepctl.pages.show_page import show_page
from sleepd.sleepctl.pages.status_page import status_page
from sleepd.sleepctl.pages.terminal import Page, render
from tests.sleepctl import sleepctl_scenes as scenes
from tests.sleepctl.sleepctl_fake_daemon import FakeDaemon
from tests.sleepctl.sleepctl_ran import Ran

Sleepctl = Callable[..., Ran]


def flat(page: Page) -> str:
    """The page with all blanks alike, so that it does not matter where a line was wrapped."""
    return " ".join(render(page, width=80, is_coloured=False).split())


def told(detail: CycleDetail, learned: Learned | None = None, *, is_live: bool = True) -> str:
    """The report on it."""
    return flat(report_page(KnownCycle(detail, learned, scenes.BUFFER, [], [], is_live), scenes.NOW))


def of(summary: CycleSummary, **fields: Any) -> CycleDetail:
    """A cycle of which nothing but its line is known."""
    bare = msgspec.structs.replace(scenes.DETAIL, summary=summary, report=None, undo="")
    return msgspec.structs.replace(bare, **fields)


# --- the page ---


def test_report_has_its_sections_in_order() -> None:
    """From top to bottom: verdict, reason, figures, experiences, replies, what was set aside, cost, undo."""
    page = report_page(
        KnownCycle(
            scenes.FULL, scenes.LEARNED, scenes.BUFFER, scenes.BUFFER_DETAIL.set_aside, scenes.QUARANTINE, is_live=True
        ),
        scenes.NOW,
    )
    lines = render(page, width=80, is_coloured=False).splitlines()
    headings = [line for line in lines if re.fullmatch(r"[A-Z][a-z ,]+", line)]
    assert lines[0] == "Cycle 8: promoted, in use"
    assert [heading.split()[0] for heading in headings] == [
        "Each",
        "Proofs",
        "What",
        "Replies",
        "Your",
        "Style",
        "Drift",
        "Your",
        "What",
        "Not",
        "Chat",
        "What",
        "Notices",
        "To",
        "Files",
    ]


def test_figure_shows_mark_and_limit() -> None:
    """Met, missed and open look different; a figure that was not measured is a dash."""
    lines = render(show_page(scenes.FULL, scenes.NOW), width=80, is_coloured=False).splitlines()
    shown = [line[12:].split() for line in lines if re.match(r" *(Figures)? +[✓✗?] \w+ +\S+  ", line)]
    assert [(words[0], words[1], words[2], words[-1]) for words in shown] == [
        ("✓", "holdout_gain", "0.41", "0.013"),
        ("✗", "drift", "0.0812", "0.05"),
        ("?", "recall", "–", "–"),
        ("✓", "mean_words", "28", "62.4"),
    ]


def test_proof_among_figures_is_shown_once() -> None:
    """What the verdict holds against a limit stands there; the other proofs stand by themselves."""
    assert "✓ adapter_changed 1.3" in flat(show_page(scenes.FULL, scenes.NOW))
    figure = msgspec.structs.replace(scenes.VERDICT.figures[0], name="adapter_changed")
    verdict = msgspec.structs.replace(scenes.VERDICT, figures=[figure])
    assert "Proofs" not in flat(show_page(msgspec.structs.replace(scenes.FULL, verdict=verdict), scenes.NOW))


def test_other_machine_stands_beside_verdict() -> None:
    """What was measured on another machine than the one that serves says so, in the page and in the sentences."""
    report = msgspec.structs.replace(scenes.REPORT, host="thor")
    detail = msgspec.structs.replace(scenes.DETAIL, report=report)
    assert f"on {report.measured_where} Trained on" in flat(show_page(detail, scenes.NOW))
    assert f"All of it was measured on {report.measured_where}." in sentences(detail)
    assert not [each for each in sentences(scenes.DETAIL) if "thor" in each]


def test_holdout_is_shown_with_interval() -> None:
    """A loss fell between two bounds; nobody is told that replies are better."""
    text = told(scenes.FULL)
    assert "On 23 experiences " in text
    assert "3.12 → 2.71 nats/token" in text
    assert "between 0.330 and 0.500" in text
    assert "2.71 → 2.96 nats" in told(of(scenes.REJECTED))


def test_stopping_experiences_are_no_evidence() -> None:
    """The report and the other pages name as many as the loss was measured on, not as many as were held out."""
    summary = msgspec.structs.replace(scenes.FULL.summary, held_out=20, judging=5)
    detail = msgspec.structs.replace(scenes.FULL, summary=summary)
    assert "On 5 experiences " in told(detail)
    shown = flat(show_page(detail, scenes.NOW))
    assert "20 held out" in shown
    assert "5 experiences) (low sample)" in shown


def test_nothing_measured_is_said_in_words() -> None:
    """A failed cycle has no figure, and none is invented."""
    text = told(of(scenes.FAILED))
    assert "without a verdict" in text
    assert "learned from" not in text
    assert not re.search(r"\b0\.0", text)


def test_low_sample_and_probation_are_named() -> None:
    """Status, history, show, report and the end of a run: each says both."""
    summary = msgspec.structs.replace(scenes.LOW_SAMPLE, is_champion=True)
    champion = msgspec.structs.replace(scenes.CHAMPION, held_out=3, is_thin=True, is_on_probation=True)
    status = scenes.changed(scenes.MORNING, champion=champion, recent_cycles=[summary])
    shown = {
        "status": flat(status_page(status, now=scenes.NOW, is_live=True)),
        "history": flat(history_page([summary], scenes.NOW, is_live=True)),
        "show": flat(show_page(scenes.ON_PROBATION, scenes.NOW)),
        "report": told(scenes.ON_PROBATION),
    }
    assert [
        name for name, text in shown.items() if not re.search("low sample|n<8", text) or "probation" not in text
    ] == []
    solid = told(scenes.FULL) + flat(
        status_page(scenes.changed(scenes.MORNING, recent_cycles=[]), now=scenes.NOW, is_live=True)
    )
    assert not re.search(r"\blow sample\b", solid)
    assert "on probation" not in solid


def test_later_comparison_names_its_cycle() -> None:
    """The comparison stands in show and report, and in status for the champion."""
    assert scenes.FULL.comparison is not None
    said = scenes.FULL.comparison.reason
    assert f"Later: {said} (compared by cycle 9)" in told(scenes.FULL)
    assert f"Later {said} (compared by cycle 9)" in flat(show_page(scenes.FULL, scenes.NOW))
    champion = msgspec.structs.replace(scenes.CHAMPION, comparison=scenes.FULL.comparison)
    status = scenes.changed(scenes.MORNING, champion=champion)
    assert f"on later experiences: {said}" in flat(status_page(status, now=scenes.NOW, is_live=True))


def test_replies_are_ordered_by_model() -> None:
    """Three speakers where there was a champion, two where the base itself was before; silence has a word."""
    text = told(scenes.FULL)
    one = scenes.EVIDENCE.probe_replies[0]
    assert f"> {one.prompt} base {one.base} before {one.parent} after {one.candidate}" in text
    assert "after (nothing)" in text
    first = msgspec.structs.replace(scenes.FULL, summary=msgspec.structs.replace(scenes.PROMOTED, parent=None))
    assert f"> {one.prompt} before {one.base} after {one.candidate}" in told(first)


def test_lost_answer_is_called_forgotten() -> None:
    """The count for all three models, then each wrong answer with what was expected."""
    text = told(scenes.FULL)
    assert "1 of 2 right; " in text
    assert "; before: 1; base: 0" in text
    right, forgotten = scenes.EVIDENCE.recall
    assert re.search(rf"✗ {re.escape(forgotten.question)} \(.*\) .* Juniper", text)
    assert f"{right.question} (" not in text


def test_experiences_name_gone_and_changed() -> None:
    """Texts of what is still there; ids of what is not, counted and cut."""
    text = told(scenes.FULL, scenes.LEARNED)
    assert "41 new, 20 learned before" in text
    assert "48 of 61 are still" in text
    first = scenes.LEARNED.experiences[0]
    assert f"0.93 {first.prompt} {first.response}" in text
    assert re.search("12 no longer .*: 0000", text)
    assert "0000000000000009 and 2 more" in text
    assert re.search(r"1 changed .*: bbbb", text)


def test_experience_with_secret_is_hidden() -> None:
    """The command that shows it to whoever may see it stands in place of its text."""
    secret = msgspec.structs.replace(scenes.LEARNED.experiences[0], prompt="", response="", is_withheld=True)
    text = told(scenes.FULL, msgspec.structs.replace(scenes.LEARNED, experiences=[secret]))
    assert "sleepctl quarantine show a" in text
    assert scenes.LEARNED.experiences[0].response not in text


def test_untrained_records_are_counted_by_reason() -> None:
    """Records that are not usable, experiences in quarantine, and what was cut; what was released is not among it."""
    text = flat(report_page(scenes.KNOWN, scenes.NOW))
    assert "1 experience too long" in text
    assert re.search("2 records .*: sleepctl buffer", text)
    assert "1 no response" in text
    assert re.search("2 exp.*: sleepctl quarantine", text)
    assert "1 loop: 83 % of its words" in text
    assert "secret: a key" not in text
    clean = msgspec.structs.replace(scenes.BUFFER, set_aside=0)
    nothing = flat(report_page(KnownCycle(scenes.DETAIL, None, clean, [], [], is_live=True), scenes.NOW))
    assert "Not trained none" in nothing


def test_evaluation_share_counts_both_phases() -> None:
    """Before and after: 40 + 61 of 241.7 seconds."""
    assert "42% of the time for measuring" in told(scenes.FULL)
    for seconds in ({}, {"training": 3.0}):  # nobody took the time of it: that is not 0 %
        report: Report = msgspec.structs.replace(scenes.REPORT, seconds=seconds)
        assert "measuring" not in told(msgspec.structs.replace(scenes.FULL, report=report))


def test_older_cycle_has_no_figures() -> None:
    """No verdict and no evidence: what there is is shown, and no empty heading."""
    text = told(msgspec.structs.replace(scenes.DETAIL, verdict=None))
    assert "Each figure" not in text
    assert "Your questions" not in text
    assert "✓ adapter_changed" in text


def test_missing_undo_is_explained() -> None:
    """The one command, or why there is none."""
    assert "sleepctl rollback 7 " in told(scenes.FULL)
    assert "sleepctl rollback" not in told(of(scenes.REJECTED))


def test_history_line_has_gain_drift_verdict() -> None:
    """More is better in the gain; a dash where nothing was measured."""
    cycles = [scenes.REJECTED, scenes.PROMOTED, scenes.LOW_SAMPLE]
    lines = render(history_page(cycles, scenes.NOW, is_live=True), width=80, is_coloured=False).splitlines()
    figures = [line[36:].split() for line in lines if re.match(r" {4}\d", line)]
    assert figures == [
        ["rejected", "−0.25", "–"],
        ["promoted", "+0.41", "0.012"],
        ["promoted", "+0.18", "0.008", "n<8,", "probation"],
    ]


# --- the commands ---


@pytest.fixture
def full_daemon(daemon: FakeDaemon) -> FakeDaemon:
    """Knows cycle 8, and 9 which failed."""
    daemon.replies[control.History] = {"schema": 1, "cycles": [scenes.FAILED, scenes.PROMOTED, scenes.LOW_SAMPLE]}
    daemon.replies[control.Show] = scenes.FULL
    daemon.replies[control.Experiences] = scenes.LEARNED
    daemon.replies[control.Buffer] = msgspec.structs.replace(scenes.BUFFER_DETAIL, status=scenes.QUARANTINED)
    daemon.replies[control.Quarantine] = QuarantineList(entries=scenes.QUARANTINE, total=2)
    return daemon


def test_report_defaults_to_newest_judged(full_daemon: FakeDaemon, sleepctl: Sleepctl) -> None:
    """A failed one that came later is not what was learned last."""
    code, out, err = sleepctl("report", "--limit", "3")
    assert (code, err) == (0, "")
    assert out.startswith("Cycle 8: promoted, in use\n")
    assert control.Show(cycle=8) in full_daemon.requests
    assert control.Experiences(cycle=8, limit=3) in full_daemon.requests


def test_report_takes_a_number(full_daemon: FakeDaemon, sleepctl: Sleepctl) -> None:
    """Nothing else is looked for."""
    assert sleepctl("report", "3").code == 0
    assert control.Show(cycle=3) in full_daemon.requests
    assert not any(isinstance(request, control.History) for request in full_daemon.requests)


def test_json_report_has_all_data(full_daemon: FakeDaemon, sleepctl: Sleepctl) -> None:
    """Cycle with verdict and evidence, texts, buffer; in plain ASCII."""
    ran = sleepctl("report", "--json")
    assert sorted(ran.json) == ["buffer", "cycle", "is_live", "learned", "quarantine", "schema", "set_aside"]
    assert ran.json["cycle"]["verdict"]["figures"][1]["limit"] == 0.05
    assert ran.json["cycle"]["report"]["evidence"]["probe_replies"][0]["candidate"].startswith("The blue lamp")
    assert ran.json["cycle"]["undo"] == "sleepctl rollback 7"
    assert ran.json["learned"]["experiences"][0]["prompt"] == "Where is the blue lamp?"
    assert [each["id"] for each in ran.json["quarantine"]] == ["q1", "q2", "q3"]
    assert ran.out.isascii()


def test_report_needs_a_judged_cycle(daemon: FakeDaemon, sleepctl: Sleepctl) -> None:
    """Said with exit code 4, and where to look."""
    daemon.replies[control.History] = {"schema": 1, "cycles": [scenes.FAILED, scenes.IMPORTED]}
    code, out, err = sleepctl("report")
    assert (code, out) == (4, "")
    assert err.endswith("\nhint: sleepctl status\n")


def test_cycle_without_experiences_asks_for_none(full_daemon: FakeDaemon, sleepctl: Sleepctl) -> None:
    """An older trainer's: the daemon would not know the number."""
    full_daemon.replies[control.Show] = of(scenes.IMPORTED, trained_ids=[], replayed_ids=[], held_out_ids=[])
    full_daemon.replies[control.Experiences] = errors.NotFound("there is no cycle 2", hint="")
    assert sleepctl("report", "2").code == 0


# --- with the daemon down ---


def leave_on_disk(directory: Path, *, retired: bool = False) -> None:
    """What a daemon leaves: two experiences trained, of which the buffer has one, and one that was changed."""
    history = {"schema": 1, "written_at": scenes.NOW, "cycles": [scenes.FAILED, scenes.PROMOTED]}
    (directory / "history.json").write_bytes(msgspec.json.encode(history))
    buffer = directory / "buffer.jsonl"
    records = [
        {"id": "a", "prompt": "Where is the lamp?", "response": "On the shelf.", "salience": 0.9},
        {"id": "b", "prompt": "Who?", "response": "Another text.", "salience": 0.9},
    ]
    buffer.write_text("".join(json.dumps(record) + "\n" for record in records))
    status = scenes.changed(scenes.MORNING, buffer=msgspec.structs.replace(scenes.BUFFER, path=str(buffer)))
    (directory / "status.json").write_bytes(msgspec.json.encode(status))
    path = directory / ("retired/cycle_008" if retired else "cycle_008")
    path.mkdir(parents=True)
    groups = {"a": content_hash("Where is the lamp?", "On the shelf."), "b": content_hash("Who?", "Me."), "c": 1}
    placed = {name: {"id": name, "group": hash_text(group)} for name, group in groups.items()}
    lineage = {
        "cycle": 8,
        "parent": 7,
        "started_at": scenes.NOW,
        "judged_at": scenes.NOW,
        "is_forced": False,
        "trained": [placed["a"], placed["b"]],
        "replayed": [placed["c"]],
        "held_out": [],
        "seen": [],
    }
    (path / "lineage.json").write_bytes(msgspec.json.encode(lineage))
    evaluation = {"verdict": scenes.VERDICT, "report": scenes.FULL.report}
    (path / "evaluation.json").write_bytes(msgspec.json.encode(evaluation))


@pytest.mark.parametrize("is_retired", [False, True], ids=["standing", "retired"])
def test_offline_report_comes_from_files(environment: Path, sleepctl: Sleepctl, is_retired: bool) -> None:
    """Figures, replies and texts are there; that it is no live answer is said, with exit code 3."""
    leave_on_disk(environment, retired=is_retired)
    code, out, err = sleepctl("report", "--state", str(environment))
    text = " ".join(out.split())
    assert code == 3
    assert err.startswith("the daemon is not running; ")
    assert re.search(r"✗ .* 0\.0812 nats.* 0\.05 ", text)
    assert f"after {scenes.EVIDENCE.probe_replies[0].candidate}" in text
    assert "1 of 3 are still" in text
    assert "0.90 Where is the lamp? On " in text
    assert re.search("1 no longer .*: c 1 changed .*: b ", text)
    assert "Another text." not in text
    assert "Read from disk: " in text
    assert "To undo it sleepctl rollback " in text


def test_offline_show_is_marked_not_live(environment: Path, sleepctl: Sleepctl) -> None:
    """For a person and for a program."""
    leave_on_disk(environment)
    ran = sleepctl("show", "8", "--state", str(environment))
    assert ran.code == 3
    assert "holdout_gain" in ran.out
    as_json = sleepctl("show", "8", "--state", str(environment), "--json").json
    assert (as_json["is_live"], as_json["trained_ids"]) == (False, ["a", "b"])
    assert msgspec.convert(as_json["verdict"], Verdict) == scenes.VERDICT


def test_offline_report_survives_unreadable_buffer(environment: Path, sleepctl: Sleepctl) -> None:
    """Why there are no texts is said; the buffer may be another user's."""
    leave_on_disk(environment)
    (environment / "buffer.jsonl").unlink()
    text = " ".join(sleepctl("report", "--state", str(environment)).out.split())
    assert "buffer.jsonl: No such file" in text
    assert "holdout fell by 0.41" in text
    assert "no longer in the buffer:" not in text


def test_offline_report_skips_huge_buffer(environment: Path, sleepctl: Sleepctl) -> None:
    """A sparse terabyte is left alone, behind a link too; what is known of the cycle is shown."""
    leave_on_disk(environment)
    (environment / "buffer.jsonl").rename(environment / "large")
    os.truncate(environment / "large", 2**40)
    (environment / "buffer.jsonl").symlink_to("large")
    text = " ".join(sleepctl("report", "--state", str(environment)).out.split())
    assert "larger than 64 MiB" in text
    assert "holdout fell by 0.41" in text


@pytest.mark.parametrize("damage", ["{", '{"verdict": 3}'], ids=["torn", "other"])
def test_offline_damaged_file_counts_as_absent(environment: Path, sleepctl: Sleepctl, damage: str) -> None:
    """What the history says of the cycle is still shown, without a traceback."""
    leave_on_disk(environment)
    for name in ("lineage.json", "evaluation.json"):
        (environment / "cycle_008" / name).write_text(damage)
    code, out, _ = sleepctl("report", "--state", str(environment))
    assert code == 3
    assert out.startswith("Cycle 8: promoted, in use\n")
    assert "Each figure" not in out


def test_offline_unfinished_cycle_is_shown(environment: Path, sleepctl: Sleepctl) -> None:
    """Its counts come from the history, as its files are still staged; cancelling is the way to be rid of it."""
    leave_on_disk(environment)
    suspended = scenes.cycle(11, "suspended", trained=32, held_out=8, ended_at=None)
    history = {"schema": 1, "written_at": scenes.NOW, "cycles": [suspended]}
    (environment / "history.json").write_bytes(msgspec.json.encode(history))
    text = " ".join(sleepctl("show", "11", "--state", str(environment)).out.split())
    assert re.search("32 to train, .* 8 held out ", text)
    assert "Undo sleepctl cancel" in text


def test_offline_unknown_cycle_ends_with_4(environment: Path, sleepctl: Sleepctl) -> None:
    """The daemon may know more than it wrote; so the hint is to start it."""
    leave_on_disk(environment)
    code, out, err = sleepctl("show", "77", "--state", str(environment))
    assert (code, out) == (4, "")
    assert "nothing about cycle 77" in err
    assert "systemctl start sage-sleepd" in err
