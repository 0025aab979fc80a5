"""``python -m tests.gpu SECONDS [STEP …]``: the steps, each in a fork of its own, and a table of what they found.

``python -m tests.gpu --step STEP [ARGUMENT …]`` runs one. ``run.sh`` starts it with a limit of time.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import signal
import sys
import time
import traceback
from dataclasses import dataclass, field

from sleepd.worker.environment import prepare_environment

from .shared import IS_CPU, OUT, WORK, note, row

NO_CUDNN = {"TORCH_CUDNN_SDPA_DEPRIORITIZED": "1"}
DETERMINISTIC = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
LEAST_SECONDS = 12.0
"""With fewer left no step begins."""


@dataclass(frozen=True)
class Planned:
    """One step of the plan."""

    most_seconds: float
    module: str
    command: tuple[str, ...]
    """The step and its arguments."""
    environment: dict[str, str] = field(default_factory=dict)


PLAN = [
    Planned(40, "steps_machine", ("machine",)),
    Planned(60, "steps_machine", ("bases", "small", "0.5B")),
    Planned(45, "steps_machine", ("attention",)),
    Planned(140, "steps_cycle", ("cycle", "0.5B")),
    Planned(40, "steps_cycle", ("resume",)),
    Planned(40, "steps_cycle", ("resume", "deterministic"), DETERMINISTIC),
    Planned(25, "steps_cycle", ("cpubox",)),
    *(Planned(30, "steps_cycle", ("oom", spare)) for spare in (("300", "150", "40") if IS_CPU else ("3", "1", "0.3"))),
    Planned(60, "steps_speed", ("speed", "0.5B")),
    Planned(60, "steps_speed", ("speed", "7B")),
    Planned(40, "steps_speed", ("generate",)),
    Planned(40, "steps_cycle", ("stop",)),
    Planned(140, "steps_cycle", ("cycle", "1.5B")),
    Planned(40, "steps_cycle", ("pair",)),
    Planned(90, "steps_cycle", ("cycle", "0.5B", "no-cudnn"), NO_CUDNN),
    Planned(30, "steps_speed", ("speed", "1.5B")),
    Planned(40, "steps_speed", ("compiled",)),
    Planned(60, "steps_machine", ("bases", "7B")),
    Planned(70, "steps_speed", ("load", "7B")),
    Planned(60, "steps_speed", ("qlora", "7B")),
]
"""In order of value: what does not fit into the time is left out from the end."""


def main() -> int:
    """Run the plan, or one step of it."""
    prepare_environment()
    parser = argparse.ArgumentParser(prog="python -m tests.gpu", description=__doc__.splitlines()[0])
    parser.add_argument("--step", action="store_true", help="the arguments are one step and its own arguments")
    parser.add_argument("words", nargs="+", metavar="SECONDS [STEP …]")
    given = parser.parse_args()
    for directory in (OUT, WORK):
        directory.mkdir(parents=True, exist_ok=True)
    if given.step:
        return _one(given.words)
    return _all(float(given.words[0]), set(given.words[1:]))


def _all(seconds: float, only: set[str]) -> int:
    if unknown := only - {one.command[0] for one in PLAN}:
        sys.exit(f"no step is called {', '.join(sorted(unknown))}")
    began, failed = time.monotonic(), 0
    _preload()
    row("imports", f"{time.monotonic() - began:.0f} s")
    for one in PLAN:
        if only and one.command[0] not in only:
            continue
        name, left = " ".join(one.command), seconds - (time.monotonic() - began)
        if left < LEAST_SECONDS:
            row(name, f"not begun: {left:.0f} s were left")
            continue
        print(f"=== {name} (at {time.monotonic() - began:.0f} s)", flush=True)
        started = time.monotonic()
        status = _in_fork(one, min(one.most_seconds, left - 5))
        failed += status != 0
        ended = "CUT at its limit" if status == -signal.SIGKILL else f"exit {status}"
        row(f"  ({name})", f"{time.monotonic() - started:.0f} s, {ended}")
    return int(failed > 0)


def _preload() -> None:
    """Import what takes long once, for all steps, without touching the GPU: a fork could not use it then."""
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"
    for module in ("torch", "peft", "transformers.models.qwen2.modeling_qwen2", "sleepd.worker.run"):
        importlib.import_module(module)
    del os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"]


def _in_fork(one: Planned, most: float) -> int:
    """Its exit code; that of SIGKILL where it took too long."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.setpgid(0, 0)
            os.environ.update(one.environment)
            status = _one(list(one.command))
        finally:
            sys.stdout.flush()
            os._exit(status)
    ends = time.monotonic() + most * (10 if IS_CPU else 1)
    while time.monotonic() < ends:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _one(command: list[str]) -> int:
    name, *arguments = command
    module = next((one.module for one in PLAN if one.command[0] == name), None)
    if module is None:
        sys.exit(f"no step is called {name}")
    try:
        getattr(importlib.import_module(f"tests.gpu.{module}"), name)(*arguments)
    except Exception as error:  # noqa: BLE001 - the next step is to run
        traceback.print_exc()
        note(name, arguments=arguments, error=traceback.format_exc())
        row(" ".join(command), f"ERROR {type(error).__name__}: {(str(error).splitlines() or [''])[0][:150]}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
