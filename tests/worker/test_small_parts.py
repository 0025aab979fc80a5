"""The clock, the heartbeat, the shipped prompts, and what needs no torch."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from sleepd.protocol.job import Progress, decode_message
from sleepd.worker.channel import Channel
from sleepd.worker.evaluation.reference_answers import reference_prompts
from sleepd.worker.failure import DaemonGone, Stopped
from sleepd.worker.progress import Pace


def test_estimate_follows_the_pace() -> None:
    """A quarter done in ten seconds leaves thirty."""
    now = [100.0]
    pace = Pace(clock=lambda: now[0])
    pace.plan(400)
    pace.begin()
    assert pace.eta_seconds() is None
    now[0] += 10
    pace.did(100)
    assert pace.eta_seconds() == pytest.approx(30)
    pace.did(500)
    assert pace.eta_seconds() == 0


def test_loading_beats_while_the_body_blocks() -> None:
    """A body that says nothing is heard all the same, and the beat ends with it."""
    ours, theirs = socket.socketpair()
    with theirs, ours:
        with Channel(theirs).loading():
            assert decode_message(ours.makefile("rb").readline()) == Progress(phase="loading")
        theirs.shutdown(socket.SHUT_WR)
        assert ours.recv(100) == b""


def test_sigterm_ends_loading_at_once() -> None:
    """Loading has nothing to lose, so it is not waited for."""
    ours, theirs = socket.socketpair()
    before = signal.getsignal(signal.SIGTERM)
    try:
        channel = Channel(theirs)
        channel.obey_sigterm()
        with pytest.raises(Stopped):
            _load_for_long(channel)
        with pytest.raises(Stopped):
            channel.progress(Progress(phase="measuring"))
    finally:
        signal.signal(signal.SIGTERM, before)
        ours.close()
        theirs.close()


def _load_for_long(channel: Channel) -> None:
    with channel.loading():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(30)
        pytest.fail("it went on loading")


def test_closed_socket_means_daemon_gone() -> None:
    """The next message raises, and not as an OSError that a library could swallow."""
    ours, theirs = socket.socketpair()
    ours.close()
    with theirs, pytest.raises(DaemonGone):
        Channel(theirs).progress(Progress(phase="training"))


def test_repeated_notice_is_sent_once() -> None:
    """Notices are facts, not a stream."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        channel = Channel(theirs)
        channel.notice("a_fact", "text")
        channel.notice("a_fact", "text")
        theirs.shutdown(socket.SHUT_WR)
        assert len(ours.makefile("rb").readlines()) == len(channel.notices) == 1


def test_reference_prompts_suffice() -> None:
    """At least 64 to regularise on and 12 to measure with, all different."""
    regularise, probes = reference_prompts("regularise"), reference_prompts("probe")
    assert len(regularise) >= 64
    assert len(probes) >= 12
    assert len({*regularise, *probes}) == len(regularise) + len(probes)


def test_process_is_nice_without_systemd() -> None:
    """Lower priority, first for the OOM killer, no notification socket, no hub; and torch is not imported by then."""
    program = (
        "import os, sys\n"
        "import sleepd.worker.__main__\n"
        "from sleepd.worker.environment import prepare_environment\n"
        "from sleepd.worker.process.process_limits import die_with_parent, lower_priority\n"
        "die_with_parent(os.getppid()); lower_priority(); prepare_environment()\n"
        "names = [n for n in os.environ if n.startswith(('NOTIFY', 'WATCHDOG'))]\n"
        "print(os.nice(0), open('/proc/self/oom_score_adj').read().strip(), os.environ['HF_HUB_OFFLINE'], names,\n"
        "      'torch' in sys.modules)\n"
    )
    environment = {**os.environ, "NOTIFY_SOCKET": "/run/x", "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1"}
    done = subprocess.run(
        ["nice", "-n", "0", sys.executable, "-c", program], env=environment, capture_output=True, text=True
    )
    niceness, score, offline, names, has_torch = done.stdout.split()
    assert int(niceness) == min(19, os.nice(0) + 10), done.stderr
    assert (score, offline, names, has_torch) == ("900", "1", "[]", "False")


def test_orphaned_worker_leaves() -> None:
    """The parent may end before the kernel was asked to tell; then the worker ends itself."""
    program = "from sleepd.worker.process.process_limits import die_with_parent\ndie_with_parent(1 << 22)\n"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 1
    assert "the daemon ended before" in done.stderr
