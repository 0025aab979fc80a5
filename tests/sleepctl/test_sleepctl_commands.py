"""Every command: what it asks, what it shows, what it returns."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sleepd import errors
from sleepd.config.schema import Config
from sleepd.protocol import control
from sleepd.protocol.status import DecisionRecord, RunResult
from sleepd.sleepctl.exit_codes import MEANINGS, ExitCode
from sleepd.sleepctl.parser.command_texts import GROUPS
from sleepd.version import VERSION
from tests.sleepctl import sleepctl_scenes as scenes
from tests.sleepctl.sleepctl_fake_daemon import FakeDaemon
from tests.sleepctl.sleepctl_ran import Ran

Sleepctl = Callable[..., Ran]

DUE = scenes.decision()
NOT_DUE = scenes.decision(found=(3, 3, None))
STARTED = RunResult(is_started=True, reason="Ready", cycle=9, undo="sleepctl cancel")

STATUS_KEYS = [
    "adopted_strategy",
    "alarms",
    "base",
    "buffer",
    "champion",
    "config_path",
    "decision",
    "endings",
    "free_bytes",
    "is_live",
    "last_error",
    "last_sleep_at",
    "missing",
    "next_check_at",
    "pid",
    "progress",
    "recent_cycles",
    "running_cycle",
    "schema",
    "sentence",
    "serving",
    "since",
    "state",
    "state_directory",
    "total_cycles",
    "version",
    "written_at",
]
"""What programs read from ``status --json``. Taking one away, or changing its meaning, raises ``schema``."""


def write_offline(directory: Path, name: str, content: Any) -> None:
    """What the daemon leaves in its state directory."""
    (directory / name).write_bytes(msgspec.json.encode(content))


# --- status and history, live and from disk ---


def test_status_of_running_daemon_is_shown(daemon: FakeDaemon, sleepctl: Sleepctl) -> None:
    """The screen goes to stdout, and nothing to stderr."""
    daemon.replies[control.GetStatus] = scenes.MORNING
    code, out, err = sleepctl("status")
    assert (code, err) == (0, "")
    assert out.startswith("● sage-sleepd is idle, since ")


def test_json_keys_of_status_are_frozen(daemon: FakeDaemon, sleepctl: Sleepctl) -> None:
    """Programs depend on these keys; a change must be seen here first."""
    daemon.replies[control.GetStatus] = scenes.TRAINING
    data = sleepctl("status", "--json").json
    assert sorted(data) == STATUS_KEYS
    assert data["schema"] == 1
    assert data["is_live"] is True
    assert data["progress"]["step"] == 11


def test_offline_status_shows_last_file(environment: Path, sleepctl: Sleepctl) -> None:
    """The state is shown, its age is said on stderr with the start command, and a script can tell by the code."""
    write_offline(environment, "status.json", scenes.MORNING)
    code, out, err = sleepctl("status", "--state", str(environment))
    assert code == 3
    assert "cycle 8, promoted" in out
    assert err.startswith("the daemon is not running; ")
    assert "systemctl start sage-sleepd" in err


def test_offline_status_keeps_json_keys(environment: Path, sleepctl: Sleepctl) -> None:
    """A program reads the last state and sees that it is not the present one."""
    write_offline(environment, "status.json", scenes.MORNING)
    ran = sleepctl("status", "--state", str(environment), "--json")
    assert ran.code == 3
    assert sorted(ran.json) == STATUS_KEYS
    assert ran.json["is_live"] is False


def test_offline_history_shows_last_file(environment: Path, sleepctl: Sleepctl) -> None:
    """The cycles come from history.json."""
    written = {"schema": 1, "written_at": scenes.NOW, "cycles": [scenes.REJECTED, scenes.PROMOTED]}
    write_offline(environment, "history.json", written)
    ran = sleepctl("history", "--state", str(environment), "--json")
    assert ran.code == 3
    assert [cycle["cycle"] for cycle in ran.json["cycles"]] == [9, 8]
    assert (ran.json["schema"], ran.json["is_live"]) == (1, False)
    assert "this is what it last wrote" in ran.err


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "cannot be read"), (b"{", "not understood"), (b'{"schema": 2}', "has schema 2, this sleepctl reads 1")],
    ids=["absent", "damaged", "newer"],
)
@pytest.mark.parametrize("command", ["status", "history"])
def test_unusable_offline_file_is_explained(
    environment: Path, sleepctl: Sleepctl, command: str, content: bytes | None, said: str
) -> None:
    """Nothing is shown, both the daemon and the file are named, and the code is still 3."""
    if content is not None:
        (environment / f"{command}.json").write_bytes(content)
    code, out, err = sleepctl(command, "--state", str(environment))
    assert (code, out) == (3, "")
    assert "the daemon is not running" in err
    assert said in err


def test_state_directory_comes_from_configuration(environment: Path, sleepctl: Sleepctl) -> None:
    """Without --state the directory that the daemon is configured with is read."""
    write_offline(environment, "status.json", scenes.MORNING)
    (environment / "config.toml").write_text(f'[state]\ndirectory = "{environment}"\n')
    code, out, _ = sleepctl("status", "--config", str(environment / "config.toml"))
    assert code == 3
    assert "cycle 8, promoted" in out


def test_history_asks_for_limit(daemon: FakeDaemon, sleepctl: Sleepctl) -> None:
    """The limit goes with the request, and holds even when the daemon sends more."""
    daemon.replies[control.History] = {"schema": 1, "cycles": [scenes.REJECTED, scenes.PROMOTED]}
    ran = sleepctl("history", "--limit", "1", "--json")
    assert ran.code == 0
    assert [cycle["cycle"] for cycle in ran.json["cycles"]] == [9]
    assert daemon.requests == [control.History(limit=1)]


def test_history_without_a_cycle_says_so(daemon: FakeDaemon, sleepctl: Sleepctl) -> None:
    """An empty table would leave the owner guessing."""
    daemon.replies[control.History] = {"schema": 1, "cycles": []}
    assert sleepctl("history") == Ran(0, "no cycle yet\n", "")


# --- check ---


@pytest.mark.parametrize(("decision", "answer"), [(DUE, "True"), (NOT_DUE, "False")], ids=["due", "not due"])
def test_check_begins_with_two_script_lines(daemon: FakeDaemon, sleepctl: Sleepctl, decision: Any, answer: str) -> None:
    """Should run, Reason, then every condition; plain check returns 0 either way."""
    daemon.replies[control.Check] = decision
    code, out, err = sleepctl("check")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[:2] == [f"Should run: {answer}", f"Reason: {decision.reason}"]
    assert all(any(condition.name in line for line in lines[2:]) for condition in decision.conditions)
    assert daemon.requests == [control.Check()]


def test_check_apply_starts_due_cycle(daemon: FakeDaemon, sleepctl: Sleepctl) -> None:
    """The decision and the start are both shown, and the undo on stderr."""
    daemon.replies.update({control.Check: DUE, control.Run: STARTED})
    code, out, err = sleepctl("check", "--apply")
    assert code == 0
    assert out.startswith("Should run: True\n")
    assert "cycle 9 started\n" in out
    assert err == "undo: sleepctl cancel\n"
    assert daemon.requests == [control.Check(), control.Run()]


def test_check_apply_returns_5_unless_due(daemon: FakeDaemon, sleepctl: Sleepctl) -> None:
    """The timer unit takes 5 for success; no run is asked for."""
    daemon.replies[control.Check] = NOT_DUE
    code, out, err = sleepctl("check", "--apply")
    assert code == 5
    assert out.startswith("Should run: False\n")
    assert err == "nothing to do\n"
    assert daemon.requests == [control.Check()]


# --- run ---


def test_run_sends_every_option(daemon: FakeDaemon, sleepctl: Sleepctl) -> None:
    """No option is dropped on the way."""
    daemon.replies[control.Run] = STARTED
    arguments = "run --force --epochs 2 --learning-rate 1e-4 --max-experiences 7 --strategy gentle"
    code, out, err = sleepctl(*arguments.split(" "))
    assert (code, out) == (0, "cycle 9 started\n")
    assert "undo: sleepctl cancel\n" in err
    sent = control.Run(force=True, epochs=2, learning_rate=1e-4, max_experiences=7, strategy="gentle")
    assert daemon.requests == [sent]


def test_run_returns_5_unless_due(daemon: FakeDaemon, sleepctl: Sleepctl) -> None:
    """A run that was not started is no success."""
    daemon.replies[control.Run] = RunResult(is_started=False, reason="3 < 5")
    code, out, err = sleepctl("run")
    assert (code, out) == (5, "")
    assert "nothing to do: 3 < 5\n" in err


# --- what changes something, and its undo ---


@pytest.mark.parametrize(
    ("arguments", "request_sent", "reply", "said"),
    [
        (["cancel"], control.Cancel(), {"cycle": 9}, "cycle 9 cancelled; what it learned is discarded"),
        (["pause"], control.Pause(), {"is_paused": True}, "paused: no new cycle starts; a running cycle continues"),
        (["resume"], control.Resume(), {"is_paused": False}, "resumed: a cycle starts when due"),
        (
            ["rollback"],
            control.Rollback(),
            {"champion": 7, "was": 8, "quarantined": 0},
            "cycle 7 is in use; before: cycle 8",
        ),
        (
            ["rollback", "5"],
            control.Rollback(cycle=5),
            {"champion": 5, "was": 8, "quarantined": 0},
            "cycle 5 is in use; before: cycle 8",
        ),
        (
            ["rollback", "0"],
            control.Rollback(cycle=0),
            {"champion": None, "was": 8, "quarantined": 0},
            "the base model is in use; before: cycle 8",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_change_shows_its_undo(
    daemon: FakeDaemon,
    sleepctl: Sleepctl,
    arguments: list[str],
    request_sent: control.Request,
    reply: dict[str, Any],
    said: str,
) -> None:
    """What was done on stdout, the command that takes it back on stderr, and both in JSON."""
    daemon.replies[type(request_sent)] = {**reply, "undo": "sleepctl something"}
    assert sleepctl(*arguments) == Ran(0, f"{said}\n", "undo: sleepctl something\n")
    as_json = sleepctl(*arguments, "--json").json
    assert {**reply, "undo": "sleepctl something", "schema": 1}.items() <= as_json.items()
    assert daemon.requests == [request_sent, request_sent]


# --- what is looked at ---


def test_show_prints_requested_cycle(daemon: FakeDaemon, sleepctl: Sleepctl) -> None:
    """The number goes with the request; the verdict's reason is shown."""
    daemon.replies[control.Show] = scenes.DETAIL
    code, out, _ = sleepctl("show", "8")
    assert code == 0
    assert out.startswith("cycle 8 promoted, in use; ")
    assert daemon.requests == [control.Show(cycle=8)]


def test_why_shows_decision_with_figures(daemon: FakeDaemon, sleepctl: Sleepctl) -> None:
    """Each change is listed with what was known then; what was not known is a dash."""
    change = DecisionRecord(
        at=scenes.NOW, decision=NOT_DUE, facts={"total": 3, "hours_since_last_sleep": None, "problem": ""}
    )
    daemon.replies[control.Why] = {"schema": 1, "current": DUE, "changes": [change]}
    code, out, _ = sleepctl("why", "--limit", "3")
    assert code == 0
    assert out.startswith("Should run: True\n")
    assert [figure in out for figure in ("total 3,", "hours_since_last_sleep –,", "problem –")] == [True] * 3
    assert daemon.requests == [control.Why(limit=3)]


def test_buffer_shows_counts_and_skipped(daemon: FakeDaemon, sleepctl: Sleepctl) -> None:
    """Every count of the buffer and each record that is not used."""
    daemon.replies[control.Buffer] = scenes.BUFFER_DETAIL
    code, out, _ = sleepctl("buffer")
    assert code == 0
    assert "      3  new: " in out
    assert "  record 9: no response\n" in out


def test_version_names_both_ends(daemon: FakeDaemon, sleepctl: Sleepctl) -> None:
    """The client's and the daemon's version stand below each other."""
    daemon.replies[control.GetVersion] = {"version": "9.9.9", "v": 1}
    code, out, err = sleepctl("version")
    assert (code, err) == (0, "")
    assert [line.split()[:2] for line in out.splitlines()] == [["sleepctl", VERSION], ["sleepd", "9.9.9"]]


def test_offline_version_names_this_program(sleepctl: Sleepctl) -> None:
    """The own version needs no daemon; that the other is missing is said."""
    code, out, err = sleepctl("version")
    assert (code, out) == (3, f"sleepctl {VERSION} (protocol 1)\n")
    assert "the daemon is not running" in err


# --- --json everywhere ---


@pytest.mark.parametrize(
    ("arguments", "kind", "reply"),
    [
        ("status", control.GetStatus, scenes.ATTACKED),
        ("check", control.Check, DUE),
        ("why", control.Why, {"schema": 1, "current": DUE, "changes": []}),
        ("history", control.History, {"schema": 1, "cycles": [scenes.PROMOTED]}),
        ("show 8", control.Show, scenes.DETAIL),
        ("buffer", control.Buffer, scenes.BUFFER_DETAIL),
        ("version", control.GetVersion, {"version": "1", "v": 1}),
        ("run", control.Run, STARTED),
        ("cancel", control.Cancel, {"cycle": 9, "undo": ""}),
        ("pause", control.Pause, {"is_paused": True, "undo": ""}),
        ("resume", control.Resume, {"is_paused": False, "undo": ""}),
        ("rollback", control.Rollback, {"champion": None, "was": 8, "undo": ""}),
        ("config show", None, None),
    ],
)
def test_json_is_one_ascii_document(
    daemon: FakeDaemon, sleepctl: Sleepctl, arguments: str, kind: type[control.Request] | None, reply: Any
) -> None:
    """Every command's answer in JSON carries the number, and nothing that a terminal would act on."""
    if kind is not None:
        daemon.replies[kind] = reply
    ran = sleepctl(*arguments.split(), "--json")
    assert ran.code == 0
    assert ran.json["schema"] == 1
    assert set(ran.out) <= {chr(code) for code in range(0x20, 0x7F)} | {"\n"}


def test_json_error_goes_to_stdout(daemon: FakeDaemon, sleepctl: Sleepctl) -> None:
    """A program finds kind, message, hint and code; a person reads the same."""
    daemon.replies[control.Cancel] = errors.NothingToDo("no cycle is under way", hint="sleepctl status")
    ran = sleepctl("cancel", "--json")
    told = {"kind": "NothingToDo", "message": "no cycle is under way", "hint": "sleepctl status", "exit_code": 5}
    assert ran.json == {"schema": 1, "error": told}
    assert ran.err == f"sleepctl: {told['message']}\nhint: {told['hint']}\n"
    assert ran.code == 5


# --- exit codes ---


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.RequestFailed, ExitCode.FAILED),
        (errors.VersionMismatch, ExitCode.FAILED),
        (errors.UsageError, ExitCode.USAGE),
        (errors.NotFound, ExitCode.NOT_FOUND),
        (errors.NothingToDo, ExitCode.NOTHING_TO_DO),
        (errors.Busy, ExitCode.BUSY),
        (errors.StateLocked, ExitCode.BUSY),
        (errors.PermissionDenied, ExitCode.PERMISSION),
        (errors.ConfigError, ExitCode.CONFIG),
    ],
)
@pytest.mark.parametrize("command", ["run", "check --apply", "rollback", "show 3"])
def test_daemon_error_becomes_exit_code(
    daemon: FakeDaemon, sleepctl: Sleepctl, command: str, error: type[errors.SleepdError], code: int
) -> None:
    """Whatever the daemon refuses with, the code says its kind and stderr its words."""
    failure = error("what went wrong", hint="what to type")
    for kind in (control.Run, control.Check, control.Rollback, control.Show):
        daemon.replies[kind] = failure
    assert sleepctl(*command.split()) == Ran(code, "", f"sleepctl: {failure}\nhint: {failure.hint}\n")


@pytest.mark.parametrize("command", ["check", "run", "run --wait", "cancel", "pause", "show 1", "why", "buffer"])
def test_other_commands_need_the_daemon(sleepctl: Sleepctl, command: str) -> None:
    """What needs the daemon says that it is not running and how to start it."""
    code, out, err = sleepctl(*command.split())
    assert (code, out) == (3, "")
    assert err.startswith("sleepctl: the daemon is not ")
    assert "systemctl start sage-sleepd" in err


def test_missing_permission_ends_with_8(daemon: FakeDaemon, sleepctl: Sleepctl, request: pytest.FixtureRequest) -> None:
    """Status does not pretend that the daemon is down when it may only not be asked."""
    daemon.path.chmod(0)
    request.getfixturevalue("unprivileged")
    code, out, err = sleepctl("status")
    assert (code, out) == (8, "")
    assert "usermod -aG sage-sleepd" in err


def test_other_version_ends_with_1(daemon: FakeDaemon, sleepctl: Sleepctl) -> None:
    """The third way of not being understood has its own command to type."""
    daemon.replies[control.GetStatus] = control.encode(control.Answer(v=2))
    code, out, err = sleepctl("status")
    assert (code, out) == (1, "")
    assert "restart sage-sleepd" in err


@pytest.mark.parametrize(
    "arguments",
    [
        "",
        "sleep",
        "show",
        "show x",
        "show -1",
        "run --epochs 0",
        "run --learning-rate nan",
        "run --learning-rate 0",
        "run --learning-rate fast",
        "history --limit 0",
        "config fix",
        "pause --state /x",
        "status extra",
    ],
)
def test_wrong_command_line_ends_with_2(sleepctl: Sleepctl, arguments: str) -> None:
    """Said in one sentence with the help to type, before anything is asked."""
    code, out, err = sleepctl(*arguments.split())
    assert (code, out) == (2, "")
    first, second = err.splitlines()
    assert first.startswith("sleepctl: ")
    assert second.startswith("hint: sleepctl")
    assert second.endswith(" --help")


def test_error_classes_have_exit_codes() -> None:
    """No error leaves with a number that --help does not explain."""
    undocumented = {cls.__name__ for cls in errors.SleepdError.__subclasses__() if cls.exit_code not in MEANINGS}
    assert undocumented == set()
    assert set(MEANINGS) == set(ExitCode)


# --- --help ---


def test_help_names_commands_and_codes(sleepctl: Sleepctl) -> None:
    """Help is complete, and fits 80 columns."""
    code, out, _ = sleepctl("--help")
    assert code == 0
    names = [name for group in GROUPS.values() for name in group]
    assert [name for name in names if f"\n  {name} " not in out] == []
    assert [int(code) for code in ExitCode if f"\n  {int(code):>3}  " not in out] == []
    assert [line for line in out.splitlines() if len(line) > 80] == []


@pytest.mark.parametrize("command", [*(name for group in GROUPS.values() for name in group), "config check"])
def test_command_help_fits_80_columns(sleepctl: Sleepctl, command: str) -> None:
    """Every command explains its options."""
    code, out, _ = sleepctl(*command.split(), "--help")
    assert code == 0
    assert out.startswith(f"usage: sleepctl {command}")
    assert [line for line in out.splitlines() if len(line) > 80] == []


# --- where things are found ---


def test_socket_option_beats_environment(
    daemon: FakeDaemon, sleepctl: Sleepctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--socket, before or after the command, is where the daemon is asked."""
    monkeypatch.setenv("SLEEPD_SOCKET", "/nonexistent/s")
    daemon.replies[control.GetVersion] = {"version": "1", "v": 1}
    assert sleepctl("version").code == 3
    assert sleepctl("version", "--socket", str(daemon.path)).code == 0
    assert sleepctl("--socket", str(daemon.path), "version").code == 0


def test_socket_comes_from_user_configuration(
    daemon: FakeDaemon, sleepctl: Sleepctl, environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without option and variable the discovered configuration names the socket."""
    monkeypatch.delenv("SLEEPD_SOCKET")
    daemon.replies[control.GetVersion] = {"version": "1", "v": 1}
    (environment / ".config" / "sage-sleepd").mkdir(parents=True)
    (environment / ".config" / "sage-sleepd" / "config.toml").write_text(f'[control]\nsocket = "{daemon.path}"\n')
    assert sleepctl("version").code == 0


def test_unnamed_wrong_configuration_is_noted(
    sleepctl: Sleepctl, environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daemon may well run in the default place; the note says what is wrong with the file."""
    monkeypatch.delenv("SLEEPD_SOCKET")
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(environment))
    (environment / ".config" / "sage-sleepd").mkdir(parents=True)
    (environment / ".config" / "sage-sleepd" / "config.toml").write_text("[control]\nsoket = 1\n")
    code, _, err = sleepctl("pause")
    assert code == 3
    assert err.startswith("note: ")
    assert "control.soket" in err
    assert f"nobody answers on {environment}/sleepd.sock" in err


def test_named_wrong_configuration_ends_with_9(
    sleepctl: Sleepctl, environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who names a file means it; the default place is not tried."""
    monkeypatch.delenv("SLEEPD_SOCKET")
    code, out, err = sleepctl("status", "--config", str(environment / "none.toml"))
    assert (code, out) == (9, "")
    assert "none.toml: cannot be read" in err


# --- config ---


def test_config_check_accepts_a_correct_file(sleepctl: Sleepctl, environment: Path) -> None:
    """A correct file is named as such."""
    path = environment / "c.toml"
    path.write_text('[buffer]\npath = "/srv/agent/b.json"\n')
    code, out, err = sleepctl("config", "check", str(path))
    assert (code, out.splitlines()[0], err) == (0, f"{path}: correct", "")
    as_json = sleepctl("config", "check", str(path), "--json").json
    assert (as_json["path"], as_json["drop_ins"], as_json["is_valid"]) == (str(path), [], True)


def test_config_check_tries_the_buffer(sleepctl: Sleepctl, environment: Path) -> None:
    """Of each file of the buffer it says how many experiences were understood, and the first record that was not."""
    path, directory = environment / "c.toml", environment / "logs"
    directory.mkdir()
    (directory / "a.jsonl").write_text('{"prompt": "Who?", "response": "Martha."}\n' * 2 + '{"prompt": 5}\n')
    (directory / "b.json").write_text("not JSON")
    path.write_text(f'[buffer]\npath = "{directory}"\n')
    tried = " ".join(sleepctl("config", "check", str(path)).out.split())
    assert re.search("a.jsonl: 1 experience.*1 skipped.*line 3.*b.json: 0 experiences", tried)


def test_config_check_tells_ratings_once(sleepctl: Sleepctl, environment: Path) -> None:
    """A wrong line of ratings has a line of its own, however many files it counts for; so has what a rotation left."""
    path, directory = environment / "c.toml", environment / "logs"
    directory.mkdir()
    for number in range(3):
        (directory / f"{number}.jsonl").write_text(f'{{"prompt": "Who?", "response": "Martha {number}."}}\n')
    (directory / "feedback.jsonl").write_text('{"id": "a", "rating": 5}\n')
    path.write_text(f'[buffer]\npath = "{directory}"\n')
    tried = " ".join(sleepctl("config", "check", str(path)).out.split())
    assert tried.count("feedback.jsonl line 1") == 1
    assert (tried.count(": 1 experience"), "skipped" in tried) == (3, False)
    (directory / "0.jsonl.1").write_text('{"prompt": "Who?", "response": "Nobody."}\n')
    path.write_text(f'[buffer]\npath = "{directory / "0.jsonl"}"\n')
    tried = " ".join(sleepctl("config", "check", str(path)).out.split())
    assert (tried.count(": 1 experience"), "0.jsonl.1: 1 experience" in tried) == (2, True)


def test_config_check_reads_every_layer(sleepctl: Sleepctl, environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file that counts is named as correct, or the one that is not, or the variable."""
    path, drop_in = environment / "c.toml", environment / "conf.d" / "10-agent.toml"
    path.write_text("")
    drop_in.parent.mkdir()
    drop_in.write_text('[buffer]\npath = "/srv/agent/b.json"\n')
    assert sleepctl("config", "check", str(path)).out.splitlines()[:2] == [f"{path}: correct", f"{drop_in}: correct"]
    drop_in.write_text("[buffer]\npaht = 5\n")
    code, _, err = sleepctl("config", "check", str(path))
    assert (code, f"{drop_in}: buffer.paht: " in err) == (9, True)
    drop_in.unlink()
    monkeypatch.setenv("SLEEPD_TRIGGERS_MIN_EXPERIENCES", "0")
    code, _, err = sleepctl("config", "check", str(path))
    assert (code, "$SLEEPD_TRIGGERS_MIN_EXPERIENCES: triggers.min_experiences: expected" in err) == (9, True)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[triggers]\nmin_experiences = 0\n", ["triggers.min_experiences", "expected `int` >= 1", "found 0"]),
        ("[triggers]\nmin_experience = 4\n", ["triggers.min_experience", "did you mean 'min_experiences'?"]),
        ("[state]\n", ["buffer.path: expected the path of the agent's buffer, found ''"]),
        ("what", ["not TOML"]),
    ],
    ids=["value", "key", "no buffer", "no TOML"],
)
def test_config_check_names_the_fault(sleepctl: Sleepctl, environment: Path, text: str, said: list[str]) -> None:
    """A wrong file ends with 9 and says where and what."""
    path = environment / "c.toml"
    path.write_text(text)
    code, out, err = sleepctl("config", "check", str(path))
    assert (code, out) == (9, "")
    assert [part for part in [str(path), *said] if part not in err] == []


def test_config_check_needs_a_file(sleepctl: Sleepctl, environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing to check is not the same as correct."""
    monkeypatch.setattr("sleepd.config.checks.discover", lambda _: None)
    code, _, err = sleepctl("config", "check")
    assert (code, "no configuration file" in err) == (4, True)


def test_config_show_prints_readable_toml(sleepctl: Sleepctl, environment: Path) -> None:
    """The printed document, read again, is the same configuration."""
    import tomllib

    path = environment / "c.toml"
    path.write_text('[buffer]\npath = "/srv/agent/b.json"\n[triggers]\nmin_experiences = 11\n')
    code, out, err = sleepctl("config", "show", "--config", str(path))
    assert (code, err) == (0, "")
    shown = msgspec.convert(tomllib.loads(out), Config)
    assert (shown.triggers.min_experiences, shown.buffer.path) == (11, "/srv/agent/b.json")
    as_json = sleepctl("config", "show", "--config", str(path), "--json").json
    assert as_json["config"]["triggers"]["min_experiences"] == 11


def test_config_show_names_value_origins(
    sleepctl: Sleepctl, environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """File, drop-in, variable and default stand beside the values; without a subcommand the same is shown."""
    path, drop_in = environment / "c.toml", environment / "conf.d" / "10-agent.toml"
    path.write_text('[buffer]\npath = "/srv/agent/b.json"\n[triggers]\nmin_experiences = 11\n')
    drop_in.parent.mkdir()
    drop_in.write_text("[triggers]\nmin_experiences = 12\n")
    monkeypatch.setenv("SLEEPD_TRAINING_STRATEGY", "gentle")
    code, out, _ = sleepctl("config", "--config", str(path))
    assert code == 0
    shown = dict(line.split("  # ") for line in out.splitlines() if "  # " in line)
    assert shown['path = "/srv/agent/b.json"'] == str(path)
    assert shown["min_experiences = 12"] == str(drop_in)
    assert shown['strategy = "gentle"'] == "$SLEEPD_TRAINING_STRATEGY"
    assert shown["min_new_experiences = 2"] == "default"
    origins = sleepctl("config", "show", "--config", str(path), "--json").json["origins"]
    assert (origins["triggers.min_experiences"], origins["log.level"]) == (str(drop_in), "default")
