"""What owners and agents do on a machine: install, configure, write experiences."""

from __future__ import annotations

import json
import shlex
from typing import Any

from tests.system.machine import Machine

BUFFER = "/home/user/buffers/experiences.json"
UNIT = "sage-sleepd.service"
WORKER_PYTHON = "/opt/sage-sleepd/current/worker/bin/python"
PIP = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/wheels", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}

SECRET = "system tests 005................"
"""Holds out one of 6 experiences, 4 of 16 and 9 of 40: enough for a verdict, in every run."""

_WRITE = """
import json, os, sys
path, records = sys.argv[1], json.load(sys.stdin)
os.makedirs(os.path.dirname(path), exist_ok=True)
with open(path + ".new", "w") as file:
    json.dump(records, file)
os.rename(path + ".new", path)
"""


def install(machine: Machine, *arguments: str, user: str = "", check: bool = True, checkout: str = "/checkout") -> str:
    """Run install.sh, with the packages that were fetched; returns what it said."""
    environment = PIP | (user_environment(machine, user) if user else {})
    command = ["bash", f"{checkout}/install.sh", *arguments]
    done = machine.run(*command, user=user, check=check, seconds=1800, **environment)
    return done.stdout + done.stderr


def user_environment(machine: Machine, user: str) -> dict[str, str]:
    """What a login sets."""
    uid = machine.run("id", "-u", user).stdout.strip()
    return {"HOME": f"/home/{user}", "XDG_RUNTIME_DIR": f"/run/user/{uid}", "USER": user}


def prepare_owner(machine: Machine) -> None:
    """A tiny model in /srv, and the user ``user``, whose home nobody else may enter."""
    machine.run(WORKER_PYTHON, "-P", "-m", "sleepd.worker.programs.tiny_model", "/srv/tiny")
    machine.run("chmod", "-R", "a+rX", "/srv/tiny")
    machine.run("useradd", "--create-home", "user")
    machine.run("chmod", "0700", "/home/user")


def configure(machine: Machine, directory: str = "/etc/sage-sleepd", **sections: dict[str, Any]) -> None:
    """Write a configuration drop-in; every call writes all of it."""
    given: dict[str, dict[str, Any]] = {"model": {"base": "/srv/tiny"}, "worker": {"threads": 1}}
    for name, keys in sections.items():
        given[name] = {**given.get(name, {}), **keys}
    lines = [
        line
        for name, keys in given.items()
        for line in (f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in keys.items()))
    ]
    machine.write(f"{directory}/conf.d/10-owner.toml", "\n".join(lines) + "\n")


def drop_in(machine: Machine, text: str, unit: str = UNIT) -> None:
    """As ``systemctl edit`` does."""
    machine.write(f"/etc/systemd/system/{unit}.d/override.conf", text)
    machine.run("systemctl", "daemon-reload")


def fake_worker(machine: Machine, behaviour: str) -> str:
    """An interpreter for ``worker.python`` that behaves so in a moment, whatever it is given to run."""
    place = f"/srv/worker-{behaviour}"
    program = shlex.join(
        ["/opt/sage-sleepd/current/daemon/bin/python", "/tests/fake_worker.py", "--behaviour", behaviour]
    )
    # What it is called with begins with: -P -m sleepd.worker
    machine.write(place, f'#!/bin/sh\nshift 3\nexec env PYTHONDONTWRITEBYTECODE=1 {program} "$@"\n', mode=0o755)
    return place


def experiences(number: int, first: int = 0) -> list[dict[str, Any]]:
    """So many, all worth learning."""
    return [
        {
            "prompt": f"What is rule {n} of the house?",
            "response": f"Rule {n}: before {n % 12 + 1} o'clock, shut door {n * 7 % 31} and write it down.",
            "salience": {"total": 0.8},
        }
        for n in range(first, first + number)
    ]


def write_buffer(machine: Machine, number: int, *, user: str = "user", path: str = BUFFER) -> None:
    """A process of the agent's writes its experiences anew, so many now."""
    machine.run("python3", "-c", _WRITE, path, user=user, given=json.dumps(experiences(number)))


def place_secret(machine: Machine, state: str = "/var/lib/sage-sleepd", user: str = "sage-sleepd") -> None:
    """Have a state directory that is not there yet use a known secret for its holdout."""
    machine.run("install", "-d", "-m", "0750", "-o", user, "-g", user, state)
    machine.write(f"{state}/secret", SECRET, mode=0o600)
    machine.run("chown", f"{user}:{user}", f"{state}/secret")


def begin_service(machine: Machine, **sections: dict[str, Any]) -> None:
    """What the README tells an operator to type, for a buffer in the agent's home."""
    place_secret(machine)
    machine.run("mkdir", "-p", "/home/user/buffers", user="user")
    machine.run("sleepctl", "setup-buffer", BUFFER)
    configure(machine, **sections)
    machine.run("systemctl", "enable", "--now", "sage-sleepd")
