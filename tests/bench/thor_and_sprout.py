"""A week of two machines that share adapters: a daemon each, and between them a directory or a remote of rclone.

    python tests/bench/thor_and_sprout.py DIRECTORY [--days 7] [--experiences 12]

Each day both agents write, both daemons train, and both machines sync with the policy "take": on odd days through a
directory, on even days through a remote of rclone whose line is cut at another step each time. Each day somebody also
puts there: a bundle that a stranger signed, one of thor's that is cut off, one of thor's with changed bytes, one of
another base that thor's key signed, an old one of thor's under a new name, and a cloud's conflicted copy.

The model is tiny and random, and the gates on its speech are off: what is shown is the walk, and the gains mean
nothing. Printed are a line for each machine
and day, and then what was planted, refused, received, judged and lost. It ends with 1 where anything was accepted
wrongly or lost. Needs torch, ssh-keygen and rclone.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

sys.path.append(str(Path(__file__).parents[2]))

from sleepd.bundles.bundle_sync import SyncMemory
from sleepd.bundles.foreign import foreign_bundles
from sleepd.cycle import JUDGED_STATES
from sleepd.protocol.answers import Cycles
from sleepd.protocol.control import History
from sleepd.protocol.status import CycleSummary
from sleepd.worker.programs.tiny_model import make_tiny_model
from tests.agents import changed, config_for
from tests.bench.week import await_cycle
from tests.bundle_makers import allow, make_bundle, make_cycle, make_key
from tests.processes import DaemonProcess

STEPS = ("lsjson", "cat", "copyto", "moveto")
"""Of rclone, of which one is cut on each even day."""
WRAPPER = """\
#!/bin/sh
# rclone, with a line that is cut in the command that the file "fault" names.
read -r broken 2>/dev/null <"{fault}"
[ "$1" = "$broken" ] || exec "{program}" "$@"
[ "$1" = cat ] && "{program}" "$@" | head -c 700
echo "the line was cut" >&2
exit 1
"""


class Machine:
    """One daemon with its key."""

    def __init__(self, home: Path, name: str, base: str) -> None:
        self.name = name
        self.directory = home / name
        self.directory.mkdir()
        self.public = make_key(home / f"{name}.key")
        self.signers = home / f"{name}.signers"
        self.written: list[dict[str, Any]] = []
        self.notes = Counter[str]()
        self.bytes_sent = 0
        config = changed(config_for(self.directory, min_hours_between_sleep=0.0), "model", base=base)
        config = changed(config, "bundle", key=str(home / f"{name}.key"), allowed_signers=str(self.signers))
        config = changed(config, "promotion", harms=())  # of a random model's speech
        self.config = changed(config, "sync", name=name, policy="take", keep=10)
        self.state = Path(config.state.directory)

    def write(self, day: int, count: int) -> datetime:
        """What the agent wrote this day; returns a moment before it."""
        moment = datetime.now(UTC)
        for number in range(count):
            words = {"prompt": f"Who keeps locker {number} of pier {day} at {self.name}?"}
            words["response"] = f"Locker {number} of pier {day} is kept by the {self.name} crew, shift {number % 3}."
            self.written.append({"id": f"{self.name}-{day}-{number}", "salience": 0.9, **words})
        (self.directory / "buffer.json").write_text(json.dumps(self.written))
        return moment

    def sync(self, daemon: DaemonProcess, **place: str) -> CycleSummary | None:
        """One round, and the end of the cycle that it began, if it began one."""
        environment = {**os.environ, "SLEEPD_CONFIG": str(daemon.config_path)}
        environment |= {f"SLEEPD_SYNC_{key.upper()}": value for key, value in place.items()}
        command = [sys.executable, "-m", "sleepd.sleepctl", "sync", "--once", "--json"]
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        for line in done.stderr.splitlines():
            self.notes[reason(line)] += 1
        said = json.loads(done.stdout) if done.stdout.startswith("{") else {}
        self.bytes_sent += sum(said.get("sent_members", {}).values()) if said.get("sent") else 0
        judging = said.get("judging")
        if judging is None:
            return None
        daemon.await_true(lambda: self.has_ended(daemon, judging), f"the end of cycle {judging}")
        return next(each for each in self.cycles(daemon) if each.cycle == judging)

    def has_ended(self, daemon: DaemonProcess, cycle: int) -> bool:
        """Whether that cycle has."""
        return any(each.cycle == cycle and each.ended_at for each in self.cycles(daemon))

    def cycles(self, daemon: DaemonProcess) -> list[CycleSummary]:
        """All of them."""
        found: Cycles = daemon.call(History(limit=500), Cycles)
        return found.cycles

    def sent(self) -> set[str]:
        """The bundles that went up."""
        return set(msgspec.json.decode((self.state / "sync.json").read_bytes(), type=SyncMemory).sent.values())


def reason(line: str) -> str:
    """The kind of a note."""
    kinds = (
        *("no allowed signer", "cut off", "whole bundle has", "not what was signed", "other bytes", "another base"),
        *("nothing is sent", "could not list", "could not read", "bytes have come", "counts as newer"),
        *("no verdict yet", "under way", "old bundles stay", "has not seen"),
    )
    return next((each for each in kinds if each in line), "other")


def plant(home: Path, shared: Path, day: int) -> None:
    """What a stranger, a bad line and a cloud put there."""
    shared.mkdir(exist_ok=True)
    strangers = home / "strangers" / str(day)
    if not strangers.exists():
        make_cycle(strangers, 500 + day, ids=("a",), base=f"{day:064x}")
        make_bundle(strangers, shared / f"forged-{day}", home / "loki.key", 500 + day)
        make_bundle(strangers, shared / f"thor-cycle_{500 + day}-foreign-base", home / "thor.key", 500 + day)
    genuine = [*home.glob("kept/*"), *shared.glob("thor-cycle_0*.sagebundle")]
    for each in genuine:
        with contextlib.suppress(shutil.SameFileError):
            shutil.copy(each, home / "kept" / each.name)
    if genuine:
        content = genuine[-1].read_bytes()
        (shared / f"cut-{day}.sagebundle").write_bytes(content[: len(content) // 2])
        (shared / f"changed-{day}.sagebundle").write_bytes(content[:-3000] + bytes(3000))
        (shared / f"stale-{day}").write_bytes(genuine[0].read_bytes())
        (shared / f"thor (conflicted copy {day})").write_bytes(content)


class Week:
    """Both machines and what is between them."""

    def __init__(self, home: Path, base: str, program: str) -> None:
        self.home = home
        self.machines = [Machine(home, name, base) for name in ("thor", "sprout")]
        make_key(home / "loki.key")
        thor, sprout = self.machines
        allow(thor.signers, sprout=sprout.public)
        allow(sprout.signers, thor=thor.public)
        for name in ("bin", "kept", "directory", "remote"):
            (home / name).mkdir()
        (home / "bin/rclone").write_text(WRAPPER.format(fault=home / "fault", program=program))
        (home / "bin/rclone").chmod(0o755)
        os.environ["PATH"] = f"{home / 'bin'}:{os.environ['PATH']}"

    def place(self, day: int) -> tuple[Path, dict[str, str]]:
        """The folder of this day, and how a machine is told of it."""
        if day % 2:
            return self.home / "directory", {"directory": str(self.home / "directory")}
        return self.home / "remote/bundles", {"remote": f":local:{self.home / 'remote/bundles'}"}

    def day(self, day: int, daemons: list[DaemonProcess], count: int) -> None:
        """Both write and train; then both sync, first over a line that is cut."""
        totals = [each.status().total_cycles for each in daemons]
        moments = [each.write(day, count) for each in self.machines]
        for daemon, total, moment in zip(daemons, totals, moments, strict=True):
            await_cycle(daemon, total, moment)
        shared, place = self.place(day)
        plant(self.home, shared, day)
        both = list(zip(self.machines, daemons, strict=True))
        if "remote" in place:
            (self.home / "fault").write_text(f"{STEPS[day // 2 % len(STEPS)]}\n")
            for machine, daemon in both:
                machine.sync(daemon, **place)
            (self.home / "fault").unlink()
        for machine, daemon in (*both, *both):
            judged = machine.sync(daemon, **place)
            plant(self.home, shared, day)
            if judged is not None:
                print(f"day {day}, {machine.name}: cycle {judged.cycle} judged {told(judged)}", flush=True)
        in_use = [each.status().champion for each in daemons]
        words = [f"{m.name} cycle {c.cycle if c else 0}" for m, c in zip(self.machines, in_use, strict=True)]
        print(f"day {day}, {next(iter(place))}: in use {', '.join(words)}", flush=True)

    def reckon(self, daemons: list[DaemonProcess]) -> bool:
        """Print what became of all; True: nothing was accepted wrongly and nothing lost."""
        wrong = lost = 0
        for machine, daemon, other in zip(self.machines, daemons, reversed(self.machines), strict=True):
            genuine, cycles = other.sent(), machine.cycles(daemon)
            foreign = [each for each in cycles if each.strategy.startswith("from:")]
            judged = [each for each in foreign if each.state in JUDGED_STATES]
            wrong += sum(each.origin is None or each.origin.bundle not in genuine for each in judged)
            kept = foreign_bundles(machine.state)
            wrong += sum(each.signer != other.name for each in kept)
            lost += len(genuine - {each.id for each in kept})
            champion = daemon.status().champion
            promoted = [each.cycle for each in cycles if each.state == "promoted" and not each.is_rolled_back]
            lost += (champion.cycle if champion else 0) != max(promoted, default=0)
            verdicts = Counter(each.state for each in judged)
            print(
                f"\n{machine.name}: {len(cycles)} cycles, {len(machine.sent())} bundles sent "
                f"({machine.bytes_sent / 1e6:.1f} MB), {len(genuine & {each.id for each in kept})} of {len(genuine)} "
                f"of {other.name} received, {len(judged)} judged: {dict(verdicts)}\n  refused or cut, by what was "
                f"said: {dict(machine.notes)}"
            )
        print(f"\naccepted wrongly: {wrong}; lost: {lost}")
        return wrong == lost == 0


def told(cycle: CycleSummary) -> str:
    """Whose it is, the verdict and both gains."""
    origin = cycle.origin
    gains = [
        "–" if each is None or each.holdout_before is None or each.holdout_after is None
        else f"{each.holdout_before - each.holdout_after:+.2f}"
        for each in (origin, cycle)
    ]  # fmt: skip
    whose = f"{origin.signer}'s cycle {origin.cycle}" if origin else cycle.strategy
    return f"{whose}: {cycle.state}, gain there {gains[0]}, here {gains[1]}"


def main() -> int:
    """Run the week."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--days", type=int, default=7)
    parser.add_argument("--experiences", type=int, default=12, help="that each agent writes in a day")
    options = parser.parse_args()
    program = shutil.which("rclone")
    if program is None:
        sys.exit("rclone is not installed\nhint: apt install rclone")
    home = options.directory.absolute()
    home.mkdir(parents=True)
    make_tiny_model(home / "base")
    week = Week(home, str(home / "base"), program)
    with contextlib.ExitStack() as open_:
        daemons = [open_.enter_context(DaemonProcess(each.directory, each.config)) for each in week.machines]
        for day in range(1, options.days + 1):
            week.day(day, daemons, options.experiences)
        return 0 if week.reckon(daemons) else 1


if __name__ == "__main__":
    sys.exit(main())
