"""Tests of who may ask for what."""

from __future__ import annotations

import os
from typing import Any

import pytest

from sleepd.config.schema import Config
from sleepd.daemon.control_socket import Peer
from sleepd.daemon.requests import is_operator, needs_operator
from sleepd.errors import UsageError
from sleepd.protocol.control import (
    MOST_ENTRIES,
    AnyRequest,
    Buffer,
    Cancel,
    Check,
    Experiences,
    GetStatus,
    GivenThresholds,
    History,
    Judge,
    Pause,
    Quarantine,
    QuarantineDecide,
    QuarantineShow,
    Reload,
    Resume,
    Rollback,
    Run,
    Show,
    Why,
    decode_request,
    encode,
)


@pytest.mark.parametrize(
    ("request_", "needs"),
    [
        (GetStatus(), False),
        (Check(), False),
        (Check(thresholds=GivenThresholds(min_experiences=1)), False),
        (History(), False),
        (Show(cycle=1), False),
        (Experiences(cycle=1), False),
        (Why(), False),
        (Buffer(), False),
        (Run(), False),
        (Run(wait=True), False),
        (Run(thresholds=GivenThresholds(min_experiences=9, min_hours_between_sleep=7.0)), False),
        (Run(thresholds=GivenThresholds(min_experiences=1)), True),
        (Run(thresholds=GivenThresholds(min_salience=0.1)), True),
        (Run(force=True), True),
        (Run(epochs=9), True),
        (Run(learning_rate=1e-3), True),
        (Run(max_experiences=3), True),
        (Run(strategy="gentle"), True),
        (Cancel(), True),
        (Judge(bundle="ab12"), True),
        (Pause(), True),
        (Resume(), True),
        (Rollback(), True),
        (Quarantine(), False),
        (QuarantineShow(id="a"), True),
        (QuarantineDecide(ids=["a"], decision="release"), True),
        (Reload(), True),
    ],
)
def test_what_needs_the_operator(request_: AnyRequest, needs: bool) -> None:
    """Looking, and sleeping when due on the configured terms, is free; all else is the operator's."""
    assert needs_operator(request_, Config()) is needs


def test_who_is_an_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    """Root, the daemon's own user and the group's members are; others, and users without a name, are not."""
    monkeypatch.setattr(os, "getuid", lambda: 990)
    monkeypatch.setattr(os, "getgrouplist", lambda name, gid: [gid, 5] if name == "daemon" else [gid])

    def peer(uid: int, gid: int = 100) -> Peer:
        return Peer(pid=1, uid=uid, gid=gid)

    assert is_operator(peer(0), "tty")
    assert is_operator(peer(990), "tty")
    assert is_operator(peer(1), "tty")  # "daemon", whom the fake list above puts into tty (5)
    assert not is_operator(peer(2), "tty")
    assert not is_operator(peer(4242), "tty")
    assert is_operator(peer(4242, gid=5), "tty")
    assert not is_operator(peer(1), "no-such-group")


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"epochs": 0}, "epochs: expected 1 to 1000, found 0"),
        ({"learning_rate": -1.0}, "learning_rate: expected 1e-08 to 1, found -1"),
        ({"learning_rate": float("nan")}, "learning_rate: expected 1e-08 to 1, found nan"),
        ({"max_experiences": 0}, "max_experiences: expected 1 to 1e+06, found 0"),
    ],
)
def test_senseless_order_is_refused(asked: dict[str, Any], words: str) -> None:
    """A request that makes no sense never exists; the error names the argument, its range and what came."""
    with pytest.raises(UsageError) as caught:
        Run(**asked)
    assert caught.value.message == words


@pytest.mark.parametrize("op", ["history", "why", "quarantine", "experiences"])
def test_list_is_bounded_when_parsed(op: str) -> None:
    """Whoever asks for 2^63 - 1 entries asks for a thousand; what was asked for in reason, or below zero, stays."""
    for asked, given in ((2**63 - 1, MOST_ENTRIES), (MOST_ENTRIES + 1, MOST_ENTRIES), (7, 7), (-1, -1)):
        request = decode_request(encode({"v": 1, "op": op, "limit": asked, "cycle": 1}))
        assert request.limit == given
