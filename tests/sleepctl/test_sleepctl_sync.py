"""``sleepctl sync``: what leaves is listed first, what came is judged by the daemon where that is asked for."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from sleepd.bundles.foreign import BundleOutcome, foreign_bundles, note_outcome
from sleepd.errors import BundleInvalid
from sleepd.protocol.control import Judge
from sleepd.protocol.status import RunResult
from tests.bundle_makers import FAKE_RCLONE, allow, make_bundle, make_cycle, make_key
from tests.sleepctl.sleepctl_fake_daemon import FakeDaemon
from tests.sleepctl.sleepctl_ran import Ran

Sleepctl = Callable[..., Ran]


@pytest.fixture
def shared(tmp_path: Path, environment: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A shared directory with thor's bundle, and a machine of its own that trusts thor and has a champion."""
    directory = tmp_path / "shared"
    directory.mkdir()
    make_cycle(tmp_path / "there", 41, ids=("theirs",))
    signers = allow(tmp_path / "signers", thor=make_key(tmp_path / "thor"))
    make_bundle(tmp_path / "there", directory / "any name", tmp_path / "thor", 41)
    make_cycle(tmp_path / "state")
    (tmp_path / "state/current").symlink_to("cycle_007")
    make_key(tmp_path / "own")
    settings = {"BUNDLE_KEY": tmp_path / "own", "BUNDLE_ALLOWED_SIGNERS": signers, "SYNC_DIRECTORY": directory}
    settings |= {"SYNC_NAME": "sprout", "STATE_DIRECTORY": tmp_path / "state"}
    for name, value in settings.items():
        monkeypatch.setenv(f"SLEEPD_{name}", str(value))
    return directory


def test_dry_run_lists_what_leaves(sleepctl: Sleepctl, shared: Path, tmp_path: Path) -> None:
    """Every member that would leave is named with its size; nothing is written anywhere."""
    before = sorted(tmp_path.rglob("*"))
    planned = sleepctl("sync", "--dry-run", "--json").json
    assert (planned["is_dry_run"], planned["received"]) == (True, [str(shared / "any name")])
    assert list(planned["sent_members"]) == [
        "adapter_config.json", "adapter_model.safetensors", "manifest.json", "evidence.json", "lineage_hashes.json",
    ]  # fmt: skip
    assert sorted(tmp_path.rglob("*")) == before


def test_one_round_sends_and_receives(sleepctl: Sleepctl, shared: Path) -> None:
    """A round does what the dry run has listed, under the same name; the policy offer has nothing judged."""
    planned = sleepctl("sync", "--dry-run", "--json").json
    done = sleepctl("sync", "--once", "--json").json
    assert done["sent"] == planned["sent"]
    assert (len(done["received"]), done["judging"]) == (1, None)
    assert Path(done["sent"]).parent == shared
    again = sleepctl("sync", "--once")
    assert (again.code, again.out) == (0, "")


def test_take_has_it_judged(
    sleepctl: Sleepctl, shared: Path, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the policy take the daemon is asked to judge what came."""
    monkeypatch.setenv("SLEEPD_SYNC_POLICY", "take")
    daemon.replies[Judge] = RunResult(is_started=True, reason="Cycle 8 judges it", cycle=8)
    done = sleepctl("sync", "--once", "--json").json
    assert done["judging"] == 8


def test_unfit_one_leaves_the_turn(
    sleepctl: Sleepctl, shared: Path, daemon: FakeDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that does not fit, or whose cycle has no verdict, lets the next newest be judged; older ones wait."""
    monkeypatch.setenv("SLEEPD_SYNC_POLICY", "take")
    for cycle in (42, 43):
        make_cycle(tmp_path / "there", cycle, ids=("theirs",))
        make_bundle(tmp_path / "there", shared / str(cycle), tmp_path / "thor", cycle)
    found = {}

    def answer(request: Judge) -> RunResult | BundleInvalid:
        bundle = next(each for each in foreign_bundles(tmp_path / "state") if each.id == request.bundle)
        found[bundle.header.cycle] = tmp_path / "state/foreign" / bundle.id
        if bundle.header.cycle == 43:
            return BundleInvalid("it belongs to another base", hint="train there on this base")
        return RunResult(is_started=True, reason="judges", cycle=8)

    daemon.replies[Judge] = answer
    assert sleepctl("sync", "--once", "--json").json["judging"] == 8
    assert list(found) == [43, 42]
    assert sleepctl("sync", "--once", "--json").json["judging"] == 8
    assert list(found) == [43, 42, 41]
    waits = sleepctl("sync", "--once")
    assert (waits.out, len(re.findall(r"\bcycle 8\b", waits.err))) == ("", 2)
    note_outcome(found[42], BundleOutcome(cycle=8, outcome="promoted"))
    assert re.search(r"cycle 42 of thor\b", sleepctl("sync", "--once").err)


def test_same_refusal_is_said_once(
    sleepctl: Sleepctl, shared: Path, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bundle that cannot be judged here is asked about in each round, and why not stands in the journal once."""
    monkeypatch.setenv("SLEEPD_SYNC_POLICY", "take")
    daemon.replies[Judge] = BundleInvalid("it belongs to another base", hint="train there on this base")
    rounds = iter([None, None, KeyboardInterrupt()])

    def next_round(_: float) -> None:
        if (end := next(rounds)) is not None:
            raise end

    module = "sleepd.sleepctl.commands.adapters.sync_command"
    monkeypatch.setattr(f"{module}.time", SimpleNamespace(sleep=next_round))
    done = sleepctl("sync")
    assert done.err.count("another base") == 1
    assert sum(isinstance(each, Judge) for each in daemon.requests) == 3


def test_absent_daemon_delays_judging(sleepctl: Sleepctl, shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a daemon the bundles come and go all the same, and are judged in a later round."""
    monkeypatch.setenv("SLEEPD_SYNC_POLICY", "take")
    done = sleepctl("sync", "--once")
    assert (done.code, "is not judged now" in done.err) == (0, True)


def test_nothing_is_exchanged_unasked(sleepctl: Sleepctl, shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a directory nothing goes and nothing comes: exit code 9, so that the unit is not started again."""
    monkeypatch.setenv("SLEEPD_SYNC_DIRECTORY", "")
    refused = sleepctl("sync", "--once")
    assert (refused.code, "nothing goes, nothing comes" in refused.err) == (9, True)


def test_lost_directory_is_an_error(sleepctl: Sleepctl, shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory that is not mounted is named; it is not made."""
    monkeypatch.setenv("SLEEPD_SYNC_DIRECTORY", str(shared / "gone"))
    refused = sleepctl("sync", "--once")
    assert (refused.code, "gone: No such file" in refused.err, (shared / "gone").exists()) == (4, True, False)


def test_failed_upload_does_not_stop_what_comes(
    sleepctl: Sleepctl, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the remote takes nothing, that is said, and the others' bundles come all the same."""
    (tmp_path / "bin").mkdir()
    shutil.copy(FAKE_RCLONE, tmp_path / "bin/rclone")
    fault = tmp_path / "bin/fault"
    fault.write_text("copyto fail\n")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    monkeypatch.setenv("SLEEPD_SYNC_DIRECTORY", "")
    monkeypatch.setenv("SLEEPD_SYNC_REMOTE", f"fake:{shared}")
    done = sleepctl("sync", "--once", "--json")
    assert "connection reset" in done.err
    assert (done.json["sent"], done.json["sent_members"], len(done.json["received"])) == ("", {}, 1)
    monkeypatch.setenv("SLEEPD_SYNC_KEEP", "1")
    fault.unlink()
    sleepctl("sync", "--once")
    make_cycle(tmp_path / "state", 8)
    (tmp_path / "state/current").unlink()
    (tmp_path / "state/current").symlink_to("cycle_008")
    fault.write_text("deletefile fail\n")
    done = sleepctl("sync", "--once", "--json")
    assert ("could not remove" in done.err, "cycle_008" in done.json["sent"]) == (True, True)
