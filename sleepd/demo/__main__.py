"""Plays the demo; see the package."""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from pathlib import Path

from sleepd.errors import SleepdError

from . import sample as samples
from .interrupts import take_interrupts
from .one_cycle import sleep_once
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
            _play(stage, sample, screen)
            _say_what_is_next(stage, screen, is_kept=options.keep)
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
    parser.add_argument("--keep", action="store_true", help="leave the daemon running at the end")
    return parser


def _play(stage: Stage, sample: samples.Sample, screen: Screen) -> None:
    count = len(sample.experiences)
    screen.write(
        f"\nThe agent: {sample.agent}. It has had {count} experiences that its model, SmolLM2-135M-Instruct, cannot "
        "know of. The model is asked, the agent writes, the daemon trains the model, the model is asked again.\n"
    )
    stage.start()
    screen.report("daemon", f"started (pid {stage.pid}), watches {stage.buffer}")
    screen.report("model", f"is unpacked (once), then asked {len(sample.questions)} questions")
    before = stage.ask(None)
    cycle = sleep_once(stage, sample, screen)
    screen.report("model", "is asked the same questions, in the same way")
    after = stage.ask(Path(cycle.directory))
    screen.write()
    state = cycle.summary.state
    title = "after" if state == "promoted" else f"after ({state}, not in use)"
    screen.compare(sample.questions, before, after, title)
    for line in score(sample.questions, before, after):
        screen.write(line)
    screen.write(f"from the daemon's start to here: {screen.seconds} s")
    command = stage.sleepctl("status")
    screen.write()
    screen.show(f"$ {shlex.join(command)}")
    subprocess.run(command, check=False)


def _say_what_is_next(stage: Stage, screen: Screen, *, is_kept: bool) -> None:
    if is_kept:
        line = '{"prompt": "What grows by the door?", "response": "Sea kale. Lamp lit.", "salience": 0.8}'
        screen.write(
            f"\nThe daemon goes on (pid {stage.pid}) and sleeps again after two new experiences. To feed it one:"
        )
        screen.show(f"echo {shlex.quote(line)} >> {shlex.quote(str(stage.buffer))}")
        screen.write("To watch it, and to stop it:")
        screen.show(shlex.join(stage.sleepctl("status")))
        screen.show(f"kill {stage.pid}")
        return
    screen.write(
        f"\nThe daemon was stopped. Its log, its configuration and the adapter are in {stage.directory}.\n"
        "To go on playing: ./install.sh try --keep. To install it: sudo ./install.sh. To be rid of all of this: "
        "remove .sleepd-try/."
    )


if __name__ == "__main__":
    sys.exit(main())
