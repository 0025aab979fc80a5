"""A Debian of its own with its own systemd, booted in a container, in about a second.

Nothing of the host is changed: the tree is the lower layer of an overlay, mounted in a mount namespace that ends with
the machine. Limits hold on a host with cgroup v1 too, because the machine gets a sub-group of each controller.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

LIMIT_SECONDS = 300.0
"""Much longer than anything takes: a machine with other work must fail no test."""
CONTROLLERS = ("memory", "cpu", "cpuacct", "blkio", "pids", "devices")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_BOOT = """
set -e
mount -t overlay overlay -o lowerdir="$LOWER",upperdir="$UPPER",workdir="$WORK" "$ROOT"
for controller in $CONTROLLERS; do
    if [ -d "/sys/fs/cgroup/$controller" ]; then
        mkdir -p "/sys/fs/cgroup/$controller/$GROUP"
        echo $$ >"/sys/fs/cgroup/$controller/$GROUP/cgroup.procs"
    fi
done
exec systemd-nspawn -q -D "$ROOT" -b --private-network --register=no --keep-unit --console=pipe "$@"
"""


class Machine:
    """One machine; its disk stays over reboots and is gone with ``scratch``.

    Args:
        lower: directories laid over each other, the uppermost first; none is changed.
        scratch: an empty directory, not on an overlay itself.
        shown: what of the host is shown read-only, by its place in the machine.
    """

    def __init__(self, lower: Sequence[Path], scratch: Path, shown: dict[str, Path]) -> None:
        self._lower = lower
        self._scratch = scratch
        self._shown = shown
        self.upper = scratch / "upper"
        self._group = f"sage-sleepd-test-{os.getpid()}-{id(self):x}"
        self._process: subprocess.Popen[bytes] | None = None
        self._leader = 0
        for name in ("upper", "work", "root"):
            (scratch / name).mkdir(exist_ok=True)

    def __enter__(self) -> Self:
        try:
            self.boot()
        except BaseException:
            self.cut_power()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self.cut_power()
        for controller in CONTROLLERS:
            top = Path("/sys/fs/cgroup", controller, self._group)
            for directory in (*sorted(top.rglob("*/"), reverse=True), top):
                # What was killed may be a moment in leaving; an empty group that stays harms nobody.
                with contextlib.suppress(OSError):
                    directory.rmdir()

    # --- its life ---

    def boot(self) -> None:
        """Start it and wait until systemd says that it runs."""
        binds = [f"--bind-ro={source}:{place}" for place, source in self._shown.items()]
        environment = {
            "PATH": PATH,
            "LOWER": ":".join(map(str, self._lower)),
            "UPPER": str(self.upper),
            "WORK": str(self._scratch / "work"),
            "ROOT": str(self._scratch / "root"),
            "GROUP": self._group,
            "CONTROLLERS": " ".join(CONTROLLERS),
        }
        with (self._scratch / "console").open("ab") as console:
            # It ends with us, whatever ends us.
            unshared = ["setpriv", "--pdeathsig", "TERM", "unshare", "--mount", "--propagation", "private"]
            self._process = subprocess.Popen(
                [*unshared, "bash", "-c", _BOOT, "boot", *binds],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
            )
        self.await_true(self._finds_leader, "systemd to start")
        self.await_true(lambda: self._system_state() in ("running", "degraded"), "the machine to boot")
        for controller in CONTROLLERS:
            self.run("mount", "-o", "remount,bind,rw", f"/sys/fs/cgroup/{controller}", check=False)
        self.run("systemctl", "daemon-reexec")

    def shut_down(self) -> None:
        """Power it off in an orderly way."""
        assert self._process is not None
        self.run("systemctl", "poweroff", "--no-block")
        self._process.wait(LIMIT_SECONDS)
        self._leader = 0

    def reboot(self) -> None:
        """Shut it down and start it again."""
        self.shut_down()
        self.boot()

    def cut_power(self) -> None:
        """Kill everything in it."""
        if self._process is not None and self._process.poll() is None:
            if self._leader:
                os.kill(self._leader, 9)
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._leader = 0

    def _finds_leader(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.console()
        # What is looked at may end meanwhile.
        with contextlib.suppress(OSError):
            for child in Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split():
                if Path(f"/proc/{child}/comm").read_text().strip() == "systemd":
                    self._leader = int(child)
                    return True
        return False

    def _system_state(self) -> str:
        return self.run("systemctl", "is-system-running", check=False).stdout.strip()

    def console(self) -> str:
        """What it printed at boot."""
        return (self._scratch / "console").read_text(errors="replace")

    # --- commands and files in it ---

    def run(
        self,
        *command: str,
        user: str = "",
        check: bool = True,
        seconds: float = LIMIT_SECONDS,
        given: str = "",
        **environment: str,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in it, as root or as another user; ``given`` is its standard input."""
        become = ["runuser", "-u", user, "--"] if user else []
        # pam_systemd is not there; what it would set is.
        enter = ["nsenter", "-t", str(self._leader), "-m", "-u", "-i", "-n", "-p", "-C", "--wdns=/"]
        done = subprocess.run(
            [*enter, *become, *command],
            input=given,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            env={"PATH": PATH, "LANG": "C.UTF-8", **environment},
        )
        if check:
            said = f"{command}: exit status {done.returncode}\n{done.stdout}\n{done.stderr}"
            assert done.returncode == 0, f"{said}\n{self.log()}"
        return done

    def confined(self, *command: str, **properties: str) -> subprocess.CompletedProcess[str]:
        """Run a command as a unit of its own, with these properties."""
        given = [f"--property={key}={value}" for key, value in properties.items()]
        return self.run("systemd-run", "--pipe", "--wait", "--quiet", "--collect", *given, *command, check=False)

    def path(self, place: str) -> Path:
        """A file of the machine, as the host sees it."""
        return Path(f"/proc/{self._leader}/root{place}")

    def write(self, place: str, text: str, *, mode: int = 0o644) -> None:
        """Write a file, as root."""
        path = self.path(place)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)

    def read(self, place: str) -> str:
        """A text file's content."""
        return self.path(place).read_text()

    # --- what it says ---

    def property(self, name: str, unit: str = "sage-sleepd.service") -> str:
        """What ``systemctl show`` says of a unit."""
        return self.run("systemctl", "show", f"--property={name}", "--value", unit).stdout.strip()

    def journal(self, *arguments: str) -> list[dict[str, Any]]:
        """Lines of the journal with all their fields."""
        self.run("journalctl", "--sync", check=False)
        lines = self.run("journalctl", "--output=json", "--no-pager", *arguments, check=False).stdout.splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def events(self, name: str = "", unit: str = "sage-sleepd.service") -> list[dict[str, Any]]:
        """The daemon's events, or those of one name."""
        found = self.journal(f"_SYSTEMD_UNIT={unit}", *([f"SLEEPD_EVENT={name}"] if name else []))
        return [line for line in found if "SLEEPD_EVENT" in line]

    def await_event(self, name: str, unit: str = "sage-sleepd.service", **fields: str) -> dict[str, Any]:
        """Wait until the daemon logs an event with these fields."""
        found: list[dict[str, Any]] = []

        def is_there() -> bool:
            wanted = {f"SLEEPD_{key.upper()}": value for key, value in fields.items()}
            found[:] = [event for event in self.events(name, unit) if wanted.items() <= event.items()]
            return bool(found)

        self.await_true(is_there, f"the event {name} {fields}")
        return found[-1]

    def status(self, *arguments: str) -> dict[str, Any]:
        """``sleepctl status --json``."""
        return json.loads(self.run("sleepctl", "status", "--json", *arguments).stdout)

    def await_true(self, holds: Callable[[], bool], what: str, *, seconds: float = LIMIT_SECONDS) -> None:
        """Wait until ``holds()``; fails with the machine's journal when it takes too long."""
        deadline = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < deadline, f"waited in vain for {what}\n{self.log()}"
            time.sleep(0.05)

    def log(self) -> str:
        """The end of its journal."""
        if not self._leader or not Path(f"/proc/{self._leader}").exists():
            return self.console()
        enter = ["nsenter", "-t", str(self._leader), "-m", "-p"]
        command = [*enter, "journalctl", "--no-pager", "--lines=60", "--unit=sage-*"]
        return subprocess.run(command, capture_output=True, text=True, errors="replace").stdout
