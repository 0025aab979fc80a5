"""Two machines and a directory between them: what goes up, what comes down, and what is known again by its content."""

from __future__ import annotations

import errno
import io
import os
from pathlib import Path

import pytest

from sleepd.bundles.bundle_sync import BundleSync
from sleepd.bundles.contents import bundle_id
from sleepd.bundles.foreign import BundleOutcome, find_foreign, foreign_bundles, note_outcome, remove_foreign
from sleepd.config.bundle_config import BundleConfig, SyncConfig
from sleepd.errors import CheckpointInvalid
from sleepd.files import open_regular
from tests.bundle_makers import Machine, allow, make_cycle


@pytest.fixture
def machines(tmp_path: Path) -> tuple[Machine, Machine]:
    """Thor and sprout, who trust each other."""
    shared = tmp_path / "shared"
    shared.mkdir()
    thor, sprout = (Machine(tmp_path, name, shared) for name in ("thor", "sprout"))
    allow(thor.signers, sprout=sprout.public)
    allow(sprout.signers, thor=thor.public)
    return thor, sprout


def test_champion_goes_up_once(machines: tuple[Machine, Machine]) -> None:
    """What was promoted at thor comes to sprout as a candidate of thor's; the next round moves nothing."""
    thor, sprout = machines
    path = thor.promote(7)
    assert path.name.startswith("thor-cycle_007-")
    assert sprout.receive() == ["thor"]
    assert (thor.sync.outgoing(7), thor.receive(), sprout.receive()) == (None, [], [])
    assert [each.header.cycle for each in foreign_bundles(sprout.state)] == [7]


def test_both_promoted_leaves_both(machines: tuple[Machine, Machine]) -> None:
    """Both promote a cycle of the same number meanwhile: each keeps its own, and has the other's as a candidate."""
    thor, sprout = machines
    thor.promote(7)
    sprout.promote(7)
    assert (thor.receive(), sprout.receive()) == (["sprout"], ["thor"])


def test_content_is_known_again(machines: tuple[Machine, Machine]) -> None:
    """A conflicted copy, a new name and a restart bring nothing that is here, and nothing of one's own."""
    thor, sprout = machines
    path = thor.promote(7)
    (path.parent / "thor (conflicted copy 2026-11-28).sagebundle").write_bytes(path.read_bytes())
    assert sprout.receive() == ["thor"]
    path.rename(path.parent / "whatever.bin")
    sprout.restarted()
    thor.restarted()
    assert (sprout.receive(), thor.receive()) == ([], [])


def test_half_arrived_is_taken_when_whole(machines: tuple[Machine, Machine]) -> None:
    """A file that is cut off is noted once and left; once the rest has come it is taken."""
    thor, sprout = machines
    path = thor.promote(7)
    content = path.read_bytes()
    for size in (0, 100, 2000, len(content) - 1):
        path.write_bytes(content[:size])
        assert (sprout.receive(), sprout.receive()) == ([], [])
    assert len(sprout.notes) == 1
    path.write_bytes(content)
    assert sprout.receive() == ["thor"]


def test_forged_ones_are_left(machines: tuple[Machine, Machine], tmp_path: Path) -> None:
    """A stranger's bundle is noted and left; one that only begins like thor's does not keep thor's own from coming."""
    thor, sprout = machines
    Machine(tmp_path, "loki", thor.shared).promote(7)
    path = thor.promote(7)
    content = path.read_bytes()
    for name in ("a", "z"):
        (path.parent / name).write_bytes(content[: len(content) // 2] + bytes(len(content) // 2))
    assert sprout.receive() == ["thor"]
    assert len(foreign_bundles(sprout.state)) == 1
    assert any("no allowed signer" in each for each in sprout.notes)
    assert len(list(thor.shared.iterdir())) == 4


def test_other_entries_are_passed_over(machines: tuple[Machine, Machine], tmp_path: Path) -> None:
    """A link, a pipe, a hidden file, a folder and any other file are neither waited for nor taken nor removed."""
    thor, sprout = machines
    path = thor.promote(7)
    path.rename(tmp_path / "outside")
    (thor.shared / "link").symlink_to(tmp_path / "outside")
    (thor.shared / ".hidden").write_bytes((tmp_path / "outside").read_bytes())
    os.mkfifo(thor.shared / "pipe")
    (thor.shared / "folder").mkdir()
    (thor.shared / "notes.txt").write_text("hello")
    assert (sprout.receive(), sprout.notes) == ([], [])
    assert len(list(thor.shared.iterdir())) == 5


def test_unreadable_file_is_noted_once(machines: tuple[Machine, Machine], monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that this user may not read is noted once, and the others come."""
    thor, sprout = machines
    path = thor.promote(7)
    (path.parent / "a").write_bytes(b"closed")

    def refusing(file: Path) -> io.BufferedReader:
        if file.name == "a":
            raise PermissionError(errno.EACCES, "Permission denied")
        return open_regular(file)

    monkeypatch.setattr("sleepd.bundles.shelf.open_regular", refusing)
    assert (sprout.receive(), sprout.receive()) == (["thor"], [])
    assert len(sprout.notes) == 1


def test_own_old_ones_are_removed(machines: tuple[Machine, Machine]) -> None:
    """Of one's own bundles the newest stay, also under another name; those of others are never removed."""
    thor, sprout = machines
    sprout.promote(1)
    thor.restarted(keep=1)
    first = thor.promote(7)
    first.rename(first.parent / "renamed")
    second = thor.promote(8)
    assert {path.name.split("-")[0] for path in thor.shared.iterdir()} == {"sprout", second.name.split("-")[0]}
    second.unlink()
    assert thor.sync.outgoing(8) is None  # what somebody removed is not sent again


def test_received_ones_are_not_sent_on(machines: tuple[Machine, Machine]) -> None:
    """A champion that came from another machine does not go up as one's own."""
    thor, _ = machines
    (make_cycle(thor.state, 9) / "origin.json").write_text("{}")
    assert thor.sync.outgoing(9) is None


def test_removed_or_judged_ones_stay_away(machines: tuple[Machine, Machine]) -> None:
    """A bundle that was judged or removed here does not come again, however often it is replayed."""
    thor, sprout = machines
    for cycle in (7, 8):
        thor.promote(cycle)
    assert sprout.receive() == ["thor", "thor"]
    one, two = (find_foreign(sprout.state, each.id) for each in foreign_bundles(sprout.state))
    note_outcome(one, BundleOutcome(cycle=3, outcome="rejected"))
    remove_foreign(two)
    sprout.restarted()
    assert sprout.receive() == []
    (left,) = foreign_bundles(sprout.state)
    assert left.judged is not None
    assert bundle_id((one / "bundle.json").read_bytes()) == left.id


def test_cut_after_writing_sends_the_same(machines: tuple[Machine, Machine]) -> None:
    """Killed between writing and remembering, the next round writes the same bytes under the same name."""
    thor, _ = machines
    path = thor.promote(7)
    content = path.read_bytes()
    (thor.state / "sync.json").unlink()
    outgoing = thor.sync.outgoing(7)
    assert outgoing is not None
    assert thor.sync.send(outgoing) == str(path)
    assert path.read_bytes() == content
    assert len(list(thor.shared.iterdir())) == 1


def test_without_a_key_nothing_leaves(machines: tuple[Machine, Machine]) -> None:
    """A machine without a key receives and sends nothing; one that allows nobody receives nothing."""
    thor, sprout = machines
    thor.promote(7)
    make_cycle(sprout.state, 2)
    assert sprout.restarted(key="").outgoing(2) is None
    assert sprout.receive() == ["thor"]
    nobody = BundleSync(
        thor.state / "x",
        SyncConfig(directory=str(thor.shared)),
        BundleConfig(),
        find=lambda _cycle: None,
        note=print,
    )
    assert nobody.arrivals() == []


def test_damaged_memory_is_named(machines: tuple[Machine, Machine]) -> None:
    """A damaged sync.json is an error that names it; nothing is sent meanwhile."""
    thor, _ = machines
    make_cycle(thor.state, 7)
    (thor.state / "sync.json").write_text("{")
    with pytest.raises(CheckpointInvalid, match=r"sync\.json"):
        thor.sync.outgoing(7)
