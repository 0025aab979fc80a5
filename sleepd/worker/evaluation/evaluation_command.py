"""The operator's own evaluation: a command that gets an adapter's directory and prints a JSON object of figures.

It is started without a shell in a session of its own and in an empty directory, which is removed afterwards. Whatever
it starts is killed when it ends, also what has left its session. Its environment is small: PATH, HOME, the locale,
TMPDIR (that directory), CUDA's variables, and

- SLEEPD_ADAPTER: the adapter's directory, the last argument too; empty for the base, and then there is no argument;
- SLEEPD_BASE: the directory of the base's safetensors;
- SLEEPD_QUANTIZATION: what the base is quantised to while it is loaded, none or nf4: load it so, too;
- SLEEPD_SYSTEM_PROMPT: what the agent runs with;
- SLEEPD_CYCLE: the number of the cycle.

What it prints on stdout is one JSON object of numbers, such as {"accuracy": 0.8}. It runs beside a loaded model: on a
GPU it has what memory that leaves. A command that fails costs its figures, not the cycle.
"""

from __future__ import annotations

import contextlib
import math
import os
import selectors
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from sleepd.errors import DECODE_ERRORS
from sleepd.protocol.evidence import METRIC_NAME
from sleepd.protocol.job import Job
from sleepd.worker.model.memory.out_of_memory import free_memory

MAX_OUTPUT_BYTES = 64 * 1024
MAX_FIGURES = 64
BEAT_SECONDS = 1.0

_Name = Annotated[str, Meta(pattern=rf"^{METRIC_NAME}\Z")]
_Figures = Annotated[dict[_Name, float], Meta(max_length=MAX_FIGURES)]
_LAUNCHER = str(Path(__file__).parents[1] / "process" / "process_limits.py")
"""Runs the command, kills all that descends from it, and is itself killed by the kernel if this worker is."""
_END_SECONDS = 5.0
"""The launcher gets so long to kill what the command started."""
_KEPT_ERRORS = 2000
"""Bytes of the end of stderr."""
_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "LD_LIBRARY_PATH")


class NoFigures(Exception):
    """The command gave none, and why."""


def figures(job: Job, adapter: Path | None, base_directory: Path, report: Callable[[], None]) -> dict[str, float]:
    """What the operator's command reports about an adapter.

    Args:
        job: with the command and its most seconds.
        adapter: its directory; None: the base without one.
        base_directory: where the base's safetensors stand.
        report: the heartbeat, called every second; what it raises ends the command and is passed on.

    Raises:
        NoFigures: it could not be started, failed, took too long, or printed something else.
    """
    free_memory()  # a command that uses the same GPU has what this process does not hold
    with tempfile.TemporaryDirectory(dir=Path(job.staging, "work"), prefix="evaluation-") as directory:
        environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ} | {
            "TMPDIR": directory,
            "SLEEPD_ADAPTER": str(adapter or ""),
            "SLEEPD_BASE": str(base_directory),
            "SLEEPD_QUANTIZATION": job.quantization,
            "SLEEPD_SYSTEM_PROMPT": job.system_prompt,
            "SLEEPD_CYCLE": str(job.cycle),
        }
        try:
            command = [*shlex.split(job.evaluation_command), *([str(adapter)] if adapter else [])]
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", _LAUNCHER, str(os.getpid()), *command],
                umask=0o077,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=directory,
                env=environment,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:  # ValueError: unbalanced quotes, a zero byte
            raise NoFigures(f"it cannot be started: {error}") from error
        with _killed_at_the_end(process):
            return _parse(_output(process, job.evaluation_seconds, report))


@contextlib.contextmanager
def _killed_at_the_end(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """However it ends, nothing of what it started stays: the launcher, which inherits it all, is told to end it."""
    with process:
        try:
            yield
        finally:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.terminate()
                process.wait(_END_SECONDS)
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)


def _output(process: subprocess.Popen[bytes], seconds: float, report: Callable[[], None]) -> bytes:
    """What it printed, once it has ended well; what a child of it prints later is not waited for."""
    assert process.stdout is not None
    assert process.stderr is not None
    deadline = time.monotonic() + seconds
    out, errors = bytearray(), bytearray()
    with selectors.DefaultSelector() as ready:
        ready.register(process.stdout, selectors.EVENT_READ, out)
        ready.register(process.stderr, selectors.EVENT_READ, errors)
        has_ended = False
        while True:
            report()
            events = ready.select(0 if has_ended else BEAT_SECONDS)
            for key, _ in events:
                chunk = os.read(key.fd, MAX_OUTPUT_BYTES)
                key.data.extend(chunk)
                if not chunk:
                    ready.unregister(key.fileobj)
            del errors[:-_KEPT_ERRORS]
            if len(out) > MAX_OUTPUT_BYTES:
                raise NoFigures(f"it printed more than {MAX_OUTPUT_BYTES} bytes")
            if has_ended and not events:
                break
            if time.monotonic() > deadline:
                raise NoFigures(f"it took longer than {seconds:.0f} s")
            has_ended = _has_ended(process, 0 if ready.get_map() else BEAT_SECONDS)
    if process.returncode:
        last = (errors.decode("utf-8", "replace").strip().splitlines() or [""])[-1]
        raise NoFigures(f"exit status {process.returncode}: {last[:300]}")
    return bytes(out)


def _has_ended(process: subprocess.Popen[bytes], wait_seconds: float) -> bool:
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(wait_seconds)
    return process.returncode is not None


def _parse(output: bytes) -> dict[str, float]:
    try:
        found = msgspec.json.decode(output, type=_Figures)
    except DECODE_ERRORS as error:
        raise NoFigures(f"it printed what is no JSON object of numbers: {error}") from error
    endless = [name for name, figure in found.items() if not math.isfinite(figure)]
    if endless:
        raise NoFigures(f"{endless[0]} is not finite")
    return found
