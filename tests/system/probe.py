"""Run in the service's place, under its unit: says in $STATE_DIRECTORY/probe.json what can be done there."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import socket
import stat
import sys
from collections.abc import Callable
from pathlib import Path

NODES = ("/dev/nvidiactl", "/dev/probe-raw-memory", "/dev/probe-disk", "/dev/mem", "/dev/null")


def outcome(action: Callable[[], object]) -> str:
    """``ok``, or the name of the error."""
    try:
        action()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))
    return "ok"


def opened(path: str, flags: int) -> Callable[[], None]:
    return lambda: os.close(os.open(path, flags))


def files_below(directory: str) -> list[str]:
    return sorted(str(path) for path in Path(directory).rglob("*") if path.is_file())


def others() -> list[int]:
    """Processes of other users that can be seen."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if path.stat().st_uid != os.getuid():
                found.append(int(path.name))
    return found


def make_node() -> None:
    os.mknod(f"{os.environ['STATE_DIRECTORY']}/node", 0o600 | stat.S_IFCHR, os.makedev(1, 1))


def main() -> None:
    found = {
        "home": files_below("/home") + files_below("/root") + files_below("/run/user"),
        "tmp": files_below("/tmp") + files_below("/var/tmp"),
        "internet": outcome(lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM)),
        "netlink": outcome(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)),
        "raw": outcome(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW)),
        "interfaces": sorted(re.findall(r"^ *(\w+):", Path("/proc/net/dev").read_text(), re.MULTILINE)),
        "make_node": outcome(make_node),
        "nodes": {path: outcome(opened(path, os.O_RDWR)) for path in NODES},
        "write_usr": outcome(opened("/usr/probe", os.O_WRONLY | os.O_CREAT)),
        "write_etc": outcome(opened("/etc/sage-sleepd/probe", os.O_WRONLY | os.O_CREAT)),
        "write_state": outcome(opened(f"{os.environ['STATE_DIRECTORY']}/probe", os.O_WRONLY | os.O_CREAT)),
        "others": others(),
        "become_root": outcome(lambda: os.setuid(0)),
        "python": sys.executable,
    }
    Path(os.environ["STATE_DIRECTORY"], "probe.json").write_text(json.dumps(found))


main()
