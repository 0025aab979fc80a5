"""``python -m sleepd.worker.training.ranks --fd N``: how rank 0 starts another rank.

N is the inherited end of a socket pair. Exit code 0 does not occur: rank 0 kills the others once they are not needed.
1: it cannot go on, and has said why; or rank 0 is gone.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
import traceback

from sleepd.protocol.job import Failure
from sleepd.worker.channel import Channel
from sleepd.worker.environment import prepare_environment, silence_known_warnings
from sleepd.worker.failure import DaemonGone, GiveUp
from sleepd.worker.process.process_limits import die_with_parent


def main() -> int:
    """Compute shares of gradients until rank 0 ends."""
    parent = os.getppid()
    parser = argparse.ArgumentParser(prog="python -m sleepd.worker.training.ranks")
    parser.add_argument("--fd", type=int, required=True, help="inherited end of a socket pair")
    wire = socket.socket(fileno=parser.parse_args().fd)
    die_with_parent(parent)  # niceness and the OOM killer's score are rank 0's
    prepare_environment()
    silence_known_warnings()
    channel = Channel(wire)
    try:
        try:
            with channel.loading():
                from .rank_work import work
            work(channel, wire)
        except GiveUp as error:
            channel.send(error.to_failure())
        except Exception as error:  # noqa: BLE001 - the last place that can still tell rank 0 what went wrong
            traceback.print_exc()
            hint = "this is a fault of the worker; please report it with the lines in the journal"
            channel.send(Failure(kind="error", message=f"{type(error).__name__}: {error}", hint=hint))
    except DaemonGone:
        pass  # rank 0 is gone: there is nobody to tell
    return 1


if __name__ == "__main__":
    sys.exit(main())
