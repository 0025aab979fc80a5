"""One contract over all engines: the same job, messages and endings, here and on a host at the other end of a line.

The line is a socket pair in this process; ``test_worker_over_ssh.py`` has a real sshd.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import pytest

import sleepd.cycles.remote.check_host as check_host
import sleepd.cycles.remote.line as line
import sleepd.cycles.remote.remote_host as host_module
from sleepd.config.render import render
from sleepd.config.schema import Config, ControlConfig, ModelConfig, StateConfig
from sleepd.config.strategies import STRATEGIES
from sleepd.config.worker_config import WorkerConfig
from sleepd.cycles.remote.line import HostLine, entry_of
from sleepd.cycles.remote.ray_bridge import Bridge
from sleepd.cycles.remote.remote_home import Home, offered_files
from sleepd.cycles.remote.remote_host import Host, missing
from sleepd.cycles.running.worker_process import Worker, WorkerPolicy, worker_command
from sleepd.errors import ProtocolError, WorkerDied, WorkerFailed
from sleepd.protocol.host_check import HostCheck
from sleepd.protocol.job import (
    MAX_MESSAGE_BYTES,
    RESUME_POINT,
    Failure,
    Job,
    Notice,
    Progress,
    Report,
    TrainingExample,
    decode_job,
    encode,
)
from sleepd.protocol.remote_job import (
    EXAMPLES,
    RETURNED,
    Beat,
    Contents,
    Examine,
    Examined,
    FileEntry,
    HostMessage,
    JobRefused,
    MachineIdentity,
    Offer,
    Results,
    Wanted,
    decode_home,
    decode_host,
    job_id,
)
from sleepd.version import VERSION
from tests.fakes import fake_interpreter, fake_worker
from tests.local_ray import LocalRay
from tests.processes import LIMIT_SECONDS

SAME = MachineIdentity(version=VERSION, code="0123456789abcdef", base="base-1")
Heard = list[Progress | Notice]


@pytest.fixture
def staging(tmp_path: Path) -> Path:
    """What the daemon has staged for a cycle."""
    staging = tmp_path / "staging"
    (staging / "work").mkdir(parents=True)
    job = Job(cycle=1, base="b", models_directory="m", staging=str(staging), strategy=STRATEGIES["consolidate"])
    examples = [
        TrainingExample(id=str(number), prompt="p", response="r", salience=0.7, role="train" if number else "holdout")
        for number in range(3)
    ]
    (staging / "work" / "job.json").write_bytes(encode(job))
    (staging / "work" / "experiences.jsonl").write_bytes(b"".join(map(encode, examples)))
    return staging


class Machine:
    """A host at the other end of a socket pair, whose line can be cut."""

    def __init__(self, state: Path, behaviour: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.state = state
        self.behaviour = behaviour
        self.lines = 0
        self.cut: Callable[[], None] = lambda: None
        self.config = Config(
            model=ModelConfig(base="/its/base"),
            state=StateConfig(directory=str(state), min_free_megabytes=0),
            worker=WorkerConfig(gpu_lock=""),
        )

        async def identity(config: Config) -> MachineIdentity:
            return SAME

        monkeypatch.setattr(host_module, "own_identity", identity)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[HostLine[HostMessage]]:
        """A line to it."""
        self.lines += 1
        ours, theirs = socket.socketpair()
        there = HostLine(*await asyncio.open_connection(sock=theirs, limit=MAX_MESSAGE_BYTES), decode_home)
        here = HostLine(*await asyncio.open_connection(sock=ours, limit=MAX_MESSAGE_BYTES), decode_host)
        self.cut = lambda: ours.shutdown(socket.SHUT_RDWR)
        serving = asyncio.create_task(Host(self.config, there, fake_worker(self.behaviour)).serve())
        try:
            yield here
        finally:
            here.close()
            await asyncio.gather(serving, return_exceptions=True)
            there.close()


class RayMachine:
    """A node at the other end of the bridge to Ray, with this machine's processes in the place of a cluster."""

    def __init__(self, state: Path, behaviour: str) -> None:
        state.mkdir()
        self.state = state
        python = state / "python"
        fake_interpreter(state / "worker", behaviour)
        identity = msgspec.json.encode(SAME).decode()
        python.write_text(
            f'#!/bin/sh\ncase "$*" in *identify*) echo \'{identity}\' ;; *) exec {state / "worker"} "$@" ;; esac\n'
        )
        python.chmod(0o755)
        config = Config(
            model=ModelConfig(base="/its/base"),
            state=StateConfig(directory=str(state / "state"), min_free_megabytes=0),
            worker=WorkerConfig(gpu_lock="", python=str(python)),
        )
        (state / "node.toml").write_text(render(config, title="node"))
        self.cluster = LocalRay(state, state / "node.toml")
        self.lines = 0

    @asynccontextmanager
    async def open(self) -> AsyncIterator[HostLine[HostMessage]]:
        """A line to it, as to a host."""
        self.lines += 1
        ours, theirs = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=theirs, limit=MAX_MESSAGE_BYTES)
        here = HostLine(*await asyncio.open_connection(sock=ours, limit=MAX_MESSAGE_BYTES), decode_host)

        async def write(content: bytes) -> None:
            writer.write(content)
            await writer.drain()

        bridge = Bridge(self.cluster, "Ray", HostLine(reader, writer, decode_home), write)
        serving = asyncio.create_task(bridge.serve())
        serving.add_done_callback(lambda _: writer.close())
        try:
            yield here
        finally:
            here.close()
            await asyncio.gather(serving, return_exceptions=True)


Then = Callable[[Any, Progress | Notice], None]


def on_host(
    machine: Machine | RayMachine, staging: Path, *, then: Then | None = None, **kw: Any
) -> tuple[Report | Failure, Heard]:
    """Have the job done there."""
    heard: Heard = []

    def tell(message: Progress | Notice) -> None:
        heard.append(message)
        if then is not None:
            then(home, message)

    limits = (kw.pop("silence", 30.0), kw.pop("stop", 5.0))
    home = Home(staging, "thor", kw.pop("identity", SAME), machine.open, tell, limits, pauses=(0.01, 0.01))
    return asyncio.run(home.work()), heard


def here(behaviour: str, staging: Path, *, then: Then | None = None, **kw: Any) -> tuple[Report | Failure, Heard]:
    """Have the job done by the engine ``local``; a death as the failure that a host makes of it."""
    heard: Heard = []

    async def run() -> Report | Failure:
        def tell(message: Progress | Notice) -> None:
            heard.append(message)
            if then is not None:
                then(worker, message)

        policy = WorkerPolicy(
            command=(*fake_worker(behaviour), *kw.get("arguments", ())),
            silence_seconds=kw.get("silence", 30.0),
            stop_seconds=kw.get("stop", 5.0),
        )
        worker = Worker(policy, tell)
        try:
            return await worker.run(staging)
        except WorkerDied as error:
            return Failure(kind="died", message=error.message, hint=error.hint)
        except WorkerFailed as error:
            return Failure(kind="error", message=error.message, hint=error.hint)

    return asyncio.run(run()), heard


@pytest.fixture(params=["local", "two processes", "ssh", pytest.param("ray", marks=pytest.mark.model)])
def run(request: pytest.FixtureRequest, tmp_path: Path, staging: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs the job with the engine."""

    def run_job(behaviour: str, **kw: Any) -> tuple[Report | Failure, Heard]:
        if request.param == "two processes":
            command = worker_command(WorkerConfig(processes=2))
            outcome = here(behaviour, staging, arguments=command[command.index("--processes") :], **kw)
            (rank,) = (staging / "work" / "ranks").read_text().split()
            await_end(int(rank))
            return outcome
        if request.param == "local":
            return here(behaviour, staging, **kw)
        if request.param == "ray":
            return on_host(RayMachine(tmp_path / "node", behaviour), staging, **kw)
        return on_host(Machine(tmp_path / "host", behaviour, monkeypatch), staging, **kw)

    return run_job


def is_training(message: Progress | Notice) -> bool:
    """Whether the worker trains by now."""
    return isinstance(message, Progress) and message.phase == "training"


def await_end(pid: int) -> None:
    """Wait until that process is killed; one that init has not reaped yet counts as that."""
    until = time.monotonic() + LIMIT_SECONDS
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
            assert time.monotonic() < until, f"process {pid} goes on"
            time.sleep(0.01)


def children() -> set[str]:
    """Our own child processes, zombies included."""
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


def test_every_engine_brings_the_report(run: Any, staging: Path) -> None:
    """The report, the progress in its order and the adapter are the same wherever the worker ran."""
    outcome, heard = run("promote")
    assert isinstance(outcome, Report)
    assert (outcome.held_out, outcome.trained) == (1, 2)
    phases = [message.phase for message in heard if isinstance(message, Progress) and message.phase != "loading"]
    assert phases == ["training", "evaluating"]
    assert (staging / "adapter_model.safetensors").read_bytes() == b"weights of cycle 1"
    assert (staging / "adapter_config.json").is_file()
    assert children() == set()


@pytest.mark.parametrize(
    ("behaviour", "kind", "words"),
    [
        ("fail", "error", "it cannot be done"),
        ("base_changed", "base_changed", "it cannot be done"),
        ("crash", "died", "exit status 3 and no report: something broke"),
        ("die_resumably", "died", "killed by SIGKILL; the kernel may have run out of memory"),
        ("garbage", "error", "sent what is no message"),
        ("other_version", "error", "has sage-sleepd 0.0.0"),
        ("hang", "died", "no sign of life for 1 s"),
    ],
)
def test_every_engine_fails_in_words(run: Any, staging: Path, behaviour: str, kind: str, words: str) -> None:
    """A worker that gives up, dies, lies or hangs ends the job with the same words, and its resume point is here."""
    outcome, _ = run(behaviour, silence=1.0 if behaviour == "hang" else 30.0, stop=0.5)
    assert isinstance(outcome, Failure)
    assert (outcome.kind, words in outcome.message) == (kind, True), outcome
    assert outcome.hint
    assert children() == set()
    assert (staging / "work" / "resume.safetensors").exists() == (behaviour == "die_resumably")


def test_every_engine_stops_when_asked(run: Any) -> None:
    """A request to stop ends the job as stopped."""
    outcome, heard = run("wait", then=lambda worker, message: worker.stop() if is_training(message) else None)
    assert isinstance(outcome, Failure)
    assert outcome.kind == "stopped"
    assert heard


# --- what only the engine on another machine has ---


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Machine]:
    """Makes a host whose worker behaves so."""
    return lambda behaviour: Machine(tmp_path / "host", behaviour, monkeypatch)


def test_report_names_the_other_machine(machine: Callable[[str], Machine], staging: Path) -> None:
    """The report says on which machine it was measured, and the host keeps nothing once it is delivered."""
    host = machine("promote")
    outcome, heard = on_host(host, staging)
    assert isinstance(outcome, Report)
    assert (outcome.host, outcome.measured_where.startswith(f"{outcome.device} of thor")) == ("thor", True)
    assert [m.device for m in heard if isinstance(m, Progress) and m.phase == "training"] == ["cpu on thor"]
    assert [path.name for path in (host.state / "hosted").iterdir()] == ["lock"]


def test_host_uses_its_own_paths(machine: Callable[[str], Machine], staging: Path, tmp_path: Path) -> None:
    """Base, device, caches and staging directory of the job there are the host's; the parent's files are sent."""
    parent = tmp_path / "cycle_001"
    parent.mkdir()
    (parent / "adapter_model.safetensors").write_bytes(b"weights")
    job = decode_job((staging / "work" / "job.json").read_bytes())
    (staging / "work" / "job.json").write_bytes(encode(msgspec.structs.replace(job, parent=str(parent))))
    host = machine("wait")
    seen: list[Any] = []

    def look(home: Home, message: Progress | Notice) -> None:
        if isinstance(message, Progress) and message.phase == "training" and not seen:
            (run,) = (host.state / "hosted").glob("*/run")
            seen.append(decode_job((run / "work" / "job.json").read_bytes()))
            seen.append((run.parent / "parent" / "adapter_model.safetensors").read_bytes())
            home.stop()

    on_host(host, staging, then=look)
    assert (seen[0].base, seen[0].models_directory) == ("/its/base", str(host.state / "models"))
    assert seen[0].parent == str(Path(seen[0].staging).parent / "parent")
    assert seen[1] == b"weights"


def test_broken_line_is_opened_again(machine: Callable[[str], Machine], staging: Path) -> None:
    """After a cut the same job goes on there, nothing is sent twice, and the report comes home."""
    host = machine("wait")

    def cut_once(home: Home, message: Progress | Notice) -> None:
        if isinstance(message, Progress) and message.phase == "training":
            if host.lines == 1:
                host.cut()
            else:
                (run,) = (host.state / "hosted").glob("*/run/work")
                (run / "go").touch()

    outcome, heard = on_host(host, staging, then=cut_once)
    assert isinstance(outcome, Report)
    assert host.lines == 2
    assert [m.event for m in heard if isinstance(m, Notice)] == ["host_line_broken"]


def test_lost_line_keeps_the_job(machine: Callable[[str], Machine], staging: Path) -> None:
    """Where the line stays broken the job ends as lost, after bounded tries, and stays on the host."""
    host = machine("wait")

    def cut(home: Home, message: Progress | Notice) -> None:
        if isinstance(message, Progress) and message.phase == "training":
            host.cut()

    outcome, _ = on_host(host, staging, then=cut)
    assert isinstance(outcome, Failure)
    assert (outcome.kind, host.lines) == ("line_lost", 3)
    assert len(list((host.state / "hosted").glob("*/" + EXAMPLES))) == 1


def test_own_resume_point_goes_first(machine: Callable[[str], Machine], staging: Path) -> None:
    """A resume point that the host has is not replaced by an older one from home; one that it lacks is sent."""
    host = machine("die_resumably")
    (staging / "work" / "resume.safetensors").write_bytes(b"older")
    entries = [entry for name, path in offered_files(staging) if (entry := entry_of(name, path))]
    run = host.state / "hosted" / job_id(entries) / "run" / "work"
    run.mkdir(parents=True)
    assert [each.name for each in missing(entries, run.parents[1])] == [each.name for each in entries]
    (run / "resume.safetensors").write_bytes(b"newer")
    assert RESUME_POINT not in [each.name for each in missing(entries, run.parents[1])]
    on_host(host, staging)
    assert (staging / "work" / "resume.safetensors").read_bytes() == b"half of it"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"identity": MachineIdentity(version="0.0.0", code=SAME.code, base="base-1")},
            f"sage-sleepd {VERSION} is there",
        ),
        ({"identity": MachineIdentity(version=VERSION, code="f" * 16, base="base-1")}, "the code of sage-sleepd"),
        ({"identity": MachineIdentity(version=VERSION, code=SAME.code, base="base-2")}, "another base is there"),
        (
            {"identity": MachineIdentity(version=VERSION, code=SAME.code, base_problem="gone", base_hint="look")},
            "cannot be used here: gone",
        ),
        ({"command": "rm"}, "no other command is run"),
        ({"device": "none"}, "it trains nothing"),
        ({"free": 10**9}, "MiB are needed there"),
    ],
    ids=["version", "code", "base", "no-base", "command", "device", "disk"],
)
def test_unlike_host_starts_nothing(
    machine: Callable[[str], Machine], staging: Path, change: dict[str, Any], words: str
) -> None:
    """Another version, code or base, another command, no device, no room: the job ends in words before it starts."""
    host = machine("promote")
    if "command" in change:
        job = decode_job((staging / "work" / "job.json").read_bytes())
        (staging / "work" / "job.json").write_bytes(encode(msgspec.structs.replace(job, evaluation_command="rm -r /")))
    host.config = msgspec.structs.replace(
        host.config,
        worker=WorkerConfig(gpu_lock="", device=change.get("device", "auto")),
        state=StateConfig(directory=str(host.state), min_free_megabytes=change.get("free", 0)),
    )
    outcome, heard = on_host(host, staging, identity=change.get("identity", SAME))
    assert isinstance(outcome, Failure)
    assert words in outcome.message
    assert outcome.hint
    assert not [message for message in heard if isinstance(message, Progress) and message.phase == "training"]


def test_slow_host_gets_whole_files(
    machine: Callable[[str], Machine], staging: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Signs of life that home sends while the host looks at its base are not taken for contents of files."""
    host = machine("promote")
    monkeypatch.setattr(line, "BEAT_SECONDS", 0.01)

    async def identity(config: Config) -> MachineIdentity:
        await asyncio.sleep(0.1)  # several signs of life
        return SAME

    monkeypatch.setattr(host_module, "own_identity", identity)
    outcome, _ = on_host(host, staging)
    assert isinstance(outcome, Report), outcome


@pytest.mark.model
def test_lost_ray_job_is_submitted_again(staging: Path, tmp_path: Path) -> None:
    """A cluster that has lost the job in the midst of it gets it once more, and the report comes home."""
    machine = RayMachine(tmp_path / "node", "wait")

    def lose_once(_home: Home, message: Progress | Notice) -> None:
        if not (isinstance(message, Progress) and message.phase == "training"):
            return
        if machine.lines == 1:
            machine.cluster.lose()
        else:
            (run,) = (machine.state / "state" / "hosted").glob("*/run/work")
            (run / "go").touch()

    outcome, heard = on_host(machine, staging, then=lose_once)
    assert isinstance(outcome, Report), outcome
    events = [message.event for message in heard if isinstance(message, Notice)]
    assert events == ["ray_job_submitted", "host_line_broken"]
    assert machine.cluster.jobs() == {}


@pytest.mark.model
def test_busy_node_is_asked_again(staging: Path, tmp_path: Path) -> None:
    """A node that works on another job is asked again by a new job, and none stays on the cluster."""
    machine = RayMachine(tmp_path / "node", "promote")
    (machine.state / "state" / "hosted").mkdir(parents=True)
    lock = os.open(machine.state / "state" / "hosted" / "lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)
    outcome, _ = on_host(machine, staging)
    os.close(lock)
    assert isinstance(outcome, Failure)
    assert (outcome.kind, "another job" in outcome.message, machine.lines) == ("error", True, 3)
    assert machine.cluster.jobs() == {}


def test_busy_host_is_asked_again(machine: Callable[[str], Machine], staging: Path) -> None:
    """A host that works on another job is asked again, a bounded number of times, and then named as busy."""
    host = machine("promote")
    (host.state / "hosted").mkdir(parents=True)
    lock = os.open(host.state / "hosted" / "lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)
    outcome, _ = on_host(host, staging)
    os.close(lock)
    assert isinstance(outcome, Failure)
    assert (outcome.kind, outcome.message, host.lines) == ("error", "thor: it works on another job", 3)


def test_old_jobs_are_removed(machine: Callable[[str], Machine], staging: Path) -> None:
    """A job that nobody asked for in a week is removed when another one comes; a younger one stays."""
    host = machine("promote")
    old, young = host.state / "hosted" / "old", host.state / "hosted" / "young"
    for each in (old, young):
        each.mkdir(parents=True)
    os.utime(old, (0, 0))
    on_host(host, staging)
    assert (old.exists(), young.exists()) == (False, True)


# --- hostile other sides ---


class Liar:
    """The other end of a line: it sends what it is told, whatever it gets."""

    def __init__(self, *sent: bytes) -> None:
        self.sent = sent

    @asynccontextmanager
    async def open(self) -> AsyncIterator[HostLine[HostMessage]]:
        """A line to it."""
        ours, theirs = socket.socketpair()
        theirs.sendall(b"".join(self.sent))
        theirs.shutdown(socket.SHUT_WR)
        line = HostLine(*await asyncio.open_connection(sock=ours, limit=MAX_MESSAGE_BYTES), decode_host)
        try:
            yield line
        finally:
            line.close()
            theirs.close()


def listed(name: str, content: bytes = b"x", **changed: Any) -> FileEntry:
    """The entry of a file with that content."""
    return msgspec.structs.replace(FileEntry(name, len(content), sha256(content).hexdigest()), **changed)


WANTED = encode(Wanted(names=[]))
CONTENTS = encode(Contents())


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        ([b"{}\n"], "not understood"),
        ([encode(Wanted(names=["/etc/passwd"]))], "something else was expected"),
        ([WANTED, encode(Results(files=[listed("../../etc/x")]))], "'../../etc/x' was named"),
        ([WANTED, encode(Results(files=[listed("/etc/x")]))], "'/etc/x' was named"),
        ([WANTED, encode(Results(files=[listed("work/job.json")]))], "'work/job.json' was named"),
        ([WANTED, encode(Results(files=[listed("replies.json")] * 2))], "named twice"),
        ([WANTED, encode(Results(files=[listed(n, bytes=2**34) for n in RETURNED[:2]]))], "bytes, 34359738368"),
        (
            [WANTED, encode(Results(files=[listed("replies.json", sha256="0" * 64)])), CONTENTS, b"x"],
            "its sha256 differs",
        ),
        ([WANTED, encode(Results(files=[])), encode(Wanted(names=[]))], "something else was expected"),
        ([WANTED, WANTED], "something else was expected"),
    ],
    ids=["nonsense", "asks", "up", "absolute", "job", "twice", "bomb", "other-bytes", "no-outcome", "order"],
)
def test_hostile_host_is_refused(staging: Path, sent: list[bytes], words: str) -> None:
    """A host that names other files, other bytes or nonsense ends the job in words, and no file gets its name."""
    before = sorted(staging.rglob("*"))
    home = Home(staging, "thor", SAME, Liar(*sent).open, lambda message: None, (30.0, 5.0), pauses=())
    with pytest.raises(ProtocolError) as caught:
        asyncio.run(home.work())
    assert words in caught.value.message
    assert [path for path in sorted(staging.rglob("*")) if not path.name.startswith(".")] == before


def test_links_are_not_followed(staging: Path, tmp_path: Path) -> None:
    """A link that stands where a file is to be written is replaced, and what it names is not touched."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")
    for name in (".replies.json.part", "replies.json"):
        (staging / name).symlink_to(victim)
    sent = [
        WANTED,
        encode(Results(files=[listed("replies.json")])),
        CONTENTS,
        b"x",
        encode(Failure(kind="error", message="no")),
    ]
    home = Home(staging, "thor", SAME, Liar(*sent).open, lambda message: None, (30.0, 5.0), pauses=())
    asyncio.run(home.work())
    assert victim.read_bytes() == b"mine"
    assert (staging / "replies.json").read_bytes() == b"x"


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ([listed("../x")], "'../x' was named"),
        ([listed("work/job.json"), listed("work/job.json")], "named twice"),
        ([listed("work/job.json", b"no job", sha256="0" * 64)], "its sha256 differs"),
        ([listed("work/job.json")], "not understood: job"),
    ],
    ids=["path", "twice", "other-bytes", "no-job"],
)
def test_hostile_home_is_refused(
    machine: Callable[[str], Machine], staging: Path, files: list[FileEntry], words: str
) -> None:
    """An offer of other files, of other bytes or of no job is refused in words."""
    host = machine("promote")
    offer = Offer(identity=SAME, files=files, silence_seconds=1.0, stop_seconds=1.0)

    async def ask() -> HostMessage:
        async with host.open() as line:
            line.post(offer)
            answer = await line.receive()
            if isinstance(answer, Wanted):
                await line._write(CONTENTS + b"x" * sum(each.bytes for each in files))
                answer = await line.receive()
            return answer

    answer = asyncio.run(ask())
    assert isinstance(answer, JobRefused)
    assert words in answer.message


# --- the check ---


def examined(**changed: Any) -> Examined:
    """What a host with everything answers."""
    whole = Examined(identity=SAME, device="cuda (a GPU)", free_bytes=2**40, is_confined=True)
    return msgspec.structs.replace(whole, **changed)


@pytest.mark.parametrize(
    ("answer", "levels", "words"),
    [
        (examined(), "PASS PASS PASS PASS", "the same base"),
        (examined(is_confined=False), "WARN PASS PASS PASS", "may run any command"),
        (examined(identity=msgspec.structs.replace(SAME, base="x")), "PASS FAIL PASS PASS", "another base"),
        (examined(device_problem="no torch", device_hint="pip"), "PASS PASS FAIL PASS", "no torch"),
        (examined(device="cpu"), "PASS PASS WARN PASS", "no GPU is used"),
        (examined(free_bytes=2**20), "PASS PASS PASS FAIL", "1 MiB free, 500 MiB are the least"),
        (JobRefused(message="no", hint="h"), "FAIL", "answers with JobRefused"),
    ],
    ids=["whole", "open", "base", "device", "cpu", "disk", "other"],
)
def test_check_names_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: Any, levels: str, words: str
) -> None:
    """Through systemd's socket the host is asked, and each thing that it lacks is named."""

    async def identity(config: Config) -> MachineIdentity:
        return SAME

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = decode_home(await reader.readline())
        writer.write(encode(answer if isinstance(asked, Examine | Beat) else JobRefused(message="what?", hint="h")))
        await writer.drain()
        writer.close()

    async def ask() -> HostCheck:
        config = Config(control=ControlConfig(socket=str(tmp_path / "s")), worker=WorkerConfig(host="thor"))
        async with await asyncio.start_unix_server(serve, tmp_path / "worker-host.sock"):
            return await check_host.check(config, is_direct=False)

    monkeypatch.setattr(check_host, "own_identity", identity)
    found = asyncio.run(ask()).findings
    assert " ".join(each.level for each in found) == levels
    assert any(words in each.text for each in found)
    assert all(each.hint for each in found if each.level != "PASS")


def test_check_without_host_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where no host is configured or named, the answer is that, with the key to set."""
    (tmp_path / "config.toml").write_text("")
    monkeypatch.setattr(sys, "argv", ["check_host", "--config", str(tmp_path / "config.toml")])
    assert check_host.main() == 0
    (finding,) = msgspec.json.decode(capsys.readouterr().out, type=HostCheck).findings
    assert (finding.level, "worker.host" in finding.hint) == ("FAIL", True)
