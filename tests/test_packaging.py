"""What is installed: units, configuration, the install script, the session hook."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

import sleepd
from sleepd.config.layers import load
from sleepd.config.render import render
from sleepd.config.schema import Config
from sleepd.config.worker_config import WorkerConfig
from sleepd.errors import ConfigError, UsageError
from sleepd.log import MESSAGE_IDS
from sleepd.serving.serve_client import SOCKET_NAME
from sleepd.serving.serve_process import CREDENTIAL
from sleepd.sleepctl.commands.watching.web_command import own_token_file
from sleepd.sleepctl.exit_codes import ExitCode
from sleepd.sleepctl.first_config import TITLE
from sleepd.web.web_places import ADDRESS, SERVICE_TOKEN
from tests.wheels import build_wheel

ROOT = Path(__file__).parent.parent
UNITS = ROOT / "systemd"
HOOK = ROOT / "config" / "post_session_sleep.sh"
CONFIG_TITLE = TITLE


def settings(name: str) -> dict[str, list[str]]:
    """The settings of a unit file, each with all its values in order."""
    found: dict[str, list[str]] = {}
    for line in (UNITS / name).read_text().splitlines():
        key, separator, value = line.partition("=")
        if separator and not line.startswith("#"):
            found.setdefault(key, []).append(value)
    return found


def one(name: str, key: str) -> str:
    """The only value of a setting."""
    (value,) = settings(name)[key]
    return value


# --- units ---


def test_service_waits_longer_than_the_daemon() -> None:
    """Systemd kills later than the daemon kills its worker, with time left to write the state down."""
    assert float(one("sage-sleepd.service", "TimeoutStopSec")) >= 2 * WorkerConfig().stop_seconds


def test_service_is_supervised() -> None:
    """Readiness and watchdog come from the daemon alone; a worker out of memory does not take it along."""
    service = settings("sage-sleepd.service")
    assert service["Type"] == ["notify"]
    assert service["NotifyAccess"] == ["main"]
    assert int(one("sage-sleepd.service", "WatchdogSec")) > 0
    assert service["KillMode"] == ["mixed"]
    assert service["OOMPolicy"] == ["continue"]
    assert service["Restart"] == ["on-failure"]


@pytest.mark.parametrize("name", ["sage-sleepd.service", "sage-sleepd@.service", "user/sage-sleepd.service"])
def test_runaway_memory_ends_in_the_unit(name: str) -> None:
    """What grows without end is stopped before the machine is; no core dump, which would hold texts, is written."""
    assert one(name, "MemoryMax") == "90%"
    assert one(name, "OOMPolicy") == "continue"
    assert one(name, "LimitCORE") == "0"


def test_wrong_configuration_is_not_retried() -> None:
    """The exit codes for a wrong configuration and a wrong command line end the restarting."""
    codes = one("sage-sleepd.service", "RestartPreventExitStatus").split()
    assert set(codes) == {str(ConfigError.exit_code), str(UsageError.exit_code)}


def test_service_never_sets_what_breaks_it() -> None:
    """No setting that is known to break the worker or the control socket is set; each has its reason in the unit."""
    text = (UNITS / "sage-sleepd.service").read_text()
    for key in ("MemoryDenyWriteExecute", "PrivateUsers", "ProcSubset"):
        assert key not in settings("sage-sleepd.service")
        assert f"# {key}=" in text


def test_directories_agree_with_the_defaults() -> None:
    """The unit's directories are those that the configuration names where nobody sets any."""
    assert f"/var/lib/{one('sage-sleepd.service', 'StateDirectory')}" == Config().state.directory
    assert Config().control.socket == f"/run/{one('sage-sleepd.service', 'RuntimeDirectory')}/sleepd.sock"
    assert one("sage-sleepd.service", "User") == Config().control.operator_group


def test_quiet_check_counts_as_success() -> None:
    """To the timer's service, nothing to do and a running cycle are no failures; an absent daemon is not started."""
    codes = one("sage-sleep-check.service", "SuccessExitStatus").split()
    assert set(codes) == {str(int(ExitCode.NOTHING_TO_DO)), str(int(ExitCode.BUSY))}
    assert one("sage-sleep-check.service", "Requisite") == "sage-sleepd.service"
    assert one("sage-sleep-check.timer", "Persistent") == "yes"


def test_page_is_confined() -> None:
    """The page's unit has a user of its own, no network but the socket that it is given, and ends when idle."""
    assert one("sage-sleep-web.socket", "ListenStream") == ADDRESS
    assert one("sage-sleep-web.service", "User") != one("sage-sleepd.service", "User")
    assert f"/var/lib/{one('sage-sleep-web.service', 'StateDirectory')}/token" == SERVICE_TOKEN
    assert f"--socket {Config().control.socket} " in one("sage-sleep-web.service", "ExecStart")
    assert one("sage-sleep-web.service", "RestrictAddressFamilies") == "AF_UNIX"
    assert one("sage-sleep-web.service", "PrivateNetwork") == "yes"
    assert "--idle-seconds" in one("sage-sleep-web.service", "ExecStart")


def test_page_of_a_user_has_its_places(monkeypatch: pytest.MonkeyPatch) -> None:
    """The user's unit shows the user's daemon, and keeps its token where sleepctl looks for it."""
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    start = one("user/sage-sleep-web.service", "ExecStart")
    own = own_token_file().relative_to(Path.home())
    assert f"--socket %t/{one('user/sage-sleepd.service', 'RuntimeDirectory')}/sleepd.sock" in start
    assert f"--token-file %h/{own}" in start
    assert one("user/sage-sleep-web.socket", "ListenStream") == ADDRESS


def test_process_to_the_engine_is_confined() -> None:
    """The daemon has no network; what speaks to the engine reaches this machine alone, and serves the daemon alone."""
    assert one("sage-sleepd.service", "PrivateNetwork") == "yes"
    assert one("sage-sleep-serve.service", "IPAddressDeny") == "any"
    assert one("sage-sleep-serve.service", "IPAddressAllow") == "localhost"
    assert "--config /etc/sage-sleepd/config.toml" in one("sage-sleep-serve.service", "ExecStart")
    assert one("sage-sleep-serve.service", "LoadCredential") == CREDENTIAL
    assert one("sage-sleep-serve.socket", "SocketMode") == "0600"
    assert one("sage-sleep-serve.socket", "SocketUser") == one("sage-sleepd.service", "User")
    assert Path(one("sage-sleep-serve.socket", "ListenStream")) == Path(Config().control.socket).with_name(SOCKET_NAME)


@pytest.mark.parametrize("kind", ["service", "socket"])
@pytest.mark.parametrize("name", ["serve", "web"])
def test_instances_have_their_own_units(name: str, kind: str) -> None:
    """The units of an instance differ from the one service's in its name and its places alone."""
    own = (UNITS / f"sage-sleep-{name}@.{kind}").read_text()
    assert "%i" in own
    settings_of = [line for line in own.splitlines() if line and not line.startswith("#")]
    plain = [re.sub(r"[-/@ ]\(?%i\)?", "", line) for line in settings_of]
    one_service = (UNITS / f"sage-sleep-{name}.{kind}").read_text().splitlines()
    assert plain == [line for line in one_service if line and not line.startswith("#")]


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")
@pytest.mark.parametrize("name", ["sage-sleep-serve.service", "sage-sleepd.service"])
def test_exposure_of_the_units(name: str) -> None:
    """``systemd-analyze security`` rates both units below 1.5 from their files alone; 0 is the best."""
    command = ["systemd-analyze", "security", "--offline=yes", "--no-pager", "--threshold=15", str(UNITS / name)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")
def test_systemd_understands_the_units(tmp_path: Path) -> None:
    """``systemd-analyze verify`` is silent about all units (with programs in them that exist here)."""
    names = ["sage-sleepd.service", "sage-sleepd@.service", "sage-sleep-check.service", "sage-sleep-check.timer"]
    names += ["sage-sleep-web.service", "sage-sleep-web.socket", "sage-sleep-notify.service"]
    names += ["sage-sleep-sync.service", "sage-sleep-ssh@.service", "sage-sleep-ssh.socket"]
    names += ["sage-sleep-web@.service", "sage-sleep-web@.socket"]
    names += ["sage-sleep-serve.service", "sage-sleep-serve.socket"]
    names += ["sage-sleep-serve@.service", "sage-sleep-serve@.socket"]
    for name in names:
        text = (UNITS / name).read_text()
        (tmp_path / name).write_text(re.sub(r"/opt/sage-sleepd/current/daemon/bin/\w+", "/bin/true", text))
    command = ["systemd-analyze", "verify", "--man=no", *(str(tmp_path / name) for name in names)]
    done = subprocess.run(command, capture_output=True, text=True)
    # Settings of a unit of ours; a complaint about another unit of this machine is not ours.
    complaints = [line for line in done.stderr.splitlines() if "sage-sleep" in line]
    assert complaints == []


def test_instance_unit_equals_service_unit() -> None:
    """Apart from comments and from where an instance's things lie, the template says the same, line by line."""

    def said(name: str) -> list[str]:
        return [line for line in (UNITS / name).read_text().splitlines() if line and not line.startswith("#")]

    lines = said("sage-sleepd@.service")
    assert [line.replace("/%i/", "/").replace("-%i", "").replace(" (%i)", "") for line in lines] == said(
        "sage-sleepd.service"
    )
    assert sum("%i" in line for line in lines) == 4


def test_every_message_id_is_explained() -> None:
    """The catalog has an entry for each id that the journal gets, with a subject and a next command, and no other."""
    catalog = (UNITS / "sage-sleepd.catalog").read_text()
    entries = re.findall(r"^# (\w+)\n-- (\w{32})\nSubject: .+\n(?:.*\n)*?.*Next", catalog, re.MULTILINE)
    assert dict(entries) == MESSAGE_IDS
    assert len(set(MESSAGE_IDS.values())) == len(MESSAGE_IDS)


# --- configuration ---


def test_shipped_configuration_is_the_default() -> None:
    """The shipped file is what the code renders, and says exactly the defaults."""
    text = (ROOT / "config" / "config.toml").read_text()
    assert text == render(Config(), title=CONFIG_TITLE)
    assert load(ROOT / "config" / "config.toml", environment={}).config == Config()


@pytest.mark.parametrize(("name", "figures"), [("conservative", (10, 5, 12.0)), ("aggressive", (3, 1, 3.0))])
def test_presets_change_only_triggers(name: str, figures: tuple[int, int, float]) -> None:
    """A preset is a whole configuration that differs from the default in its triggers alone."""
    config = load(ROOT / "config" / f"{name}.toml", environment={}).config
    triggers = config.triggers
    assert (triggers.min_experiences, triggers.min_new_experiences, triggers.min_hours_between_sleep) == figures
    assert config.training == Config().training


# --- install.sh ---


def install(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run install.sh, without root where there is a way to be without."""
    return subprocess.run(
        ["bash", str(ROOT / "install.sh"), *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )


MADE_BY_TESTS = (".sleepd-test", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis", ".coverage")


def snapshot() -> set[Path]:
    """What lies in the checkout, without what other tests may make at the same time."""
    return {path for path in ROOT.iterdir() if not path.name.startswith(MADE_BY_TESTS)}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("try", "--dry-run"), "-m sleepd.demo"),
        (("try", "--keep", "--dry-run"), "--keep"),
        (("test", "--dry-run", "-k", "word"), r"loadscope -m not\ system\ and\ not\ model -k word"),
        (("test", "--all", "--dry-run", "-k", "word"), "-m pytest --numprocesses 3 --dist loadscope -k word"),
        (("--dry-run",), "systemd-sysusers sage-sleepd.conf"),
    ],
    ids=["try", "keep", "test", "test-all", "system"],
)
def test_dry_run_changes_nothing(arguments: tuple[str, ...], expected: str) -> None:
    """Each way of installing prints its commands under --dry-run, and makes nothing here nor in /opt."""
    if "try" not in arguments and "test" not in arguments and not shutil.which("systemd-sysusers"):
        pytest.skip("a system install needs systemd-sysusers")
    before, had_prefix = snapshot(), Path("/opt/sage-sleepd").exists()
    done = install(*arguments)
    assert done.returncode == 0, done.stderr
    assert expected in done.stdout
    assert snapshot() == before
    assert Path("/opt/sage-sleepd").exists() == had_prefix


def test_chosen_torch_reaches_pip() -> None:
    """What SLEEPD_TORCH says goes to pip word by word; a changed choice makes another environment."""
    default = install("try", "--dry-run", PYTHON="python3", SLEEPD_TORCH="torch==0.0.0").stdout
    chosen = install("try", "--dry-run", SLEEPD_TORCH="torch==0.0.1 --pre").stdout
    assert re.search(r" torch==0\.0\.0 $", default, re.MULTILINE)
    assert re.search(r" torch==0\.0\.1 --pre $", chosen, re.MULTILINE)
    assert re.findall(r"worker/\.made-of-\w+", default) != re.findall(r"worker/\.made-of-\w+", chosen)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(("tyr",), "found 'tyr'"), (("test", "--keep"), "--keep does not belong"), (("try", "more"), "found 'more'")],
)
def test_wrong_arguments_are_told(arguments: tuple[str, ...], words: str) -> None:
    """A wrong word ends in an error that says what was found and what to type."""
    done = install(*arguments)
    assert done.returncode == 1
    assert words in done.stderr
    assert "hint: ./install.sh" in done.stderr


OPTIONS = ("--all", "--keep", "--user", "--rollback", "--uninstall", "--purge", "--worker-python")
BELONGS = {
    ("try",): {"--keep"},
    ("test",): {"--all"},
    ("--rollback",): {"--rollback", "--user"},
    ("--uninstall",): {"--uninstall", "--purge", "--user"},
    ("--purge",): {"--uninstall", "--purge", "--user"},
}
"""What each way of calling install.sh takes, --dry-run aside."""


@pytest.mark.parametrize(
    ("mode", "option"),
    [(mode, option) for mode, taken in BELONGS.items() for option in OPTIONS if option not in taken],
    ids="".join,
)
@pytest.mark.parametrize("comes_first", [False, True])
def test_foreign_option_is_refused(mode: tuple[str, ...], option: str, comes_first: bool) -> None:
    """An option that does not belong to the mode ends in an error before anything: it neither changes the mode nor is
    passed over.
    """
    words = [option, *(["/usr/bin/python3"] if option == "--worker-python" else [])]
    is_word = mode[0] in ("try", "test")
    arguments = [*words, *mode] if comes_first and not is_word else [*mode, *words]
    done = install(*arguments, "--dry-run")
    assert done.returncode == 1
    assert "does not belong to" in done.stderr
    assert done.stdout == ""


def test_interpreter_path_may_hold_anything(tmp_path: Path) -> None:
    """The lines by which the worker's environment sees an interpreter's packages name them, whatever the path is."""
    hostile = tmp_path / 'it\'s $(touch ran) "x" %h \\'
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(hostile)], check=True)
    script = f'source "{ROOT}/systemd/installer.sh"; beneath_pth "$1"'
    done = subprocess.run(
        ["bash", "-c", script, "bash", str(hostile / "bin" / "python")], capture_output=True, text=True, cwd=tmp_path
    )
    seen: list[str] = []
    for line in done.stdout.splitlines():
        assert line.startswith("import site; site.addsitedir(")
        seen.append(ast.literal_eval(line.removeprefix("import site; site.addsitedir(").removesuffix(")")))
    assert seen
    assert all(each.startswith(str(hostile)) for each in seen)
    assert not (tmp_path / "ran").exists()


def test_shared_files_are_for_all(tmp_path: Path) -> None:
    """Manual pages, completions and the schema can be read by every user, whatever the umask."""
    command = [sys.executable, "-m", "sleepd.sleepctl.share", str(tmp_path)]
    subprocess.run(command, check=True, cwd=ROOT, umask=0o027)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files
    assert {path.stat().st_mode & 0o777 for path in files} == {0o644}


def test_shared_files_are_taken_away(tmp_path: Path) -> None:
    """Nothing with the program's name stays, and what others put beside it does."""
    command = [sys.executable, "-m", "sleepd.sleepctl.share"]
    subprocess.run([*command, str(tmp_path)], check=True, cwd=ROOT)
    subprocess.run([*command, "--remove", str(tmp_path)], check=True, cwd=ROOT)
    assert [path for path in tmp_path.rglob("*") if path.is_file() or path.name == "sage-sleepd"] == []
    subprocess.run([*command, str(tmp_path)], check=True, cwd=ROOT)
    (tmp_path / "share" / "sage-sleepd" / "releases").mkdir()
    subprocess.run([*command, "--remove", str(tmp_path)], check=True, cwd=ROOT)
    assert (tmp_path / "share" / "sage-sleepd" / "releases").is_dir()


def test_absent_python_is_told() -> None:
    """A Python that is not there is named, before anything is made."""
    done = install("try", "--dry-run", PYTHON="/nonexistent/python")
    assert done.returncode == 1
    assert "found no '/nonexistent/python'" in done.stderr


@pytest.mark.skipif(not shutil.which("systemd-sysusers"), reason="a system install needs systemd-sysusers")
def test_python_in_a_home_is_refused(tmp_path: Path) -> None:
    """A system install refuses an interpreter that the service would not see."""
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\ncase "$2" in *realpath*) echo /home/you/python3;; *) exec python3 "$@";; esac\n')
    python.chmod(0o755)
    done = install("--dry-run", PYTHON=str(python))
    assert done.returncode == 1
    assert "found /home/you/python3" in done.stderr


def test_failed_stage_shows_the_log(tmp_path: Path) -> None:
    """A stage that fails shows the end of its log and where the log is; nothing after it is run."""
    copy = tmp_path / "checkout"
    copy.mkdir()
    for name in ("install.sh", "pyproject.toml"):
        shutil.copy(ROOT / name, copy / name)
    shutil.copytree(ROOT / "config" / "requirements", copy / "config" / "requirements")
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\n[ "$2" = venv ] && { echo "no room for $3"; exit 3; }\nexec python3 "$@"\n')
    python.chmod(0o755)
    done = subprocess.run(
        ["bash", str(copy / "install.sh"), "try"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHON": str(python)},
    )
    assert done.returncode == 1
    assert "no room for" in done.stderr
    assert str(copy / ".sleepd-try" / "install.log") in done.stderr
    assert "worker" not in done.stdout


# --- the wheel ---


def test_wheel_holds_what_is_tested(tmp_path: Path) -> None:
    """The wheel holds each file of the package as it stands in the checkout, and no other module."""
    pytest.importorskip("setuptools", minversion="77")
    wheel = build_wheel(tmp_path)
    with zipfile.ZipFile(wheel) as archive:
        built = {name: archive.read(name) for name in archive.namelist() if ".dist-info/" not in name}
    files = [path for path in (ROOT / "sleepd").rglob("*") if path.is_file() and path.suffix not in (".md", ".pyc")]
    assert built == {str(path.relative_to(ROOT)): path.read_bytes() for path in files}


@pytest.mark.skipif("PYTHONSAFEPATH" not in os.environ, reason="the tests were not started by ./install.sh test")
def test_the_wheel_is_tested() -> None:
    """Started by install.sh, the tests and the processes that they start import the package that the wheel brought."""
    command = [sys.executable, "-c", "import sleepd; print(sleepd.__file__)"]
    of_process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    installed = Path(sysconfig.get_path("purelib")) / "sleepd" / "__init__.py"
    assert {sleepd.__file__, of_process} == {str(installed)}


# --- the session hook ---


def hook(tmp_path: Path, script: str | None, *arguments: str, seconds: str = "10") -> tuple[str, list[str]]:
    """Run the hook with a sleepctl that is ``script``; what it said, and how sleepctl was called."""
    sleepctl, calls = tmp_path / "sleepctl", tmp_path / "calls"
    if script is not None:
        sleepctl.write_text(f'#!/bin/sh\necho "$@" >> "{calls}"\n{script}\n')
        sleepctl.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLEEPCTL_SECONDS": seconds}
    done = subprocess.run([str(HOOK), *arguments], capture_output=True, text=True, env=environment)
    assert done.returncode == 0
    return done.stdout, calls.read_text().splitlines() if calls.exists() else []


def test_hook_asks_for_a_sleep(tmp_path: Path) -> None:
    """The hook shows the check, then asks for a sleep, and says that one was started."""
    said, calls = hook(tmp_path, "echo the-check")
    assert calls == ["check", "run"]
    assert "the-check" in said
    assert "a cycle was started" in said


def test_hook_forces(tmp_path: Path) -> None:
    """With --force the daemon is asked to sleep whatever the thresholds say."""
    assert hook(tmp_path, "", "--force")[1] == ["check", "run --force"]


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (None, "is sage-sleepd installed?"),
        ("exit 3", "the daemon is not running"),
        ("exit 5", "nothing to do"),
        ("exit 7", "one is running already"),
        ("exit 1", "exit status 1"),
        ("kill -9 $$", "exit status"),
    ],
    ids=["missing", "no-daemon", "nothing-to-do", "busy", "failing", "killed"],
)
def test_hook_never_fails_the_session(tmp_path: Path, script: str | None, words: str) -> None:
    """Whatever sleepctl does, the hook says it in words and returns 0."""
    assert words in hook(tmp_path, script)[0]


def test_hook_does_not_wait_for_ever(tmp_path: Path) -> None:
    """A sleepctl that hangs is given up after the time that was set, and the hook returns 0."""
    said, _ = hook(tmp_path, "exec sleep 60", seconds="0.5")
    assert "sleepctl within 0.5 s" in said


def test_hook_refuses_unknown_arguments(tmp_path: Path) -> None:
    """An unknown argument asks for no sleep, says so and returns 0."""
    said, calls = hook(tmp_path, "", "--froce")
    assert calls == []
    assert "found '--froce'" in said
