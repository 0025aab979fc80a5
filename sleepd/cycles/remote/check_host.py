"""What a cycle on the host would meet, asked before one does: ``sleepctl worker-host check`` shows the answer."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from sleepd.config.layers import load
from sleepd.config.schema import Config
from sleepd.errors import ConfigError, LineBroken, SleepdError
from sleepd.protocol.host_check import HostCheck, HostFinding
from sleepd.protocol.remote_job import Examine, Examined, MachineIdentity

from .identity import difference, own_identity
from .ssh import open_line

_ADVICE: Final = {
    "open user config file": "write ssh's configuration there: HostName, User, IdentityFile, UserKnownHostsFile",
    "Permission denied": "no key of this machine is let in: put its public key into authorized_keys there",
    "Host key verification failed": "the host's key is not in known_hosts: ssh-keyscan it, and compare it there",
    "Could not resolve": "no machine has that name: set HostName in worker.ssh_config, or worker.host",
    "Connection refused": "no sshd listens there: see HostName and Port in worker.ssh_config",
    "timed out": "it does not answer: is it switched on, and is the network up?",
    "not found": "sleepctl is not in the PATH of that user there: name its whole path in the forced command",
    "invalid choice": "install the same version of sage-sleepd on both machines",
}
"""The next step, by what ssh or the host says."""
_MIB: Final = 2**20


async def check(config: Config, *, is_direct: bool) -> HostCheck:
    """Ask the host; directly: not through systemd's socket, behind which is the configured one.

    Raises:
        SleepdError: this machine itself has no answer.
    """
    identity = await own_identity(config)
    try:
        async with open_line(config, is_direct=is_direct) as line, line.beating():
            line.post(Examine())
            found = await line.receive()
    except LineBroken as error:
        log = "journalctl -u 'sage-sleep-ssh@*'"
        hint = next((hint for sign, hint in _ADVICE.items() if sign in error.message), log)
        return HostCheck(host=config.worker.place, findings=[HostFinding("line", "FAIL", error.message, hint)])
    if not isinstance(found, Examined):
        text = f"it answers with {type(found).__name__}"
        return HostCheck(host=config.worker.place, findings=[HostFinding("line", "FAIL", text, "see both versions")])
    return HostCheck(host=config.worker.place, findings=list(_findings(identity, found, config)))


def _findings(own: MachineIdentity, found: Examined, config: Config) -> Iterator[HostFinding]:
    if found.is_confined:
        yield HostFinding("line", "PASS", "reached; the key may do this and nothing else", "")
    else:
        hint = 'put restrict,command="sleepctl worker-host serve" before it in authorized_keys there'
        yield HostFinding("line", "WARN", "reached; the key may run any command there", hint)
    text, hint = difference(own, found.identity)
    same = f"sage-sleepd {own.version} with the same code and the same base"
    yield HostFinding("same", "FAIL", text, hint) if text else HostFinding("same", "PASS", same, "")
    if found.device_problem:
        yield HostFinding("device", "FAIL", found.device_problem, found.device_hint)
    elif found.device.startswith("cuda"):
        yield HostFinding("device", "PASS", found.device, "")
    else:
        text = f"no GPU is used: a cycle runs on {found.device}"
        yield HostFinding("device", "WARN", text, "sleepctl doctor, on that machine")
    free, needed = found.free_bytes // _MIB, config.state.min_free_megabytes
    is_enough = free >= needed
    text = f"{free} MiB free" + ("" if is_enough else f", {needed} MiB are the least")
    yield HostFinding("disk", "PASS" if is_enough else "FAIL", text, "" if is_enough else "make space there: df -h")


def main() -> int:
    """Print it as one line of JSON; returns 0 also where something is missing, for that is an answer."""
    parser = argparse.ArgumentParser(
        prog="python -m sleepd.cycles.remote.check_host", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--config", type=Path)
    parser.add_argument("--host", default="", help="in place of worker.host")
    given = parser.parse_args()
    try:
        config = load(given.config, environment=os.environ).config
        if given.host:
            config = msgspec.structs.replace(config, worker=msgspec.structs.replace(config.worker, host=given.host))
        if not config.worker.place:
            raise ConfigError("no host is named", hint="set worker.host, or name one: sleepctl worker-host check HOST")
        found = asyncio.run(check(config, is_direct=bool(given.host)))
    except SleepdError as error:
        found = HostCheck(host=given.host, findings=[HostFinding("here", "FAIL", error.message, error.hint)])
    sys.stdout.write(msgspec.json.encode(found).decode() + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
