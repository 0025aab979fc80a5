"""``python -m sleepd.sleepctl.first_config [--user] FILE``: the configuration that an installation begins with."""

from __future__ import annotations

import argparse
import grp
import os
import sys
from pathlib import Path

import msgspec

from sleepd.config.render import render
from sleepd.config.schema import Config
from sleepd.files import replace_file

TITLE = "sage-sleepd: every key with its default. buffer.path must be set; all else may stay."


def of_system() -> str:
    """For the one service of a machine: every default."""
    return render(Config(), title=TITLE)


def of_instance(name: str) -> str:
    """For ``sage-sleepd@NAME``: as the unit has it, and written here too, so that sleepctl finds it."""
    return _elsewhere(f"/var/lib/sage-sleepd-{name}", f"/run/sage-sleepd-{name}/sleepd.sock", "sage-sleepd")


def of_user(home: Path) -> str:
    """For a service of the user who asks: the places that the user's unit has.

    It waits for no other daemon: the system's lock is for the group of its daemons alone, and who cannot open it would
    never train.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
    group = grp.getgrgid(os.getgid()).gr_name
    state, socket = str(home / ".local/state/sage-sleepd"), f"{runtime}/sage-sleepd/sleepd.sock"
    return _elsewhere(state, socket, group, gpu_lock="")


def _elsewhere(state: str, socket: str, group: str, *, gpu_lock: str = Config().worker.gpu_lock) -> str:
    config = Config()
    return render(
        msgspec.structs.replace(
            config,
            state=msgspec.structs.replace(config.state, directory=state),
            control=msgspec.structs.replace(config.control, socket=socket, operator_group=group),
            worker=msgspec.structs.replace(config.worker, gpu_lock=gpu_lock),
        ),
        title=TITLE,
    )


def main() -> int:
    """Write it, over one that is there."""
    parser = argparse.ArgumentParser(
        prog="python -m sleepd.sleepctl.first_config", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--user", action="store_true", help="for systemctl --user")
    parser.add_argument("file", type=Path, metavar="FILE")
    given = parser.parse_args()
    replace_file(given.file, (of_user(Path.home()) if given.user else of_system()).encode(), mode=0o644)
    return 0


if __name__ == "__main__":
    sys.exit(main())
