"""The section ``[worker]`` of the configuration: the process that trains, and the machine that it runs on."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta


class WorkerConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The process that trains."""

    engine: Annotated[
        Literal["local", "ssh", "ray"],
        Meta(
            description='Where it runs: "local", on this machine; "ssh", on worker.host, which has the same version of '
            'sage-sleepd and the same base; "ray", as a job of the Ray cluster at worker.ray_address, whose nodes have '
            "them. What is measured there is shown as measured there. sleepctl worker-host check tells what is missing."
        ),
    ] = "local"
    host: Annotated[
        str,
        Meta(
            pattern=r"^(?:[A-Za-z0-9][A-Za-z0-9._@:-]{0,254})?\Z",
            description='With engine = "ssh": the machine, as ssh knows it. Its own configuration names the base, the '
            "device and the interpreter there. Empty: none.",
        ),
    ] = ""
    ssh_config: Annotated[
        str,
        Meta(
            description="ssh's configuration for that host, as ssh_config(5) has it: HostName, User, IdentityFile, "
            "UserKnownHostsFile. Empty: ssh_config in the state directory."
        ),
    ] = ""
    ray_address: Annotated[
        str,
        Meta(
            pattern=r"^(?:https?://[^\s\x00-\x1f]{1,300})?\Z",
            description='With engine = "ray": where the Ray Jobs API is, as in http://127.0.0.1:8265. Texts and '
            "adapters travel there; use https, or a network of your own. Empty: none.",
        ),
    ] = ""
    ray_resources: Annotated[
        tuple[Annotated[str, Meta(pattern=r"^[^\s=]{1,100}=[0-9]{1,9}(?:\.[0-9]{1,6})?\Z")], ...],
        Meta(max_length=32, description='What a job gets of the cluster: "CPU=4", "GPU=1", or a resource of your own.'),
    ] = ("CPU=1",)
    ray_runtime_env: Annotated[
        str,
        Meta(
            description="A file with Ray's runtime environment of a job as a JSON object: pip, conda, image_uri, "
            "env_vars. SLEEPD_… variables in it configure the node. Empty: the nodes have what is needed."
        ),
    ] = ""
    ray_python: Annotated[
        str,
        Meta(
            pattern=r"^[A-Za-z0-9_./-]{1,300}\Z",
            description="The interpreter of the nodes that has the same sage-sleepd.",
        ),
    ] = "python"
    device: Annotated[
        Literal["auto", "cpu", "cuda", "none"],
        Meta(
            description='"auto" takes CUDA, and reports it when it falls back to the CPU; "cuda" fails instead. '
            '"none": this machine trains nothing; it serves, and judges on the CPU what other machines send.'
        ),
    ] = "auto"
    python: Annotated[
        str,
        Meta(
            description="The interpreter with torch and the same sage-sleepd; empty: the one installed beside the "
            "daemon's, else the daemon's own."
        ),
    ] = ""
    gpu_lock: Annotated[
        str,
        Meta(
            description="Of all daemons that name this file, one trains at a time. Without the file, or with an "
            "empty name here, none waits."
        ),
    ] = "/run/sage-sleepd/gpu.lock"
    processes: Annotated[
        int,
        Meta(
            ge=1,
            le=64,
            description="That train together, each with the whole base: of the GPUs each has one, a CPU they share. "
            "They give the adapter of one process but for rounding. What is measured is measured by one. The unit "
            "needs loopback: systemd/20-processes.conf. With another engine the other machine's own setting counts.",
        ),
    ] = 1
    threads: Annotated[int, Meta(ge=0, le=1024, description="CPU threads of torch; 0: as many as it may use.")] = 0
    silence_seconds: Annotated[
        float,
        Meta(
            ge=1.0,
            le=86400.0,
            description="A worker that sends no heartbeat for so long is killed as hung. While it loads, a byte "
            "read or written counts as one.",
        ),
    ] = 300.0
    resume_point_minutes: Annotated[
        float,
        Meta(ge=0.0, le=1440.0, description="How often training saves a point from which it resumes after a crash."),
    ] = 5.0
    stop_seconds: Annotated[
        float, Meta(ge=0.1, le=3600.0, description="A worker asked to stop is killed after so long.")
    ] = 30.0

    @property
    def place(self) -> str:
        """The other machine in messages; empty: there is none, or it is not named."""
        if self.engine == "ray":
            return f"Ray at {self.ray_address.partition('//')[2]}" if self.ray_address else ""
        return self.host

    @property
    def resources(self) -> dict[str, float]:
        """``ray_resources`` by name."""
        return {name: float(amount) for name, _, amount in (each.partition("=") for each in self.ray_resources)}

    @property
    def trains(self) -> bool:
        """Whether this machine ever trains."""
        return self.device != "none"

    @property
    def torch_device(self) -> str:
        """What a worker is told: one that trains nothing judges on the CPU."""
        return self.device if self.trains else "cpu"

    @property
    def own_gpu_lock(self) -> str:
        """The lock of this machine's GPU; empty where a cycle does not use it."""
        return self.gpu_lock if self.engine == "local" else ""
