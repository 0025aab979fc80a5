"""The short-lived processes end with the daemon that started them, however it ended."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sleepd.buffer.reading.reader_process import OOM_SCORE

STARTER = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-P", "-m", *sys.argv[1:]], stdin=0, stdout=1, pass_fds=(int(sys.argv[2]),))
print(child.pid, file=sys.stderr, flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize(
    ("module", "word"),
    [("sleepd.buffer.reading.reader_process", "digest"), ("sleepd.quarantine.screening_process", "600")],
    ids=["reader", "screening"],
)
def test_helper_processes_die_with_daemon(module: str, word: str, tmp_path: Path) -> None:
    """The reader and the screening, which wait for input that this test holds open, end when their parent is killed."""
    (tmp_path / "buffer.json").write_text("[]")
    theirs, ours = os.pipe()
    said, says = os.pipe()
    with open(tmp_path / "buffer.json", "rb") as buffer:
        starter = subprocess.Popen(
            [sys.executable, "-c", STARTER, module, str(buffer.fileno()), word],
            stdin=theirs,
            stdout=says,
            stderr=subprocess.PIPE,
            pass_fds=(buffer.fileno(),),
        )
    os.close(theirs)
    os.close(says)
    assert starter.stderr is not None
    number = int(starter.stderr.readline())
    child = os.pidfd_open(number)
    # The score is the last limit that it gives itself; no event tells of it.
    while int(Path(f"/proc/{number}/oom_score_adj").read_text()) != OOM_SCORE:
        assert starter.poll() is None
        time.sleep(0.01)
    starter.send_signal(signal.SIGKILL)
    starter.wait()
    assert select.select([child], [], [], 60.0)[0] == [child]
    for descriptor in (ours, said, child):
        os.close(descriptor)
    starter.stderr.close()
