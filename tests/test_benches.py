"""Each command of ``tests/bench`` and ``tests/faults``, in a short form: a bench that breaks is noticed.

Training runs on a tiny random model instead of the real one. The figures mean nothing here. What is tested is that the
command ends well and prints the figures that its document shows.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from tests.agents import experiences
from tests.bench.identification_rates import Answered, key_of
from tests.fingerprints import answers_of, base_model, fingerprint_of, moved

ROOT = Path(__file__).parents[1]
HANGS_SECONDS = 1200
"""A command that takes longer hangs, however busy the machine is."""
OF_THE_TESTS = ("PYTHONSAFEPATH", "COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG")
"""Whoever runs a command has none of these; measuring coverage takes memory of the daemon's."""
QUICK = ("--set", "epochs=1", "--set", "most_repeats=1", "--set", "min_steps=0", "--set", "kl_prompts=8")
pytestmark = [
    pytest.mark.model,
    pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs torch"),
]
needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")

FAULTS = [
    pytest.param("crash_sweep.py --only daemon --sample 1", "killed at 1, failures 0", marks=needs_strace),
    pytest.param("disk_cuts.py --every 300", "states of the disk, 0 with a fault", marks=needs_strace),
    pytest.param("disk_faults.py --every 200", "^failures 0,", marks=needs_strace),
    ("damaged_checkpoints.py --flips 3", "^0 accepted"),
    ("rewriting_writer.py --minutes 0.03", " 0 false alarms"),
    ("fuzz.py --inputs 200", r"^together +\d+ +\d+ +\d+ +0 "),
    ("soak.py --cycles 4 --every 2", "^PASS"),
    ("huge_buffers.py --megabytes 4 --no-sparse", "^one line of 2 MB .* 1 skipped$"),
    ("ten_years.py 30", "^30 cycles in .* state.db"),
    ("library_versions.py installed", "^installed .*"),
]
"""Short forms of the commands of ``tests/faults``, and what their output must hold."""


def run(script: str, *arguments: object, ends: tuple[int, ...] = (0,)) -> str:
    """The output of a script of the tests, which must end with one of these exit codes."""
    done = subprocess.run(
        [sys.executable, f"tests/{script}", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=HANGS_SECONDS,
        env={**{name: value for name, value in os.environ.items() if name not in OF_THE_TESTS}, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode in ends, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def buffer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A buffer of a hundred experiences whose replies are as long as the benches want them."""
    path = tmp_path_factory.mktemp("bench") / "buffer.json"
    more = "The keeper wrote it down, and the boy from the pier read it aloud twice."
    path.write_text(json.dumps([one | {"response": f"{one['response']} {more}"} for one in experiences(100)]))
    return path


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keeps the base's answers between the benches of one module."""
    return tmp_path_factory.mktemp("models")


def few(buffer: Path, directory: Path, count: int) -> Path:
    """A buffer of the first experiences of another one."""
    path = directory / "few.json"
    path.write_text(json.dumps(json.loads(buffer.read_text())[:count]))
    return path


def test_training_speed_is_measured(buffer: Path, models: Path, tiny_model: Path) -> None:
    """The bench of the training speed gives a ratio for the worker, without and with the KL term."""
    said = run(
        "bench/bench_training_speed.py",
        buffer,
        *("--base", tiny_model, "--models", models, "--experiences", 4, "--repeats", 1, "--threads", 1),
    )
    assert re.search(r"(?m)^worker: \d+ .*, [\d.]+ x", said)
    assert re.search(r"(?m)^worker with KL: \d+ ", said)


def test_replies_are_compared_with_generate(models: Path, tiny_model: Path) -> None:
    """The bench of the replies counts those that are the same, and gives ratios and both peaks of memory."""
    given = ("--base", tiny_model, "--models", models, "--rows", 2, "--tokens", 6, "--repeats", 1, "--threads", 1)
    said = run("bench/bench_generate.py", *given)
    assert said.count("; 2 of 2 replies the same, ") == 4
    assert re.search(r"(?m)^peak .*, 64 rows: worker [\d.]+ ", said)


def test_strategies_are_compared(buffer: Path, models: Path, tiny_model: Path, tmp_path: Path) -> None:
    """A buffer is replayed into a file; sleepbench makes a table of it, and judgebench judges the gain alone. Steps and
    tokens are counted without training: with a replay budget a late night trains less.
    """
    out = tmp_path / "cycles.jsonl"
    given = ("--base", tiny_model, "--models", models, *QUICK)
    run("bench/sleepbench.py", "replay", buffer, "--nights", 1, "--out", out, *given)
    assert "| consolidate " in run("bench/sleepbench.py", "--table", out)
    assert "good" in run("bench/judgebench.py", "gains", out, "--trials", 2)
    counting = ("bench/sleepbench.py", "replay", buffer, buffer, "--count", "--nights", 3, *given)
    all_, some = (list(map(json.loads, run(*counting, "--replay-tokens", n).splitlines())) for n in (9999, 800))
    assert [each["night"] for each in all_] == [1, 2, 3]
    assert some[0]["tokens"] == all_[0]["tokens"]
    assert some[2]["replayed"] < all_[2]["replayed"]
    assert some[2]["tokens"] < all_[2]["tokens"]


def test_facts_are_recalled(models: Path, tiny_model: Path) -> None:
    """Facts are taught, and those that are recalled are counted; from the second night on the rules of promotion are
    asked, and in the third night all facts of the first are told otherwise.
    """
    given = ("--base", tiny_model, "--models", models, *QUICK, "--facts", 5, "--traps", 4)
    said = run("bench/sleepbench.py", "recall", "--told", 1, "--changed", "--nights", 3, *given)
    first, second, third = map(json.loads, said.splitlines())
    assert (first["asked"], second["asked"], third["asked"]) == (5, 10, 15)
    assert first["trained"] + first["unlearned"] == 5
    assert re.match("(promoted|inconclusive|rejected): ", second["verdict"])
    assert third["trained"] + third["unlearned"] == 15
    assert 0 <= third["outdated"] <= 5
    assert third["said_yes"]["asked"] == 4
    (line,) = run("bench/sleepbench.py", "recall", "--told", 1, "--retrieval", "--nights", 1, *given).splitlines()
    assert json.loads(line)["prompt_tokens"] > json.loads(line)["tokens_without"]


def test_verdicts_are_counted(buffer: Path, tiny_model: Path, tmp_path: Path) -> None:
    """A candidate is measured, and the verdicts on samples of that are counted."""
    cache = tmp_path / "pools.json"
    given = ("--cache", cache, "--work", tmp_path, "--kinds", "base again", "--base", tiny_model, "--threads", 1)
    run("bench/judgebench.py", "make", buffer, *given)
    assert re.search(r"(?m)^base again +30 ", run("bench/judgebench.py", "table", "--cache", cache, "--trials", 2))


def test_single_cycles_are_measured(buffer: Path, models: Path, tiny_model: Path, tmp_path: Path) -> None:
    """The benches of a first cycle and of a dozen facts print losses, checks and drift."""
    given = ("--base", tiny_model, "--models", models, *QUICK)
    for script, before in (("first_cycle", (few(buffer, tmp_path, 20), "--second-share", 0)), ("recall", ())):
        assert "drift on unseen " in run(f"bench/bench_{script}.py", *before, *given)


def test_format_is_shown() -> None:
    """The command shows a format's sample, what was understood of it, and the tokens of one reply."""
    said = run("bench/show_formats.py", "alpaca")
    assert re.search(r"(?m)^earlier reply\n  Yes$", said)
    assert "supervised: 5 tokens\n  Vent⟦<|im_end|>⟧" in said


def test_agents_live_a_day(tmp_path: Path) -> None:
    """A day of an agent with tools and of a chat front end: both are trained from what they write."""
    said = run("bench/agents_week.py", tmp_path / "agents", "--days", 1, "--turns", 8)
    assert len(re.findall(r"(?m)^(?:tool agent|chat front end), day 1: 8 replies, \d+ held out, 1 cycles", said)) == 2


def test_week_is_played(buffer: Path, tiny_model: Path, tmp_path: Path) -> None:
    """A day of the week: a real daemon trains what came, and the history and the report are shown."""
    small = few(buffer, tmp_path, 12)
    said = run("bench/week.py", small, tmp_path / "week", "--days", 1, "--base", tiny_model, "--threads", 1)
    assert "day 1: 12 experiences, 1 " in said
    assert "$ sleepctl report\n" in said


def test_identification_is_rated(tmp_path: Path) -> None:
    """From kept answers of two made-up generations the bench of the fingerprint gives distances and error rates."""
    base = base_model()
    models = {"one-1": moved(base, 1, 1.0), "one-2": moved(moved(base, 1, 1.0), 2, 0.8)}
    known = {
        "one-1": fingerprint_of(base, models["one-1"], cycle=1),
        "one-2": fingerprint_of(base, models["one-2"], models["one-1"], cycle=2, parent_cycle=1),
    }
    for name, fingerprint in known.items():
        file = tmp_path / "adapters" / name / "fingerprint.json"
        file.parent.mkdir(parents=True)
        file.write_bytes(msgspec.json.encode(fingerprint))
    (tmp_path / "answers").mkdir()
    for name, model in {"": base, **models}.items():
        answers = zip(known["one-1"].prompts, answers_of(model, noise=0.1), strict=True)
        said = {key_of(prompt): answer for prompt, answer in answers}
        kept = Answered(base="f16", on={name: 1.0} if name else {}, answers=said)
        (tmp_path / "answers" / f"f16 {name}.json").write_bytes(msgspec.json.encode(kept))
    shown = run("bench/bench_fingerprint.py", "rates", "--out", tmp_path, "--draws", 20)
    assert re.search(r"(?m)^\| f16 \| one-2 \| one-2 \| one-2 0\.\d+, one-1 0\.\d+, base ", shown)
    assert "| its own adapter | 40 | 100.00% | 0.00% |" in shown
    assert shown.count("| MOST_RATIO | ") == 4


def test_daemon_is_measured() -> None:
    """The bench of the daemon gives its memory idle and in a cycle."""
    said = run("bench/bench_daemon.py", "--experiences", 100, "--idle-seconds", 0.1)
    assert re.search(r"(?m)^in a cycle: .* [\d.]+ MiB$", said)


def test_pages_are_timed() -> None:
    """The bench of the page gives the time and the size of each page."""
    said = run("bench/bench_page.py", "--cycles", 3)
    assert len(re.findall(r"(?m)^/\S* +\d+ ms +\d+ ms processor +[\d.]+ kB$", said)) == 10


def test_buffers_are_read() -> None:
    """The bench of the buffer gives the time and the memory of reading it."""
    assert "lines " in run("bench/bench_buffer.py", "--experiences", 100, "--repeats", 1, "--append", 1)


def test_many_files_are_measured() -> None:
    """The bench of scale gives the memory and the times for session files and for one file of many turns."""
    said = run("bench/bench_scale.py", "--files", 3, "--megabytes", 1, "--turns", 100)
    assert len(re.findall(r"(?m)^(?:sessions|one file): .* to decision \d+ ms", said)) == 2


def test_turn_beside_screened_is_measured() -> None:
    """It gives the same beside turns that stand in the ledger as screened, of which none is screened again."""
    said = run("bench/bench_scale.py", "--files", 0, "--turns", 200, "--as-screened")
    assert len(re.findall(r"(?m)^one file: .* to decision \d+ ms", said)) == 1


def test_quarantine_is_counted(buffer: Path) -> None:
    """The bench of the quarantine counts what is found in both corpora and in a buffer."""
    assert "found, false alarms on" in run("bench/bench_quarantine.py", buffer)


def test_fleet_is_simulated() -> None:
    """The simulated fleet gives a line for each size, with times, bytes and the share that ran a bad adapter."""
    said = run("bench/fleet.py", "--days", 4, "--most-boxes", 10)
    assert len(re.findall(r"(?m)^\| [\d,]+ \| 1 \| (?:[\d.]+|never) \| .* \| \d+% \| \d+% \|$", said)) == 2


@pytest.mark.parametrize(("command", "shown"), FAULTS)
def test_faults_are_survived(command: str, shown: str) -> None:
    """A command of tests/faults ends well in its short form, and says so."""
    script, *arguments = command.split()
    assert re.search(f"(?m){shown}", run(f"faults/{script}", *arguments))


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        ("hostile_clients.py --seconds 0.3", "refused +slowest"),
        (
            "mutants.py sleepd/cycles/longest_waiting.py --most 1 --tests tests/test_longest_waiting.py",
            r"1 of \d+ mutants tried",
        ),
    ],
)
def test_table_is_printed(command: str, shown: str) -> None:
    """A command whose judgement depends on the machine, or on which mutants are drawn, prints its table."""
    script, *arguments = command.split()
    assert re.search(shown, run(f"faults/{script}", *arguments, ends=(0, 1)))


def test_older_state_is_opened() -> None:
    """A state directory of this very version is opened and continued; that it is not older is all that is reported."""
    said = run("faults/older_state.py", ROOT, ends=(1,))
    assert [line.split()[0] for line in said.splitlines()] == ["the", "of"], said
    assert said.startswith("the older manifest knows")


@pytest.mark.parametrize(
    "script", ["bench/make_base_answers", "bench/bench_swap", "bench/thor_and_sprout", "faults/worst_texts"]
)
def test_long_command_explains_itself(script: str) -> None:
    """What takes minutes, wants a llama-server or rclone, or is a test of its own, says with --help what it does."""
    assert "usage: " in run(f"{script}.py", "--help")


def test_every_command_is_tested() -> None:
    """No script of tests/bench or tests/faults with a command of its own is left out here."""
    scripts = [path for folder in ("bench", "faults") for path in (ROOT / "tests" / folder).glob("*.py")]
    others = (ROOT / "tests" / "worker").glob("test_*_bench.py")
    told = "".join(path.read_text() for path in (Path(__file__), *others))
    with_command = [path.stem for path in scripts if 'if __name__ == "__main__":' in path.read_text()]
    assert [name for name in with_command if name.removeprefix("bench_") not in told] == []
