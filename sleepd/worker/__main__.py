"""``python -m sleepd.worker --fd N [--processes N --silence SECONDS] STAGING_DIR``: how the daemon starts a cycle.

N is the inherited end of a socket pair, STAGING_DIR holds ``work/job.json`` and ``work/experiences.jsonl``. Exit code
0: the last message says how it ended, well or not. 1: the daemon is gone, and there is nobody to tell.
"""

from __future__ import annotations

import argparse
import gc
import logging
import os
import socket
import sys
import traceback
from pathlib import Path

from sleepd.errors import ProtocolError
from sleepd.protocol.job import Failure, Hello, Report, decode_examples, decode_job
from sleepd.version import VERSION

from .channel import Channel
from .environment import prepare_environment, silence_known_warnings
from .failure import DaemonGone, GiveUp, Stopped
from .process.process_limits import die_with_parent, lower_priority


def main() -> int:
    """Run one job and send how it ended."""
    parent = os.getppid()
    parser = argparse.ArgumentParser(prog="python -m sleepd.worker", description=__doc__.splitlines()[0])
    parser.add_argument("--fd", type=int, required=True, help="inherited end of a socket pair")
    parser.add_argument("--processes", type=int, default=1, help="that train: this one, and others that it starts")
    parser.add_argument("--silence", type=float, default=300.0, help="seconds without a sign of life that are too many")
    parser.add_argument("staging", type=Path, help="the cycle's staging directory")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    die_with_parent(parent)
    lower_priority()
    prepare_environment()
    silence_known_warnings()
    with socket.socket(fileno=arguments.fd) as end:
        end.setblocking(True)
        channel = Channel(end)
        channel.obey_sigterm()
        try:
            channel.send(Hello(version=VERSION, pid=os.getpid()))
            channel.send(_outcome(channel, arguments))
        except DaemonGone:
            logging.getLogger(__name__).warning("the daemon is gone; the cycle is left as it stands")
            return 1
    return 0


def _outcome(channel: Channel, arguments: argparse.Namespace) -> Report | Failure:
    try:
        return _work(channel, arguments)
    except Stopped:
        return Failure(kind="stopped", message="stopped by SIGTERM", hint="nothing is lost; the next cycle starts anew")
    except GiveUp as error:
        return error.to_failure()
    except Exception as error:  # noqa: BLE001 - the last place that can still tell the daemon what went wrong
        return Failure(
            kind="error",
            message=f"{type(error).__name__}: {error}",
            hint="this is a fault of the worker; please report it with the traceback",
            traceback=traceback.format_exc(),
        )


def _work(channel: Channel, arguments: argparse.Namespace) -> Report:
    staging: Path = arguments.staging
    try:
        job = decode_job((staging / "work" / "job.json").read_bytes())
        examples = decode_examples((staging / "work" / "experiences.jsonl").read_bytes())
    except OSError as error:
        raise GiveUp("bad_job", f"the job cannot be read: {error}", "the daemon writes it before it starts") from error
    except ProtocolError as error:
        raise GiveUp("bad_job", error.message, error.hint) from error
    # Only now: the daemon has been greeted, and importing torch takes seconds.
    gc.disable()  # nothing that an import makes is garbage, and looking for it is a tenth of the import
    with channel.loading():
        from .run import run
        from .training.ranks.rank_messages import TeamSize
    gc.freeze()  # what the imports made stays to the end; else each collection between two phases looks through it all
    gc.enable()

    return run(job, examples, channel, TeamSize(arguments.processes, arguments.silence))


if __name__ == "__main__":
    sys.exit(main())
