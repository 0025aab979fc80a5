"""``doctor``: what the facts come to, case by case, and the whole command on real files, sockets and processes."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sleepd.config.buffer_config import BufferConfig
from sleepd.config.bundle_config import BundleConfig, SyncConfig
from sleepd.config.schema import Config, StateConfig
from sleepd.config.worker_config import WorkerConfig
from sleepd.protocol import control
from sleepd.protocol.capability import BaseCheck, Capability
from sleepd.protocol.deployment.adapter_fingerprint import Identity
from sleepd.protocol.deployment.live_request import LiveAnswer
from sleepd.protocol.evidence import ChatContract
from sleepd.sleepctl.doctor.access import access_as
from sleepd.sleepctl.doctor.doctor_facts import (
    BufferFacts,
    ConfigFacts,
    DoctorFacts,
    EngineFacts,
    PathFacts,
    SocketFacts,
    SyncFacts,
    UnitFacts,
)
from sleepd.sleepctl.doctor.engine_finding import engine_facts, engine_finding
from sleepd.sleepctl.doctor.findings import judge
from sleepd.sleepctl.doctor.longest_experience import longest_experience
from sleepd.sleepctl.doctor.sync_finding import sync_facts
from sleepd.sleepctl.subprocesses import answer_of
from sleepd.version import VERSION
from tests.agents import changed, config_for, experiences, write_buffer, write_config
from tests.in_process import program_here
from tests.processes import DaemonProcess
from tests.serving.fake_engines import FakeEngine
from tests.sleepctl import sleepctl_scenes as scenes
from tests.sleepctl.sleepctl_fake_daemon import FakeDaemon
from tests.sleepctl.sleepctl_ran import Ran

Sleepctl = Callable[..., Ran]

GIB = 2**30
PATH = "/srv/agent/b.json"
CONFIG = Config(buffer=BufferConfig(path=PATH))
CHAT = ChatContract(has_template=True, asked="user: Who?", supervised="I am.<end>", notes=["it has a note"])
CAPABLE = Capability(
    version=VERSION,
    torch="2.13",
    device="cpu",
    dtype="bfloat16",
    base_path="/m/base.gguf",
    base_bytes=98 * 2**20,
    chat=CHAT,
)
CHECKED = BaseCheck(
    architecture="llama",
    adapts=["q_proj"],
    needed_bytes=2 * GIB,
    row_tokens=512,
    is_buffer_seen=True,
    longest_tokens=2048,
    longest_bytes=5 * GIB,
)
ENGINE = EngineFacts(kind="vllm", url="http://127.0.0.1:1")
ANSWER = LiveAnswer(
    url=ENGINE.url,
    model="agent",
    in_use=7,
    is_in_use=True,
    identity=Identity(kind="candidate", cycle=7, distance=0.1, next_nearest=0.6),
    compared=[7],
    without=[],
    seconds=1.0,
)


def engine(**fields: Any) -> EngineFacts:
    """An engine with these facts."""
    return msgspec.structs.replace(ENGINE, **fields)


def answered(kind: str, **fields: Any) -> EngineFacts:
    """An engine that answers so, and does not run what is in use."""
    identity = Identity(kind=kind, cycle=6, reason="why")
    return engine(answer=msgspec.structs.replace(ANSWER, **{"is_in_use": False, "identity": identity, **fields}))


WARNED = msgspec.structs.replace(CHAT, warnings=["no end"])
WELL = DoctorFacts(
    now=scenes.NOW,
    config=ConfigFacts(config=CONFIG, path="/etc/sage-sleepd/config.toml"),
    unit=UnitFacts(
        load="loaded", active="active", file="enabled", user="sage-sleepd", hides_homes=True, hides_tmp=True
    ),
    socket=SocketFacts(path="/run/s", exists=True, is_running=True, is_caller_operator=True, daemon_version=VERSION),
    buffer=BufferFacts(has_daemon_read=True, places=[PathFacts(path=PATH, kind="file", may_read=True)]),
    state=PathFacts(path="/var/lib/sage-sleepd", kind="directory", may_read=True, may_write=True),
    daemon_user="sage-sleepd",
    free_bytes=9 * GIB,
    interpreter="/opt/python",
    capability=CAPABLE,
    base=CHECKED,
    memory_bytes=8 * GIB,
    is_clock_synchronised=True,
    last_sleep_at=scenes.ago(hours=3),
)
DOWN = SocketFacts(path="/run/s", problem="nobody answers", hint="start it", is_caller_operator=True)
UNREAD = BufferFacts(places=[PathFacts(path=PATH, kind="file", may_read=True)])


def with_(**fields: Any) -> DoctorFacts:
    """``WELL``, but for these facts."""
    return msgspec.structs.replace(WELL, **fields)


def part(name: str, **fields: Any) -> DoctorFacts:
    """``WELL``, but for these fields of one part."""
    return with_(**{name: msgspec.structs.replace(getattr(WELL, name), **fields)})


def buffer_place(path: str = PATH, **fields: Any) -> BufferFacts:
    """A buffer that no daemon was asked about."""
    return BufferFacts(places=[PathFacts(path=path, **fields)])


def test_a_well_kept_installation_passes_everything() -> None:
    """No warning without a reason, and nothing to mend."""
    assert {finding.mark for finding in judge(WELL)} == {"PASS"}
    assert [finding.command for finding in judge(WELL) if finding.command] == []


CASES: list[tuple[str, DoctorFacts, str, str]] = [
    ("config", part("config", problem="c: not TOML", hint="fix c"), "FAIL", "fix c"),
    ("config", part("config", path=""), "FAIL", "install.sh"),
    ("config", part("config", config=Config()), "FAIL", "sudoedit /etc/sage-sleepd/config.toml"),
    ("unit", with_(unit=UnitFacts()), "WARN", "sleepd --config"),
    ("unit", part("unit", load="not-found", active="inactive", file=""), "WARN", "sudo ./install.sh"),
    ("unit", part("unit", load="masked", file="masked"), "FAIL", "sudo systemctl unmask sage-sleepd"),
    ("unit", part("unit", load="bad-setting"), "FAIL", "systemd-analyze verify"),
    ("unit", part("unit", active="failed", result="exit-code"), "FAIL", "reset-failed"),
    ("unit", part("unit", needs_reload=True), "WARN", "daemon-reload"),
    ("unit", part("unit", file="disabled"), "WARN", "systemctl enable sage-sleepd"),
    ("unit", part("unit", active="inactive"), "WARN", "systemctl start sage-sleepd"),
    ("socket", with_(socket=DOWN), "WARN", "start it"),
    ("socket", part("socket", problem="no permission", hint="usermod"), "FAIL", "usermod"),
    ("operator", part("socket", is_caller_operator=False), "WARN", "usermod -aG sage-sleepd"),
    ("operator", part("socket", is_caller_operator=None), "WARN", "groupadd sage-sleepd"),
    ("daemon", with_(socket=DOWN), "WARN", "start it"),
    ("daemon", part("socket", daemon_version="0.0.9"), "WARN", "restart"),
    ("daemon", part("socket", last_error="out of memory", last_error_hint="smaller"), "WARN", "smaller"),
    ("state", part("state", kind="file"), "FAIL", "mv /var/lib/sage-sleepd"),
    ("state", part("state", kind="absent", may_write=False), "WARN", "logs"),
    ("state", part("state", may_write=None), "WARN", "sudo sleepctl doctor"),
    ("state", part("state", may_write=False), "FAIL", "chown -R sage-sleepd"),
    ("state", part("state", kind="", may_write=False, blocked_at="/var"), "FAIL", "chmod o+x /var"),
    ("disk", with_(free_bytes=None), "WARN", "sudo sleepctl doctor"),
    ("disk", with_(free_bytes=499 * 2**20), "FAIL", "df -h"),
    ("disk", with_(free_bytes=500 * 2**20), "PASS", ""),
    ("buffer", part("buffer", problem="not JSON"), "FAIL", "sleepctl buffer"),
    ("buffer", part("buffer", has_daemon_read=False), "FAIL", "restart"),
    ("buffer", with_(buffer=BufferFacts()), "FAIL", "see config"),
    ("buffer", with_(buffer=UNREAD), "PASS", ""),
    ("buffer", with_(buffer=buffer_place(kind="absent")), "WARN", "is the path right?"),
    ("buffer", with_(buffer=buffer_place(kind="directory", may_read=True)), "PASS", ""),
    ("buffer", with_(buffer=buffer_place(kind="other")), "FAIL", "name what"),
    ("buffer", with_(buffer=buffer_place(kind="file", may_read=None)), "WARN", "sudo sleepctl doctor"),
    ("buffer", with_(buffer=buffer_place(kind="file", may_read=False)), "FAIL", "setfacl -m u:sage-sleepd:r"),
    ("buffer", with_(buffer=buffer_place(blocked_at="/srv")), "FAIL", "setfacl -m u:sage-sleepd:x /srv"),
    (
        "buffer",
        with_(buffer=buffer_place("/home/you/a/b", kind="file", may_read=True)),
        "FAIL",
        "sudo sleepctl setup-buffer",
    ),
    (
        "buffer",
        with_(buffer=buffer_place("/tmp/a/b", kind="file", may_read=True)),
        "FAIL",
        "sudo sleepctl setup-buffer",
    ),
    ("device", with_(capability=None, capability_problem="No such file"), "FAIL", "worker.python"),
    ("device", with_(capability=None, capability_problem="no answer within 180 s"), "FAIL", "less busy"),
    ("device", with_(capability=msgspec.structs.replace(CAPABLE, version="0.0.9")), "FAIL", "install.sh"),
    (
        "device",
        with_(capability=msgspec.structs.replace(CAPABLE, device="", device_problem="no", device_hint="cpu")),
        "FAIL",
        "cpu",
    ),
    ("device", with_(has_gpu=True), "WARN", "nvidia-smi"),
    ("model", with_(capability=None), "WARN", "device"),
    ("chat", with_(capability=None), "WARN", "fix these"),
    ("chat", with_(capability=msgspec.structs.replace(CAPABLE, chat=WARNED)), "WARN", "sleepctl tokens"),
    (
        "chat",
        with_(capability=msgspec.structs.replace(CAPABLE, chat=None, chat_problem="loses", chat_hint="another one")),
        "FAIL",
        "another one",
    ),
    (
        "model",
        with_(capability=msgspec.structs.replace(CAPABLE, base_problem="not there", base_hint="hf download")),
        "FAIL",
        "hf download",
    ),
    ("model", part("base", problem="2 tensors are missing", hint="fetch it again"), "FAIL", "fetch it again"),
    ("model", part("base", notices=["an adapter beside it"]), "WARN", "if that is intended"),
    ("model", with_(base=None, base_check_problem="no answer within 180 s"), "WARN", "sleepctl run --force"),
    ("memory", with_(capability=None), "WARN", "first"),
    ("memory", with_(base=None), "WARN", "first"),
    ("memory", with_(memory_bytes=GIB), "WARN", "free -h"),
    ("memory", with_(memory_bytes=None), "WARN", "free -h"),
    ("memory", with_(capability=msgspec.structs.replace(CAPABLE, device_free_bytes=GIB)), "WARN", "nvidia-smi"),
    ("engine", with_(engine=engine(answer=ANSWER)), "PASS", ""),
    ("engine", with_(engine=answered("too_coarse", compared=[])), "PASS", ""),
    ("engine", with_(engine=answered("parent")), "FAIL", "sleepctl reload"),
    ("engine", with_(engine=answered("neither")), "FAIL", "sleepctl reload"),
    ("engine", with_(engine=answered("other_template")), "FAIL", "own chat template"),
    ("engine", with_(engine=answered("too_coarse")), "WARN", "sleepctl live"),
    ("engine", with_(engine=answered("no_logprobs")), "WARN", "llama-server"),
    ("engine", with_(engine=engine(problem="cannot be reached", hint="is it running?")), "FAIL", "is it running?"),
    ("engine", with_(engine=engine(problem="no", hint="sudo", was_asked=False)), "WARN", "sudo"),
    ("engine", with_(engine=engine(key_file="/k", key_mode=0o640, answer=ANSWER)), "FAIL", "chmod 600 /k"),
    ("sync", with_(sync=SyncFacts(place="dropbox:a", policy="offer")), "PASS", ""),
    ("sync", with_(sync=SyncFacts(place="dropbox:a", problem="none", hint="apt install")), "FAIL", "apt install"),
    ("clock", with_(now=datetime(1970, 1, 2, tzinfo=UTC), last_sleep_at=None), "FAIL", "set-ntp"),
    ("clock", with_(is_clock_synchronised=False), "WARN", "set-ntp"),
    ("clock", with_(is_clock_synchronised=None), "PASS", ""),
    ("clock", with_(last_sleep_at=scenes.NOW + timedelta(hours=1)), "WARN", "timedatectl"),
    ("leftovers", with_(leftovers=[("a cron line", "take it out")]), "WARN", "take it out"),
]


@pytest.mark.parametrize(("name", "facts", "mark", "command"), CASES, ids=[f"{c[0]}-{c[3]}" for c in CASES])
def test_fault_is_shown_with_its_fix(name: str, facts: DoctorFacts, mark: str, command: str) -> None:
    """Each case has its mark; what is not right has a next step, and what is right has none."""
    (finding,) = [each for each in judge(facts) if each.name == name]
    assert finding.mark == mark, finding.text
    assert command in finding.command
    assert bool(finding.command) == (mark != "PASS")
    assert finding.text


def test_means_of_sharing_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key, a directory, the program and its configuration: each that is lacking is named with what mends it."""
    monkeypatch.setenv("PATH", "/nonexistent")
    file = tmp_path / "rclone.conf"

    def found(key: str = "/k", **sync: str) -> SyncFacts:
        state = StateConfig(directory=str(tmp_path))
        return sync_facts(Config(state=state, bundle=BundleConfig(key=key), sync=SyncConfig(**sync)))

    assert found() == SyncFacts(policy="offer")
    assert "nothing goes" in found("", directory=str(tmp_path)).problem
    assert found(directory=str(tmp_path)).problem == ""
    assert found(directory=f"{tmp_path}/gone").hint == f"sudo -u sage-sleepd mkdir {tmp_path}/gone"
    assert found(remote="dropbox:a").hint == "sudo apt install rclone"
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "rclone").touch(mode=0o755)
    assert found(remote="dropbox:a").hint.endswith(f"rclone --config {file} config")
    assert found(remote=":local:/a").problem == ""
    file.touch(mode=0o644)
    assert "only its owner may read" in found(remote="dropbox:a").problem


def test_buffer_in_shown_home_passes() -> None:
    """A drop-in which shows the directory answers the protection of homes."""
    unit = msgspec.structs.replace(WELL.unit, shown=["/home/you/a"])
    facts = with_(unit=unit, buffer=buffer_place("/home/you/a/b", kind="file", may_read=True))
    assert [each.mark for each in judge(facts) if each.name == "buffer"] == ["PASS"]


def test_requested_cpu_is_no_fault() -> None:
    """A GPU that the owner does not want used is not warned about."""
    config = msgspec.structs.replace(CONFIG, worker=WorkerConfig(device="cpu"))
    facts = with_(has_gpu=True, config=msgspec.structs.replace(WELL.config, config=config))
    assert [each.mark for each in judge(facts) if each.name == "device"] == ["PASS"]


def test_trainer_elsewhere_is_named() -> None:
    """Where cycles run on another machine, device, model, template and memory are checked there, and it is named."""
    config = msgspec.structs.replace(CONFIG, worker=WorkerConfig(engine="ssh", host="thor"))
    facts = with_(capability=None, base=None, config=msgspec.structs.replace(WELL.config, config=config))
    found = {each.name: each for each in judge(facts)}
    for name in ("device", "model", "chat", "memory"):
        assert (found[name].mark, "cycles run on thor" in found[name].text) == ("PASS", True)


# --- what a user may ---


def test_edge_box_needs_no_training_memory() -> None:
    """A machine that trains nothing is told so, and its memory is held against the model alone."""
    config = msgspec.structs.replace(CONFIG, worker=WorkerConfig(device="none"))
    facts = with_(has_gpu=True, config=msgspec.structs.replace(WELL.config, config=config), memory_bytes=GIB)
    found = {each.name: each for each in judge(facts)}
    assert {found[name].mark for name in ("device", "memory")} == {"PASS"}
    assert "trains nothing" in found["device"].text


@pytest.mark.parametrize(("processes", "mark"), [(1, "PASS"), (64, "WARN")])
def test_each_process_needs_memory(processes: int, mark: str) -> None:
    """On the CPU every process of a training needs as much as one."""
    config = msgspec.structs.replace(CONFIG, worker=WorkerConfig(processes=processes))
    facts = with_(config=msgspec.structs.replace(WELL.config, config=config))
    assert [each.mark for each in judge(facts) if each.name == "memory"] == [mark]


def test_caller_access_is_found(tmp_path: Path) -> None:
    """For oneself the kernel is asked directly."""
    file = tmp_path / "b.json"
    file.write_text("[]")
    me = pwd.getpwuid(os.geteuid())
    found = access_as(me, [str(file), str(tmp_path), str(tmp_path / "none"), "/dev/null"])
    assert [each.kind for each in found] == ["file", "directory", "absent", "other"]
    assert [each.may_read for each in found] == [True, True, False, True]
    assert found[1].may_write is True


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can ask as another user")
def test_root_finds_blocking_directory(short_directory: Path) -> None:
    """The permissions are the other user's, found out without any guess from mode bits."""
    nobody = pwd.getpwnam("nobody")
    short_directory.chmod(0o755)
    closed, opened = short_directory / "closed", short_directory / "open"
    for each in (closed, opened):
        each.mkdir()
        (each / "b.json").write_text("[]")
    closed.chmod(0o700)
    (opened / "b.json").chmod(0o604)
    stopped, readable, directory = access_as(nobody, [str(closed / "b.json"), str(opened / "b.json"), str(opened)])
    assert (stopped.blocked_at, stopped.may_read) == (str(closed), False)
    assert (readable.kind, readable.may_read, readable.may_write) == ("file", True, False)
    assert directory.may_write is False
    assert os.geteuid() == 0


def test_ordinary_user_learns_own_access_only(unprivileged: None) -> None:
    """Not known is said as not known."""
    (found,) = access_as(pwd.getpwuid(0), ["/etc/hostname"])
    assert (found.may_read, found.may_write) == (None, None)


# --- the whole command ---


@pytest.fixture(autouse=True)
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """A $PATH with only what the test puts there, so that this machine's systemd is not asked."""
    directory = tmp_path / "programs"
    directory.mkdir()
    monkeypatch.setenv("PATH", str(directory))

    def put(name: str, text: str) -> None:
        (directory / name).write_text(f"#!/bin/sh\n{text}\n")
        (directory / name).chmod(0o755)

    return put


@pytest.fixture
def torchless(short_directory: Path) -> str:
    """A worker's interpreter that answers at once, as the real probe does."""
    python = short_directory / "python"
    text = msgspec.json.encode(CAPABLE).decode()
    base = msgspec.json.encode(CHECKED).decode()
    answers = f"sleepd.worker.probe) echo '{text}';; sleepd.worker.programs.check_base) echo '{base}';;"
    python.write_text(f'#!/bin/sh\ncase "$3" in {answers} esac\n')
    python.chmod(0o755)
    return str(python)


def test_offline_doctor_checks_everything(
    short_directory: Path, environment: Path, sleepctl: Sleepctl, torchless: str
) -> None:
    """A correct installation that is not started yet has warnings, no failure, and JSON says the same."""
    config = changed(config_for(short_directory), "worker", python=torchless)
    write_buffer(short_directory / "buffer.json", experiences(3))
    (short_directory / "state").mkdir(exist_ok=True)
    write_config(short_directory / "c.toml", config)
    ran = sleepctl("doctor", "--config", str(short_directory / "c.toml"), "--json")
    marks = {each["name"]: each["mark"] for each in ran.json["findings"]}
    assert ran.code == 0, ran.out
    assert ran.json["is_usable"] is True
    assert marks["socket"] == "WARN"
    assert {marks[name] for name in ("config", "state", "buffer", "device", "model")} == {"PASS"}
    shown = sleepctl("doctor", "--config", str(short_directory / "c.toml"))
    assert shown.code == 0
    assert f"PASS  buffer    {short_directory}/buffer.json can be read by" in shown.out.replace("\n" + " " * 16, " ")


def test_doctor_reads_systemd_and_cron(
    environment: Path, sleepctl: Sleepctl, torchless: str, programs: Callable[[str, str], None]
) -> None:
    """Unit, drop-ins, what is hidden from it and shown to it, clock, and an older scheduler's line, all as printed."""
    properties = (
        "LoadState=loaded ActiveState=inactive UnitFileState=enabled User=nobody Result=success NeedDaemonReload=no "
        "DropInPaths=/etc/override.conf ProtectHome=tmpfs PrivateTmp=yes BindPaths= "
        f"BindReadOnlyPaths=-{environment}:{environment}:rbind"
    )
    programs("systemctl", f"printf '%s\\n' {properties} 'Environment=A=b \"C=d e\"'")
    programs("timedatectl", "echo NTPSynchronized=no")
    programs("crontab", "echo '# python -m x.sleep_scheduler'; echo '0 */6 * * * python -m x.sleep_scheduler'")
    write_buffer(environment / "buffer.json", experiences(3))
    environment.chmod(0o755)
    write_config(environment / "c.toml", changed(config_for(environment), "worker", python=torchless))
    found = sleepctl("doctor", "--config", str(environment / "c.toml"), "--json").json["findings"]
    findings = {each["name"]: each for each in found}
    assert findings["unit"]["text"].startswith("enabled, but inactive ")
    assert "/etc/override.conf" in findings["unit"]["text"]
    assert "is hidden from the service" not in findings["buffer"]["text"]
    assert findings["clock"]["text"] == "the clock is not synchronised"
    assert len([each for each in found if each["name"] == "leftovers" and "crontab -l" in each["text"]]) == 1


def test_doctor_asks_the_engine(short_directory: Path, environment: Path, sleepctl: Sleepctl, torchless: str) -> None:
    """A running engine is asked before the first cycle; a key file that others may read is a failure."""
    (short_directory / "state").mkdir(exist_ok=True)
    key = short_directory / "key"
    key.write_text("secret-key")
    key.chmod(0o600)
    config = changed(config_for(short_directory), "worker", python=torchless)
    with FakeEngine() as running:
        config = changed(config, "serve", kind="peft", url=running.url, key_file=str(key))
        write_config(short_directory / "c.toml", config)
        found = []
        for mode in (0o600, 0o644):
            key.chmod(mode)
            ran = sleepctl("doctor", "--config", str(short_directory / "c.toml"), "--json")
            found += [each for each in ran.json["findings"] if each["name"] == "engine"]
    assert [each["mark"] for each in found] == ["PASS", "FAIL"]
    assert "with log-probabilities; no" in found[0]["text"]
    assert found[1]["command"] == f"sudo chmod 600 {key}"
    assert len(running.requests) == 1
    assert "secret-key" not in json.dumps(found)


def test_key_of_systemd_is_no_fault(tmp_path: Path) -> None:
    """An engine that wants a key which only the service has is not called broken."""
    with FakeEngine() as running:
        running.status = 401
        config = changed(config_for(tmp_path), "serve", kind="peft", url=running.url)
        (tmp_path / "state").mkdir(exist_ok=True)
        facts = engine_facts(config, None)
    assert engine_finding(facts)[0] == "WARN"
    assert "sleepctl status" in facts.hint


def test_engine_without_gpu_is_left_alone() -> None:
    """While a cycle trains on the GPU that the engine has freed, no question makes the engine load its model."""
    config = changed(CONFIG, "serve", kind="llama-router", free_before_training=True)
    facts = engine_facts(config, scenes.TRAINING)
    assert (facts.was_asked, facts.answer) == (False, None)
    assert engine_finding(facts)[0] == "WARN"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can ask as another user")
def test_root_asks_as_daemon_user(environment: Path, sleepctl: Sleepctl, torchless: str) -> None:
    """An interpreter that works for root alone is no interpreter for the service."""
    environment.chmod(0o755)
    (environment / "state").mkdir(exist_ok=True)
    os.chown(environment / "state", 65534, 65534)
    write_config(environment / "c.toml", changed(config_for(environment), "worker", python=torchless))
    options = ("doctor", "--config", str(environment / "c.toml"), "--json")
    (device,) = [each for each in sleepctl(*options).json["findings"] if each["name"] == "device"]
    assert device["mark"] == "PASS"
    Path(torchless).chmod(0o700)
    (device,) = [each for each in sleepctl(*options).json["findings"] if each["name"] == "device"]
    assert device["mark"] == "FAIL"
    assert f"Permission denied, asked as {pwd.getpwuid(65534).pw_name}" in device["text"]


def test_hanging_program_does_not_hang_doctor(
    programs: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that does not answer is as one that is not there."""
    monkeypatch.setattr("sleepd.sleepctl.subprocesses._SECONDS", 0.2)
    programs("systemctl", "exec /bin/sleep 60")
    assert answer_of("systemctl", "show") is None
    programs("systemctl", "echo no >&2; exit 1")
    assert answer_of("systemctl", "show") is None
    assert answer_of("absent") is None


def test_doctor_without_anything_ends_with_1(
    environment: Path, sleepctl: Sleepctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No configuration: that is the first thing to mend."""
    monkeypatch.setattr("sleepd.config.checks.discover", lambda _: None)
    monkeypatch.setattr("sleepd.sleepctl.doctor.gather.worker_python", lambda _configured: "/nonexistent/python")
    code, out, _ = sleepctl("doctor")
    assert code == 1
    assert out.startswith("FAIL  config    there is no ")
    assert "/nonexistent/python does not " in out.replace("\n" + " " * 16, " ")


def test_doctor_asks_running_daemon(short_directory: Path, sleepctl: Sleepctl, torchless: str) -> None:
    """With a real daemon the buffer is judged by what the daemon has read."""
    config = changed(config_for(short_directory, min_experiences=50), "worker", python=torchless)
    write_buffer(short_directory / "buffer.json", experiences(3))
    with DaemonProcess(short_directory, config) as real:
        options = ("--config", str(real.config_path), "--socket", config.control.socket)
        findings = {each["name"]: each for each in sleepctl("doctor", *options, "--json").json["findings"]}
        assert findings["buffer"]["text"] == "the daemon has read it"
        assert {findings[name]["mark"] for name in ("socket", "daemon", "state")} == {"PASS"}


def test_doctor_reports_other_daemon_version(
    daemon: FakeDaemon, sleepctl: Sleepctl, environment: Path, torchless: str
) -> None:
    """After an upgrade the old daemon runs on, and is found out."""
    write_config(environment / "c.toml", changed(config_for(environment), "worker", python=torchless))
    daemon.replies[control.GetStatus] = scenes.changed(scenes.MORNING, version="0.0.1", pid=os.getpid())
    daemon.replies[control.Buffer] = scenes.BUFFER_DETAIL
    ran = sleepctl("doctor", "--config", str(environment / "c.toml"), "--json")
    (finding,) = [each for each in ran.json["findings"] if each["name"] == "daemon"]
    assert (finding["mark"], finding["command"]) == ("WARN", " ".join(["sudo", "systemctl", "restart", "sage-sleepd"]))


def test_interpreter_without_package_is_reported(environment: Path, sleepctl: Sleepctl) -> None:
    """What the interpreter says last is what the owner reads."""
    python = environment / "python"
    python.write_text("#!/bin/sh\necho 'No module named sleepd' >&2; exit 1\n")
    python.chmod(0o755)
    write_config(environment / "c.toml", changed(config_for(environment), "worker", python=str(python)))
    code, out, _ = sleepctl("doctor", "--config", str(environment / "c.toml"))
    assert code == 1
    assert "No module named sleepd" in out.replace("\n" + " " * 16, " ")


def test_a_wrong_configuration_judges_nothing_else(tmp_path: Path, sleepctl: Callable[..., Ran]) -> None:
    """What the configuration names is not looked at: the built-in buffer, state and base are not the operator's."""
    (tmp_path / "c.toml").write_text(f'[buffer]\npath = "{tmp_path}/b.json"\n[training]\nthoughts = "nonsense"\n')
    found = sleepctl("doctor", "--json", "--config", str(tmp_path / "c.toml")).json["findings"]
    texts = {each["name"]: each["text"] for each in found}
    assert "found 'nonsense'" in texts["config"]
    assert {texts[name] for name in ("state", "disk", "buffer", "device", "model", "chat", "memory")} == {
        "not checked: see config"
    }


@pytest.mark.worker
def test_probe_reports_what_cycle_uses(tmp_path: Path) -> None:
    """The worker's own choice of device and base, in an interpreter with torch; what is not there is said."""
    command = [sys.executable, "-m", "sleepd.worker.probe", "--device", "cpu", "--base"]
    done = subprocess.run([*command, str(tmp_path)], capture_output=True, check=True)
    found = msgspec.json.decode(done.stdout, type=Capability)
    assert (found.version, found.device, found.device_problem) == (VERSION, "cpu", "")
    assert found.torch
    assert "holds no config.json" in found.base_problem
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"x" * 1000)
    shown = program_here("sleepd.worker.probe", "--device", "cpu", "--base", str(tmp_path))
    found = msgspec.json.decode(shown, type=Capability)
    assert (found.base_path, found.base_bytes, found.base_problem) == (str(tmp_path), 1000, "")


@pytest.mark.worker
@pytest.mark.model
@pytest.mark.measured
def test_base_check_finds_faults_untrained(tmp_path: Path) -> None:
    """Missing weights, and weights that no memory holds, are told from tables of contents; a sound base is measured."""
    pytest.importorskip("torch")
    from safetensors.torch import load_file, save_file

    from sleepd.worker.programs.tiny_model import make_tiny_model

    def check(*arguments: str, stdin: bytes = b"") -> BaseCheck:
        return msgspec.json.decode(program_here(*command, *arguments, stdin=stdin), type=BaseCheck)

    command = ["sleepd.worker.programs.check_base", "--device", "cpu", "--base", str(tmp_path)]
    make_tiny_model(tmp_path)
    # The limit of memory is the process's, so this one runs in one of its own.
    limited = [sys.executable, "-m", *command, "--memory-bytes", str(4 * GIB)]
    done = subprocess.run(limited, capture_output=True, check=True)
    sound = msgspec.json.decode(done.stdout, type=BaseCheck)
    assert (sound.problem, sound.architecture, sound.positions) == ("", "llama", 2048)
    assert (sound.row_tokens, sound.is_buffer_seen) == (2048, False)
    longest = b'{"prompt": "Who?", "response": "' + b"a" * 600 + b'"}'
    seen = check("--longest", stdin=longest)
    assert (seen.row_tokens > 600, seen.is_buffer_seen) == (True, True)
    assert 2**28 < seen.needed_bytes < seen.longest_bytes == sound.needed_bytes < GIB
    weights = load_file(tmp_path / "model.safetensors")
    del weights["lm_head.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert "1 tensors are missing" in check().problem
    assert "lm_head.weight" in check().problem


def test_longest_experience_is_read(tmp_path: Path) -> None:
    """The longest of those that may be trained; nothing where the buffer is not there or half-written."""
    config = config_for(tmp_path)
    path = Path(config.buffer.path)
    assert longest_experience(config) == b""
    long = {"prompt": "Who?", "response": "I am long.", "salience": 0.9}
    dull = {"prompt": "Who?", "response": "I am longer, and nobody cares.", "salience": 0.1}
    path.write_text(json.dumps([{**long, "response": "I."}, long, dull, "no record"]))
    assert json.loads(longest_experience(config)) == {"prompt": "Who?", "response": "I am long."}
    path.write_text(path.read_text()[:-9])
    assert longest_experience(config) == b""


def test_memory_is_one_figure() -> None:
    """What the buffer's experiences take decides; where the buffer was not read, what the strategy allows does."""

    def told(base: BaseCheck) -> tuple[str, str]:
        facts = msgspec.structs.replace(WELL, base=base, memory_bytes=3 * GIB)
        (found,) = [each for each in judge(facts) if each.name == "memory"]
        return found.mark, found.text

    mark, text = told(CHECKED)
    assert mark == "PASS"
    assert " needs about 2.0 GiB " in text
    unseen = msgspec.structs.replace(CHECKED, is_buffer_seen=False, row_tokens=2048, needed_bytes=5 * GIB)
    mark, text = told(unseen)
    assert mark == "WARN"
    assert [figure in text for figure in (" up to 5.0 GiB ", " 2048 tokens")] == [True, True]
