"""A state directory that an older version made and promoted in is opened, continued and remembered by this one.

Run: python tests/faults/older_state.py OLDER_CHECKOUT [OLDER_PYTHON]

The older version's own daemon, with a real worker on a tiny model, sleeps once and puts the adapter in use. Then this
version's daemon opens the same state directory with the same configuration file. It must not take the base for another
one, its next cycle must continue the champion, and it must remember the base's full fingerprint, of which the older
manifest knows the weights alone. Exit status 1: one of these does not hold.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2]))

from sleepd.config.layers import load
from sleepd.protocol.checkpoint.base_identity import MARK, weights_part
from sleepd.protocol.control import History, Run
from sleepd.protocol.status import RunResult
from tests.agents import experiences, write_buffer
from tests.processes import DaemonProcess

OLDER_LIFE = """
import sys
from pathlib import Path
try:
    from sleepd.protocol.control import History
    from sleepd.worker.programs.tiny_model import make_tiny_model
except ImportError:  # before its modules moved into packages
    from sleepd.protocol import History
    from sleepd.worker.tiny_model import make_tiny_model
from tests.agents import changed, config_for, experiences, write_buffer
from tests.processes import DaemonProcess

home = Path(sys.argv[1])
make_tiny_model(home / "model")
config = changed(config_for(home, cooldown_seconds=0.0), "model", base=str(home / "model"))
config = changed(config, "promotion", harms=())  # a tiny model's replies loop
write_buffer(home / "buffer.json", experiences(12))
with DaemonProcess(home, config) as daemon:
    daemon.await_true(lambda: any(one["is_champion"] for one in daemon.call(History(), dict)["cycles"]), "a champion")
"""


def main() -> int:
    """Live both lives, and print what did not hold."""
    older, python = Path(sys.argv[1]).resolve(), (*sys.argv[2:], sys.executable)[0]
    with tempfile.TemporaryDirectory(prefix="sage-sleepd-older-") as folder:
        environment = {**os.environ, "PYTHONPATH": str(older)}
        subprocess.run([python, "-P", "-c", OLDER_LIFE, folder], check=True, env=environment, cwd=older)
        wrong = faults_of_opening(Path(folder))
    print("\n".join(wrong) or "opened, continued, and the base is remembered")
    return 1 if wrong else 0


def faults_of_opening(home: Path) -> list[str]:
    """What does not hold after this version slept once in ``home/state``, where cycle 1 is the champion."""
    state, config = home / "state", load(home / "config.toml", environment={}).config
    older = json.loads((state / "current" / "manifest.json").read_text())["base_fingerprint"]
    write_buffer(home / "buffer.json", experiences(20))
    with DaemonProcess(home, config) as daemon:
        champions = [one["cycle"] for one in daemon.call(History(), dict)["cycles"] if one["is_champion"]]
        result = daemon.call(Run(force=True, wait=True), RunResult)
    cycle = result.summary
    assert cycle is not None
    met = state / "models" / "bases_met.json"
    remembered = json.loads(met.read_text()).get(older, "") if met.exists() else ""
    held = {
        f"the champion is {champions}, not 1": champions == [1],
        f"cycle 2 is {cycle.state}: {cycle.reason}": cycle.state in ("promoted", "rejected", "inconclusive"),
        f"the parent of cycle 2 is {cycle.parent}, not 1": cycle.parent == 1,
        f"the older manifest knows {older}, which is not the weights alone": MARK not in older,
        f"of {older} is remembered {remembered!r}": MARK in remembered and weights_part(remembered) == older,
    }
    return [text for text, holds in held.items() if not holds]


if __name__ == "__main__":
    sys.exit(main())
