"""The documents: their length, their links, the commands that they name, and what is generated from the code."""

from __future__ import annotations

import io
import json
import re
import shlex
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sleepd.sleepctl.parser.arguments import build_parser
from tests.agents import changed, config_for, experiences, write_buffer
from tests.documents import GENERATED, JSON_KEYS, as_generated
from tests.fakes import fake_interpreter
from tests.processes import DaemonProcess
from tests.sleepctl import sleepctl_scenes as scenes

ROOT = Path(__file__).parents[1]
MOST_README_LINES = 150
MOST_TRANSCRIPT_LINES = 20
DOCUMENTS = sorted(
    str(path.relative_to(ROOT))
    for folder in (".", "config", "systemd", "sleepd", "tests")
    for path in (ROOT.glob("*.md") if folder == "." else (ROOT / folder).rglob("*.md"))
)
FOLDERS = ("config", "systemd", "sleepd", "sleepd/sleepctl", "tests", "tests/bench", "tests/faults")
PLACEHOLDERS = {"CYCLE": "7", "NAME": "accuracy", "VALUE": "0.8", "COMMAND": "status"}
"""Words that stand for something in the commands of a document, and what a grammar takes for them."""
COMPLETED_BY = ((), ("7",), ("7", "--to", "DIR"), ("bash",), ("7", "accuracy", "0.8"), ("add", "7", "accuracy", "0.8"))
"""What a command may need that a document names by its first words alone."""
TOOLS = ("pytest", "ruff", "mypy")
ASKED = (
    "status",
    "check",
    "why",
    "when",
    "decisions",
    "history",
    "history --strategies",
    "report",
    "show 1",
    "buffer",
    "quarantine",
    "version",
    "pause",
    "resume",
    "tag 1",
    "prune --dry-run",
    "reload",
    "rollback",
)
"""Commands whose JSON is looked at; after the last one another champion is in use."""


def text_of(document: str) -> str:
    return (ROOT / document).read_text(encoding="utf-8")


def blocks(document: str) -> list[str]:
    """The blocks of code, without their language."""
    return re.findall(r"(?ms)^```\w*\n(.*?)^```$", text_of(document))


def commands(document: str) -> Iterator[list[str]]:
    """Every command in a block of code or between backticks, as words; its comment is left out."""
    text = text_of(document)
    inline = re.findall(r"(?<!`)`([^`\n]+)`(?!`)", re.sub(r"(?ms)^```.*?^```$", "", text).replace("\\|", "|"))
    lines = [line.removeprefix("$ ") for block in blocks(document) for line in block.splitlines()]
    for line in (*inline, *lines):
        if re.match(r"(sudo (-E )?)?(\./install\.sh|sleepctl|python|pytest|\.sleepd-test/env/bin/python)(\s|$)", line):
            words = shlex.split(line, comments=True)
            yield words[1 + (words[1] == "-E") :] if words[0] == "sudo" else words


EVERY = [(document, words) for document in DOCUMENTS for words in commands(document)]


def named(*programs: str) -> list[list[str]]:
    """The different commands of these programs, over all documents."""
    found = {tuple(words): None for _, words in EVERY if words[0] in programs}
    return [list(words) for words in found]


# --- shape ---


def test_readme_is_short() -> None:
    """The README has at most 150 lines, and none of its transcripts more than 20."""
    assert len(text_of("README.md").splitlines()) <= MOST_README_LINES
    assert max(len(block.splitlines()) for block in blocks("README.md")) <= MOST_TRANSCRIPT_LINES


@pytest.mark.parametrize("folder", FOLDERS)
def test_folder_has_a_readme(folder: str) -> None:
    """Each folder has a README, and the README at the root leads to it."""
    assert f"{folder}/README.md" in DOCUMENTS
    assert f"({folder}/README.md)" in text_of("README.md")


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_resolve(document: str) -> None:
    """Every relative link of a document leads to a file or a folder of the repository."""
    targets = re.findall(r"\]\(([^)\s]+)\)", text_of(document))
    relative = [target.partition("#")[0] for target in targets if "://" not in target]
    missing = [target for target in relative if not ((ROOT / document).parent / target).exists()]
    assert missing == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_named_files_exist(document: str) -> None:
    """A file of the repository that a document names with its path from the root is there."""
    found = re.findall(r"`((?:tests|config|sleepd|systemd)/[\w./-]+\.(?:py|sh|toml|jsonl|txt))`", text_of(document))
    assert [path for path in found if not (ROOT / path).exists()] == []


def test_changelog_keeps_its_form() -> None:
    """The changelog has the headings of Keep a Changelog, in its order, and nothing else."""
    kinds = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"]
    versions = re.findall(r"(?m)^## (.*)$", text_of("CHANGELOG.md"))
    assert versions[0] == "[Unreleased]"
    assert all(re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", version) for version in versions[1:])
    for part in text_of("CHANGELOG.md").split("\n## ")[1:]:
        headings = re.findall(r"(?m)^### (.*)$", part)
        assert headings == [kind for kind in kinds if kind in headings]


# --- what the code says ---


@pytest.mark.parametrize("document", GENERATED)
def test_generated_parts_are_current(document: str) -> None:
    """The generated parts equal what the code says (to write them anew: python -m tests.documents)."""
    assert text_of(document) == as_generated(document)
    for part in GENERATED[document]:
        assert text_of(document).count(f"<!-- generated: {part} -->\n") == 1


def test_status_example_is_what_status_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every line of the README's status page is a line of the page that sleepctl draws of such a state, in order."""
    from sleepd.sleepctl.pages.status_page import status_page
    from sleepd.sleepctl.pages.terminal import render

    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    page = render(status_page(scenes.REFUSED, now=scenes.NOW, is_live=True), width=80, is_coloured=False)
    monkeypatch.undo()
    time.tzset()
    drawn = iter(page.splitlines())
    (example,) = [block for block in blocks("README.md") if block.startswith("●")]
    assert [line for line in example.splitlines() if line not in drawn] == []


def test_demo_transcript_has_current_words() -> None:
    """The README's transcript says what the demo says now: the question's marks, the cycle's start, the two counts."""
    from sleepd.demo.one_cycle import _fact_text
    from sleepd.demo.sample import load
    from sleepd.demo.screen import Screen, score

    (transcript,) = [block for block in blocks("README.md") if block.startswith("The agent: ")]
    questions = load().questions
    right = [question.expected or "as before" for question in questions]
    wrong = [""] * len(questions)
    out = io.StringIO()
    Screen(out).compare(questions, wrong, right, "after")
    marks = set(re.findall(r"(?m)^\[.*?\]", out.getvalue()))
    assert set(re.findall(r"(?m)^\[\w+\]$", transcript)) == marks
    counts = [
        re.sub(r"after \d|as before: \d", lambda found: found[0][:-1] + "#", line)
        for line in score(questions, wrong, right)
    ]
    shown = [
        re.sub(r"after \d|as before: \d", lambda found: found[0][:-1] + "#", line) for line in transcript.splitlines()
    ]
    assert [line for line in counts if line not in shown] == []
    assert _fact_text("cycle_started", {"cycle": 1, "trained": 13, "held_out": 3}) in transcript


def test_documented_json_keys_are_printed(tmp_path: Path) -> None:
    """What a command prints with --json has exactly the keys that the documents list."""
    config = changed(config_for(tmp_path), "worker", python=str(fake_interpreter(tmp_path / "python", "succeed")))
    write_buffer(tmp_path / "buffer.json", experiences(12))
    with DaemonProcess(tmp_path, config) as daemon:
        daemon.await_event("candidate_promoted")
        for line in ASKED:
            done = daemon.sleepctl(*line.split(), "--json")
            assert done.returncode == 0, (line, done.stderr)
            assert set(json.loads(done.stdout)) == set(keys_of(line if line in JSON_KEYS else line.split()[0])), line


def keys_of(command: str) -> tuple[str, ...]:
    """The documented keys of a command."""
    (keys,) = [keys for names, keys in JSON_KEYS.items() if command in names.split(", ")]
    return keys


# --- commands ---


@pytest.mark.parametrize("words", named("sleepctl"), ids=shlex.join)
def test_sleepctl_commands_parse(words: list[str]) -> None:
    """Every command of sleepctl that a document names is one that its grammar takes, once it is complete."""
    given = [PLACEHOLDERS.get(word, word) for word in words[1:] if word != "--help"] or ["status"]
    assert any(_is_taken([*given, *rest]) for rest in COMPLETED_BY)


def _is_taken(arguments: list[str]) -> bool:
    try:
        build_parser().parse_args(arguments)
    except SystemExit:
        return False
    return True


@pytest.mark.parametrize("words", named("./install.sh"), ids=shlex.join)
def test_install_commands_are_understood(words: list[str]) -> None:
    """The installer takes each of its commands that a document names; it may refuse this machine, not the command."""
    done = subprocess.run([*words, "--dry-run"], cwd=ROOT, capture_output=True, text=True)
    assert not re.search("does not belong to|expected try", done.stderr)
    assert done.returncode == 0 or words[1:2] not in (["try"], ["test"]), done.stderr


@pytest.mark.parametrize("words", named("pytest"), ids=shlex.join)
def test_named_tests_exist(words: list[str]) -> None:
    """A file of tests that a document tells to run is there."""
    assert [word for word in words[1:] if not (ROOT / word).exists()] == []


@pytest.mark.parametrize("words", named("python", ".sleepd-test/env/bin/python"), ids=shlex.join)
def test_python_commands_know_their_options(words: list[str]) -> None:
    """A script or module that a document names is there, and it has every option that the document gives it."""
    _, program, *rest = words
    path = ROOT / (rest[0].replace(".", "/") if program == "-m" else program)
    if program == "-m" and rest[0] in TOOLS:
        return
    (source,) = {each for each in (path, path.with_suffix(".py"), path / "__main__.py") if each.is_file()}
    options = re.findall(r"--[a-z-]+", " ".join(rest))
    assert [option for option in options if f'"{option}"' not in source.read_text(encoding="utf-8")] == []
