"""``python -m sleepd.selftest``: one whole cycle on a tiny random model, with the interpreters that the service uses.

For the installer: a release that cannot run a cycle here is not activated, nor one whose libraries compute another loss
than the tested ones (``worker.known_loss``). Covered: both environments, the wire between them, training, measuring,
saving. Not covered: the operator's model and the GPU; for these there is ``sleepctl doctor``.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec

from .clock import SystemClock
from .config.buffer_config import BufferConfig
from .config.layers import load
from .config.schema import Config, ControlConfig, StateConfig
from .config.worker_config import WorkerConfig
from .cycle import State
from .cycles.composition import Parts
from .cycles.running.planning import Order
from .cycles.sleeper import Sleeper
from .errors import SleepdError, WorkerFailed
from .files import make_directory, replace_file
from .host import worker_python
from .log import configure
from .store.split_secret import BYTES, FILE_NAME
from .store.sqlite.ledger_rows import CycleRecord
from .text.display import clean

EXPERIENCES = 12
SECRET = b"selftest 429".ljust(BYTES, b".")
"""The same experiences are held out in every self-test: three of the twelve."""
OTHER_LOSS = 3
"""The exit status of ``known_loss`` where a library computes something else; the same number stands there."""
_MODEL_SECONDS = 300.0
"""torch takes half a minute to import from a cold disk, and longer on a small board."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Sleep once in a directory that is removed afterwards; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m sleepd.selftest", description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, help="the operator's configuration, for worker.python")
    given = parser.parse_args(arguments)
    configure("error")
    try:
        configured = load(given.config, environment=os.environ).config
        with tempfile.TemporaryDirectory(prefix="sage-sleepd-selftest-") as directory:
            end = _sleep_in(Path(directory), configured.worker.python)
    except SleepdError as error:
        sys.stderr.write(f"selftest: {clean(error.message)}\nhint: {clean(error.hint)}\n")
        return error.exit_code
    sys.stdout.write(f"a cycle on a tiny model: {end.trained} trained, {end.held_out} held out, {end.state}\n")
    return 0


def _sleep_in(directory: Path, configured_python: str) -> CycleRecord:
    model = directory / "model"
    _make_model(model, worker_python(configured_python))
    records = [
        {"prompt": f"What is rule {n}?", "response": f"Rule {n} is to keep it in order.", "salience": 0.8}
        for n in range(EXPERIENCES)
    ]
    (directory / "buffer.json").write_bytes(msgspec.json.encode(records))
    config = Config(
        buffer=BufferConfig(path=str(directory / "buffer.json")),
        # One thread: on so small a model two only wait for each other, and for long on a busy machine.
        worker=WorkerConfig(python=configured_python, device="cpu", gpu_lock="", threads=1),
        state=StateConfig(directory=str(directory / "state"), min_free_megabytes=0),
        control=ControlConfig(socket=str(directory / "socket")),
    )
    make_directory(directory / "state")
    replace_file(directory / "state" / FILE_NAME, SECRET, mode=0o600)
    config = msgspec.structs.replace(config, model=msgspec.structs.replace(config.model, base=str(model)))
    end = asyncio.run(_sleep(config))
    if end.state not in (State.PROMOTED, State.REJECTED, State.INCONCLUSIVE):
        raise WorkerFailed(f"the cycle ended as {end.state}: {end.reason}", hint=end.hint)
    return end


def _make_model(directory: Path, python: str) -> None:
    command = [python, "-P", "-m", "sleepd.worker.programs.known_loss", str(directory)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_MODEL_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise WorkerFailed(f"the worker's interpreter cannot be used: {error}", hint=f"try: {python} -V") from error
    last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
    if done.returncode == OTHER_LOSS:
        raise WorkerFailed(
            f"{python}: its libraries compute another loss than the tested versions: {last}",
            hint=f"take the versions of config/requirements/worker.txt; which are there: {python} -m pip list",
        )
    if done.returncode:
        raise WorkerFailed(
            f"{python}: a model cannot be made: {last}",
            hint="it needs torch, transformers, peft and the same sage-sleepd; see worker.python",
        )


async def _sleep(config: Config) -> CycleRecord:
    sleeper = Sleeper(Parts(config, clock=SystemClock(), listener=lambda _event, _fields: None))
    try:
        await sleeper.begin(Order(force=True))
        end = await sleeper.finished()
    finally:
        await sleeper.end_cycle()
        sleeper.close()
    assert end is not None
    return end


if __name__ == "__main__":
    sys.exit(main())
