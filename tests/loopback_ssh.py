"""A real sshd for a test, at the other end of a pipe: no port, no service, keys of its own, as the current user."""

from __future__ import annotations

import getpass
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import msgspec

from sleepd.config.render import render
from sleepd.config.schema import Config, ControlConfig, ModelConfig, StateConfig
from sleepd.config.worker_config import WorkerConfig

SSHD: Final = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


class TwoMachines:
    """The configurations of a machine that sleeps and of ``thor``, which it reaches by ssh.

    Args:
        place: where both have their files.
        python: the worker's interpreter of both.
        base: of both.
    """

    def __init__(self, place: Path, python: Path, base: str) -> None:
        self.place = place
        self.host_state = place / "host"
        host = _config(self.host_state, python, base)
        (place / "host.toml").write_text(render(host, title="host"))
        forced = f"{sys.executable} -P -m sleepd.sleepctl worker-host serve --config {place / 'host.toml'}"
        ssh_config = write_ssh(place / "ssh", forced)
        home = _config(place / "home", python, base)
        worker = msgspec.structs.replace(home.worker, engine="ssh", host="thor", ssh_config=str(ssh_config))
        self.home = msgspec.structs.replace(home, worker=worker)


def _config(state: Path, python: Path, base: str) -> Config:
    return Config(
        model=ModelConfig(base=base),
        state=StateConfig(directory=str(state), min_free_megabytes=0),
        control=ControlConfig(socket=str(state / "sleepd.sock")),
        worker=WorkerConfig(python=str(python), gpu_lock="", device="cpu", threads=1),
    )


def write_ssh(directory: Path, forced: str) -> Path:
    """Ssh's configuration for the host ``thor``, where the key of the test may run ``forced`` and nothing else."""
    directory.mkdir()
    for name in ("host_key", "own_key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", directory / name], check=True)
    if os.geteuid() == 0:  # where sshd puts its unprivileged half
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    own = (directory / "own_key.pub").read_text()
    quoted = forced.replace("\\", "\\\\").replace('"', '\\"')
    (directory / "authorized_keys").write_text(f'restrict,command="{quoted}" {own}')
    (directory / "known_hosts").write_text(f"thor {(directory / 'host_key.pub').read_text()}")
    (directory / "sshd_config").write_text(
        f"HostKey {directory}/host_key\nAuthorizedKeysFile {directory}/authorized_keys\nStrictModes no\nUsePAM no\n"
        "PermitRootLogin prohibit-password\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
    )
    config = directory / "ssh_config"
    config.write_text(
        f"Host thor\n  User {getpass.getuser()}\n  IdentityFile {directory}/own_key\n  IdentitiesOnly yes\n"
        f"  UserKnownHostsFile {directory}/known_hosts\n  ProxyCommand {SSHD} -i -f {directory}/sshd_config\n"
    )
    return config
