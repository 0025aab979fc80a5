"""Tests of ``sleepctl import``: what is copied, what is named, and what is not written to."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from sleepd.buffer.digest import digest_whole
from tests.format_samples import SAMPLES
from tests.sleepctl.sleepctl_ran import Ran

Sleepctl = Callable[..., Ran]

OWN = (
    '{"id":"x","prompt":"a","response":"b","salience":0.3}\n{"id":"x","prompt":"a","response":"b","salience":0.9}\n'
    '{"id":"x","prompt":"c","response":"d"}\n{"id":"y","prompt":"e","response":"f"}\n{"prompt":5}\n{"torn'
)


@pytest.fixture
def export(tmp_path: Path) -> Path:
    """A file with a repeated id, a bad record and a torn line."""
    path = tmp_path / "export.jsonl"
    path.write_text(OWN)
    return path


def test_import_says_what_the_daemon_says(sleepctl: Sleepctl, export: Path) -> None:
    """A repeated experience is one line with its last salience; what is left out is named with its place."""
    code, out, err = sleepctl("import", str(export))
    found = [json.loads(line) for line in out.splitlines()]
    assert (code, [(each["id"], each.get("salience")) for each in found]) == (0, [("x", 0.9), ("y", None)])
    assert [line.split(": ")[2] for line in err.splitlines()] == ["line 3", "line 5", "line 6"]


def test_import_counts_equal_reasons(sleepctl: Sleepctl, tmp_path: Path) -> None:
    """A reason stands there once with its first place and its number; of more than five reasons the rest is counted."""
    path = tmp_path / "export.jsonl"
    bad = ["null"] * 3 + [*map(str, range(5))]
    path.write_text("\n".join([json.dumps(SAMPLES["alpaca"][0]), *(f'{{"prompt":{each}}}' for each in bad)]))
    err = sleepctl("import", str(path)).err.splitlines()
    assert (": line 2: prompt: " in err[0], err[0].endswith("(3 times)")) == (True, True)
    assert (len(err), re.findall("[0-9]+", err[-1])) == (6, ["1", "8"])


def test_imported_lines_are_appended(sleepctl: Sleepctl, export: Path, tmp_path: Path) -> None:
    """What stands in the output stays, a torn line of it is ended, and the group may read a new one."""
    output = tmp_path / "own.jsonl"
    for _ in range(2):
        assert sleepctl("import", str(export), "--output", str(output)).code == 0
    assert len(digest_whole(output.read_bytes()).keys) == 2
    assert len(output.read_text().splitlines()) == 4
    assert output.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize(
    ("place", "code", "said"),
    [
        (".", 1, "Is a directory"),
        ("none/own.jsonl", 1, "No such file or directory"),
        ("array.json", 1, "expected JSON lines"),
        ("export.jsonl", 2, "expected another file than those that are read"),
        ("/dev/full", 1, "expected a regular file"),
    ],
)
def test_import_writes_nothing_elsewhere(sleepctl: Sleepctl, export: Path, place: str, code: int, said: str) -> None:
    """An output that cannot take lines, or is one of the inputs, is refused with a step, and stays as it was."""
    (export.parent / "array.json").write_text("[1]")
    ran = sleepctl("import", str(export), "--output", str(export.parent / place))
    assert (ran.code, ran.out) == (code, "")
    assert said in ran.err
    assert "--output FILE" in ran.err
    assert (export.read_text(), (export.parent / "array.json").read_text()) == (OWN, "[1]")


def test_import_names_what_is_no_file(sleepctl: Sleepctl, tmp_path: Path) -> None:
    """A missing file and a link that leads to itself are named with the system's words."""
    (tmp_path / "loop").symlink_to("loop")
    assert "none: No such file or directory\nhint: name the file" in sleepctl("import", str(tmp_path / "none")).err
    assert "loop: Too many levels" in sleepctl("import", str(tmp_path / "loop")).err
