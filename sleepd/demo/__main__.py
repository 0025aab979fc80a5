"""Plays the demo; see the package."""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from sleepd.errors import SleepdError
from sleepd.protocol.answers import RolledBack
from sleepd.protocol.control import Rollback
from sleepd.protocol.deployment.serve_messages import ServedState

from . import sample as samples
from .demo_engine import DemoEngine
from .interrupts import take_interrupts
from .one_cycle import await_served, sleep_once
from .screen import Screen, score
from .stage import Stage


def main() -> int:
    """Play it once. Returns 0 when it was played to its end, whatever the verdict."""
    options = _parser().parse_args()
    take_interrupts()
    screen = Screen(sys.stdout)
    sample = samples.load()
    directory = options.directory.absolute()
    try:
        with Stage(directory, worker_python=options.worker_python, sample=sample, is_kept=options.keep) as stage:
            if options.engine_python is None:
                _play(stage, sample, screen, None)
                _report_next_steps(stage, screen, None, is_kept=options.keep)
            else:
                with _engine(stage, options) as engine:
                    _play(stage, sample, screen, engine)
                    _report_next_steps(stage, screen, engine, is_kept=options.keep)
    except KeyboardInterrupt:
        screen.write(f"\nInterrupted; nothing is left running. What it wrote is in {directory}.")
        return 130
    except SleepdError as error:
        screen.write(f"\ndemo: {error.message}\nhint: {error.hint}\nthe daemon's log: {directory / 'daemon.log'}")
        return error.exit_code
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m sleepd.demo", description=__doc__)
    parser.add_argument("--directory", type=Path, required=True, help="where it plays; made if absent")
    parser.add_argument("--worker-python", type=Path, required=True, help="the interpreter with torch")
    parser.add_argument(
        "--engine-python", type=Path, help="the interpreter with xllamacpp: the agent asks llama.cpp's server there"
    )
    parser.add_argument("--keep", action="store_true", help="leave daemon and engine running at the end")
    return parser


def _engine(stage: Stage, options: argparse.Namespace) -> DemoEngine:
    python, worker_python = options.engine_python, options.worker_python
    engine = DemoEngine(stage.directory, python=python, worker_python=worker_python, is_kept=options.keep)
    stage.serve_with(engine.config())
    return engine


def _play(stage: Stage, sample: samples.Sample, screen: Screen, engine: DemoEngine | None) -> None:
    count = len(sample.experiences)
    screen.write(
        f"\nThe agent: {sample.agent}. It has had {count} experiences that its model, SmolLM2-135M-Instruct, cannot "
        "know of. The model is asked, the agent writes, the daemon trains the model, the model is asked again.\n"
    )
    if engine is not None:
        screen.report("engine", f"llama.cpp's server (pid {engine.pid}) answers at {engine.url}; the agent asks it")
    stage.start()
    screen.report("daemon", f"started (pid {stage.pid}), watches {stage.buffer}")
    before = _replies(stage, sample, screen, engine, None)
    cycle = sleep_once(stage, sample, screen)
    is_promoted = cycle.summary.state == "promoted"
    if engine is not None and is_promoted:
        served = await_served(stage, cycle.summary.cycle, screen)
        screen.report("engine", f"is proved to run cycle {served.served} ({_distances(served)})")
    after = _replies(stage, sample, screen, engine, Path(cycle.directory))
    screen.write()
    title = "after" if is_promoted else f"after ({cycle.summary.state}, not in use)"
    screen.compare(sample.questions, before, after, title)
    for line in score(sample.questions, before, after):
        screen.write(line)
    if engine is not None and is_promoted:
        _roll_back(stage, sample, screen, engine, before)
    screen.write(f"from the daemon's start to here: {screen.seconds} s")
    command = stage.sleepctl("status")
    screen.write()
    screen.show(f"$ {shlex.join(command)}")
    subprocess.run(command, check=False)


def _replies(
    stage: Stage, sample: samples.Sample, screen: Screen, engine: DemoEngine | None, adapter: Path | None
) -> list[str]:
    """To all questions: the engine's, or where there is none, those of the base with ``adapter``."""
    count = len(sample.questions)
    if engine is not None:
        screen.report("agent", f"asks the engine {count} questions")
        return engine.ask(sample)
    if adapter is None:
        screen.report("model", f"is unpacked (once), then asked {count} questions")
    else:
        screen.report("model", "is asked the same questions, in the same way")
    return stage.ask(adapter)


def _roll_back(stage: Stage, sample: samples.Sample, screen: Screen, engine: DemoEngine, before: Sequence[str]) -> None:
    """Put the base in use again, and ask the same server once more."""
    screen.write()
    with stage.client() as client:
        done = client.call(Rollback(cycle=0), RolledBack)
    screen.report("daemon", f"rolls back to the base: {done.serving}")
    served = await_served(stage, None, screen)
    screen.report("engine", f"is proved to run the base ({_distances(served)})")
    again = _replies(stage, sample, screen, engine, None)
    same = sum(one == other for one, other in zip(before, again, strict=True))
    screen.write(f"questions answered word for word as before the cycle: {same} of {len(again)}")


def _distances(served: ServedState) -> str:
    if served.distance is None or served.next_nearest is None:
        return "not measured"
    return f"{served.distance:.2f} nats from what was recorded; next nearest {served.next_nearest:.2f}"


def _report_next_steps(stage: Stage, screen: Screen, engine: DemoEngine | None, *, is_kept: bool) -> None:
    if is_kept:
        line = '{"prompt": "What grows by the door?", "response": "Sea kale. Lamp lit.", "salience": 0.8}'
        screen.write(
            f"\nThe daemon goes on (pid {stage.pid}) and sleeps again after two new experiences. To feed it one:"
        )
        screen.show(f"echo {shlex.quote(line)} >> {shlex.quote(str(stage.buffer))}")
        screen.write("To watch it, and to stop it:")
        screen.show(shlex.join(stage.sleepctl("status")))
        screen.show(f"kill {stage.pid}" + (f" {engine.pid}" if engine else ""))
        return
    screen.write(
        f"\nThe daemon was stopped. Its log, its configuration and the adapter are in {stage.directory}.\n"
        "To go on playing: ./install.sh try --keep. To install it: sudo ./install.sh. To be rid of all of this: "
        "remove .sleepd-try/."
    )


if __name__ == "__main__":
    sys.exit(main())
