"""The engine ``ray`` with a real Ray cluster on loopback, which these tests start and stop."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import psutil
import pytest

from sleepd.config.render import render
from sleepd.config.schema import Config, ControlConfig, ModelConfig, StateConfig
from sleepd.config.worker_config import WorkerConfig
from sleepd.cycles.remote import check_host
from sleepd.cycles.running.worker_engine import engine_command
from sleepd.cycles.running.worker_process import Worker, WorkerPolicy
from sleepd.errors import WorkerDied
from sleepd.protocol.job import Failure, Notice, Progress, Report
from tests.processes import LIMIT_SECONDS
from tests.test_worker_host import staging
from tests.test_worker_over_ssh import fake_python

__all__ = ["staging"]
RAY: Final = shutil.which("ray", path=str(Path(sys.executable).parent))
pytestmark = [
    pytest.mark.model,
    pytest.mark.skipif(RAY is None, reason="NOT RUN: ray is not installed here (pip install 'sage-sleepd[ray]')"),
]
PORTS: Final = {"--port": 6399, "--dashboard-port": 8266, "--ray-client-server-port": 9999}
WORKERS: Final = {"--min-worker-port": 20000, "--max-worker-port": 20100}


class Cluster:
    """A Ray head with its dashboard, on loopback."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.address = f"http://127.0.0.1:{PORTS['--dashboard-port']}"
        self._head: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns once the Ray Jobs API answers."""
        options = [str(part) for pair in (PORTS | WORKERS).items() for part in pair]
        fixed = ("--head", "--block", "--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1", "--num-cpus=2")
        more = ("--include-dashboard=true", "--disable-usage-stats", "--object-store-memory=100000000")
        command = [str(RAY), "start", *fixed, *more, *options, f"--temp-dir={self.place}"]
        environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}"}
        self._head = subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        self.await_answer()

    def await_answer(self) -> None:
        from ray.job_submission import JobSubmissionClient

        until = time.monotonic() + LIMIT_SECONDS
        while True:
            try:
                JobSubmissionClient(self.address).list_jobs()
            except Exception:
                if time.monotonic() > until:
                    raise
                time.sleep(0.5)
            else:
                return

    def processes(self) -> list[psutil.Process]:
        """All of it, and what its jobs started."""
        assert self._head is not None
        head = psutil.Process(self._head.pid)
        return [head, *head.children(recursive=True)]

    def kill(self) -> None:
        """As a power cut would."""
        if self._head is None:
            return
        everything = self.processes()
        for process in everything:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._head.wait()
        psutil.wait_procs(everything, timeout=LIMIT_SECONDS)
        self._head = None

    def jobs(self) -> dict[str, str]:
        """By their ids, how they are."""
        from ray.job_submission import JobSubmissionClient

        found = JobSubmissionClient(self.address).list_jobs()
        print(found)
        return {each.submission_id: str(each.status.value) for each in found}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A cluster for the tests of this module; one that a test has killed is started again by that test."""
    place = Path("/tmp/sage-ray-" + str(os.getpid()))
    found = Cluster(place)
    try:
        found.start()
        yield found
    finally:
        found.kill()
        shutil.rmtree(place, ignore_errors=True)


class RayHome:
    """The configurations of a machine that sleeps and of the nodes."""

    def __init__(self, place: Path, address: str) -> None:
        self.place = place
        self.node_state = place / "node"
        python = str(fake_python(place / "python"))
        state = StateConfig(directory=str(self.node_state), min_free_megabytes=0)
        node = Config(
            model=ModelConfig(base="/my/base"),
            state=state,
            control=ControlConfig(socket=str(self.node_state / "sleepd.sock")),
            worker=WorkerConfig(python=python, gpu_lock="", device="cpu", threads=1),
        )
        (place / "node.toml").write_text(render(node, title="node"))
        environment = place / "runtime_env.json"
        environment.write_text(json.dumps({"env_vars": {"SLEEPD_CONFIG": str(place / "node.toml")}}))
        worker = msgspec.structs.replace(
            node.worker,
            engine="ray",
            ray_address=address,
            ray_runtime_env=str(environment),
            ray_python=sys.executable,
            ray_resources=("CPU=0.5",),
        )
        state = StateConfig(directory=str(place / "home"), min_free_megabytes=0)
        control = ControlConfig(socket=str(place / "home.sock"))
        self.config = msgspec.structs.replace(node, state=state, worker=worker, control=control)

    def let_go(self) -> None:
        """Let the worker on the node come to its end."""
        for work in self.node_state.glob("hosted/*/run/work"):
            (work / "go").touch()

    def run(
        self, staging: Path, then: Callable[[Worker, Progress | Notice], None], **worker: Any
    ) -> tuple[Report | Failure, list[Progress | Notice]]:
        """Have the job done as the daemon does."""
        heard: list[Progress | Notice] = []
        config = msgspec.structs.replace(self.config, worker=msgspec.structs.replace(self.config.worker, **worker))

        def listen(message: Progress | Notice) -> None:
            heard.append(message)
            then(process, message)

        policy = WorkerPolicy(command=engine_command(config), silence_seconds=60.0, stop_seconds=30.0)
        process = Worker(policy, listen)
        return asyncio.run(process.run(staging)), heard


def is_training(message: Progress | Notice) -> bool:
    return isinstance(message, Progress) and message.phase == "training"


@pytest.fixture
def home(cluster: Cluster, tmp_path: Path) -> RayHome:
    """A machine that sleeps on the cluster."""
    return RayHome(tmp_path, cluster.address)


def test_cycle_runs_on_the_cluster(cluster: Cluster, home: RayHome, staging: Path) -> None:
    """The report and the adapter come home, marked with where they were made, and the cluster keeps no job."""
    outcome, heard = home.run(staging, lambda _, message: home.let_go() if is_training(message) else None)
    assert isinstance(outcome, Report), outcome
    assert outcome.host == home.config.worker.place
    assert (staging / "adapter_model.safetensors").read_bytes() == b"weights of cycle 1"
    assert [each.event for each in heard if isinstance(each, Notice)] == ["ray_job_submitted"]
    assert cluster.jobs() == {}
    assert [path.name for path in (home.node_state / "hosted").iterdir()] == ["lock"]


def test_cycle_stops_on_the_cluster(cluster: Cluster, home: RayHome, staging: Path) -> None:
    """A request to stop ends the job there, and no process of it is left."""
    outcome, _ = home.run(staging, lambda worker, message: worker.stop() if is_training(message) else None)
    assert isinstance(outcome, Failure), outcome
    assert outcome.kind == "stopped", outcome
    assert "RUNNING" not in cluster.jobs().values()


def test_job_is_found_after_a_crash(cluster: Cluster, home: RayHome, staging: Path) -> None:
    """A daemon that was killed in the midst of a cycle finds the job again, which went on, and gets its report."""

    def die(_worker: Worker, message: Progress | Notice) -> None:
        if is_training(message):
            for child in psutil.Process().children():
                with contextlib.suppress(psutil.NoSuchProcess):
                    if "sleepd.cycles.remote.remote_home" in child.cmdline():
                        child.kill()

    with pytest.raises(WorkerDied, match="SIGKILL"):
        home.run(staging, die)
    assert list(cluster.jobs().values()) == ["RUNNING"]
    outcome, heard = home.run(staging, lambda _, message: home.let_go() if is_training(message) else None)
    assert isinstance(outcome, Report), outcome
    assert [each.event for each in heard if isinstance(each, Notice)] == ["ray_job_found"]


def test_check_asks_a_node(home: RayHome) -> None:
    """The check runs as a job, and says what is there."""
    found = asyncio.run(check_host.check(home.config, is_direct=False))
    assert [(each.name, each.level) for each in found.findings] == [
        ("line", "WARN"),
        ("same", "PASS"),
        ("device", "WARN"),
        ("disk", "PASS"),
    ]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"ray_address": "http://127.0.0.1:9"}, "http://127.0.0.1:9: "),
        ({"ray_python": "/no/such/python"}, "FAILED"),
        ({"ray_runtime_env": "/no/such/file"}, "/no/such/file: "),
    ],
    ids=["address", "python", "environment"],
)
def test_wrong_setting_ends_in_words(home: RayHome, staging: Path, change: dict[str, str], words: str) -> None:
    """A cluster that is not there, and nodes without sage-sleepd, end the cycle in words with a hint."""
    outcome, _ = home.run(staging, lambda *_: None, **change)
    assert isinstance(outcome, Failure)
    assert (outcome.kind, words in outcome.message) == ("error", True), outcome.message
    assert outcome.hint


def test_other_version_on_the_nodes_is_refused(home: RayHome, staging: Path, tmp_path: Path) -> None:
    """Nodes with another code of sage-sleepd end the cycle before it starts, with the difference."""
    other = tmp_path / "other"
    other.write_text((tmp_path / "python").read_text().replace("0123456789abcdef", "f" * 16))
    other.chmod(0o755)
    text = (tmp_path / "node.toml").read_text().replace(str(tmp_path / "python"), str(other))
    (tmp_path / "node.toml").write_text(text)
    outcome, heard = home.run(staging, lambda *_: None)
    assert isinstance(outcome, Failure)
    assert "the code of sage-sleepd" in outcome.message
    assert not [each for each in heard if is_training(each)]


def test_killed_head_costs_no_cycle(cluster: Cluster, home: RayHome, staging: Path) -> None:
    """The head is killed in the midst of a job and started anew: it lost the job, which is submitted again.

    1. The worker trains; the whole cluster is killed.
    2. Home tries again and again; the cluster comes back, without the job.
    3. The same job is submitted, and comes to its end.
    """
    seen: list[str] = []

    def strike(_worker: Worker, message: Progress | Notice) -> None:
        if isinstance(message, Notice):
            seen.append(message.event)
            if message.event == "host_line_broken" and seen.count("host_line_broken") == 1:
                cluster.start()
        elif is_training(message) and "host_line_broken" not in seen and "killed" not in seen:
            seen.append("killed")
            cluster.kill()
        elif is_training(message) and "host_line_broken" in seen:
            home.let_go()

    outcome, _ = home.run(staging, strike)
    assert isinstance(outcome, Report), outcome
    assert seen[:3] == ["ray_job_submitted", "killed", "host_line_broken"]
    assert seen[-1] != "killed"
