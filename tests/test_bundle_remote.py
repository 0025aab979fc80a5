"""Bundles through a remote of rclone: what goes and comes, every step cut, and what is not fetched."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest

from sleepd.bundles import rclone
from sleepd.bundles.foreign import find_foreign, foreign_bundles, remove_foreign
from sleepd.errors import ConfigError, RemoteFailed
from tests.bundle_makers import FAKE_RCLONE, MADE_AT, Machine, allow, make_cycle


class Line:
    """Thor and sprout, who trust each other, and a remote between them."""

    def __init__(self, home: Path, remote: str, shared: Path) -> None:
        self.home = home
        self.shared = shared
        self.thor, self.sprout = (Machine(home, name, shared, remote=remote) for name in ("thor", "sprout"))
        allow(self.thor.signers, sprout=self.sprout.public)
        allow(self.sprout.signers, thor=self.thor.public)

    def breaks(self, step: str, how: str) -> None:
        """From now on this command of rclone goes wrong."""
        (self.home / "bin/fault").write_text(f"{step} {how}\n")

    def file(self, place: Path) -> Path:
        """Where the remote keeps what went up."""
        return self.shared / place.name

    def mends(self) -> None:
        """Rclone is whole again."""
        (self.home / "bin/fault").unlink()

    def calls(self, verb: str) -> list[str]:
        """What rclone was asked, of one command."""
        asked = (self.home / "bin/calls").read_text().splitlines()
        return [each for each in asked if each.startswith(verb)]

    def round(self) -> str:
        """One round at both ends; returns what went wrong."""
        said = []
        for machine in (self.thor, self.sprout):
            try:
                outgoing = machine.sync.outgoing(7) if machine is self.thor else None
                if outgoing:
                    machine.sync.send(outgoing)
                    machine.sync.remove_old()
            except RemoteFailed as error:
                said.append(error.message)
                assert error.hint
            try:
                machine.receive()
            except RemoteFailed as error:
                said.append(error.message)
                assert error.hint
        said += self.sprout.notes
        self.sprout.notes.clear()
        return "; ".join(said)


@pytest.fixture
def line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Line:
    """A remote that a program in place of rclone carries."""
    (tmp_path / "bin").mkdir()
    shutil.copy(FAKE_RCLONE, tmp_path / "bin/rclone")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    return Line(tmp_path, f"fake:{tmp_path / 'shared'}", tmp_path / "shared")


def test_remote_carries_a_champion(line: Line) -> None:
    """The first upload makes the folder; what thor promotes is sprout's candidate, and the next round moves nothing."""
    assert line.sprout.receive() == []
    path = line.thor.promote(7)
    assert [each.name for each in line.shared.iterdir()] == [path.name]
    assert line.sprout.receive() == ["thor"]
    uploads, reads = len(line.calls("copyto")), len(line.calls("cat"))
    assert (line.thor.sync.outgoing(7), line.thor.receive(), line.sprout.receive()) == (None, [], [])
    assert (len(line.calls("copyto")), len(line.calls("cat"))) == (uploads, reads)
    assert not list((line.sprout.state / "sync").iterdir())


@pytest.mark.parametrize(
    ("step", "how", "said"),
    [
        ("lsjson", "fail", r"could not list fake:\S*shared: .*connection reset"),
        ("lsjson", "garbage", "not understood"),
        ("cat", "fail", r"could not read .*connection reset"),
        ("cat", "cut", r"\d+ of \d+ bytes have come: .*connection reset"),
        ("copyto", "fail", r"could not write .*connection reset"),
        ("copyto", "cut", r"could not write .*connection reset"),
        ("copyto", "hang", r"did not end within 0\.2 s"),
        ("moveto", "fail", r"could not rename .*connection reset"),
    ],
)
def test_cut_step_is_made_good(line: Line, step: str, how: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever step fails says so with a next step, and the round after it has the bundle through, once and whole."""
    make_cycle(line.thor.state, 7, ids=("thor",))
    line.breaks(step, how)
    with monkeypatch.context() as context:
        if how == "hang":
            context.setattr(rclone, "_LARGE_SECONDS", 0.2)
        assert re.search(said, line.round())
    assert not foreign_bundles(line.sprout.state)
    line.mends()
    assert line.round() == ""
    (came,) = foreign_bundles(line.sprout.state)
    assert came.header.cycle == 7
    assert [each.suffix for each in line.shared.iterdir()] == [".sagebundle"]
    assert not [each for machine in (line.thor, line.sprout) for each in (machine.state / "sync").glob("*")]


def test_cut_download_goes_on(line: Line) -> None:
    """After a cut the rest is asked for from where it stopped, in the same round and in the next one."""
    line.thor.promote(7)
    line.breaks("cat", "cut")
    assert line.sprout.receive() == []
    line.mends()
    line.sprout.restarted()
    assert line.sprout.receive() == ["thor"]
    offsets = [int(each) for call in line.calls("cat") for each in re.findall("offset=([0-9]+)", call)]
    assert offsets == [0, 1000, 2000, 3000]


def test_changed_file_begins_anew(line: Line) -> None:
    """What had come of a file that changed since is not put before what comes of the new one."""
    path = line.file(line.thor.promote(7))
    content = path.read_bytes()
    path.write_bytes(content[:4096] + bytes(len(content) - 4096))
    line.breaks("cat", "cut")
    assert (line.sprout.receive(), line.sprout.receive()) == ([], [])
    (part,) = (line.sprout.state / "sync").iterdir()
    assert part.read_bytes()[4096:] == bytes(6000 - 4096)
    line.mends()
    path.write_bytes(content)
    assert line.sprout.receive() == ["thor"]


def test_others_are_not_fetched(line: Line, tmp_path: Path) -> None:
    """Of a stranger's bundle and of one that has not come whole, no more than the beginning is read."""
    path = line.file(line.thor.promote(7))
    path.write_bytes(path.read_bytes()[:-1])
    Machine(tmp_path, "loki", line.shared, remote=line.thor.remote).promote(7)
    (line.shared / "notes.txt").write_text("hello")
    assert (line.sprout.receive(), line.sprout.receive()) == ([], [])
    assert len(line.sprout.notes) == 2
    assert any("no allowed signer" in each for each in line.sprout.notes)
    assert any("the whole bundle has" in each for each in line.sprout.notes)
    assert not [each for each in line.calls("cat") if "--offset" in each]


def test_known_content_is_known_under_any_name(line: Line) -> None:
    """A conflicted copy, another name and an old one that is replayed bring nothing twice, and nothing of one's own."""
    path = line.file(line.thor.promote(7))
    shutil.copy(path, path.with_name("thor (conflicted copy 2026-11-28).sagebundle"))
    assert line.sprout.receive() == ["thor"]
    path.rename(path.with_name("whatever"))
    remove_foreign(find_foreign(line.sprout.state, foreign_bundles(line.sprout.state)[0].id))
    assert (line.sprout.restarted().receive(at=MADE_AT), line.thor.restarted().receive(at=MADE_AT)) == ([], [])


def test_own_old_ones_leave_the_remote(line: Line) -> None:
    """Of one's own bundles the newest stay, and what a cut upload of an older champion left is removed."""
    line.sprout.promote(1)
    line.thor.restarted(keep=1)
    line.thor.promote(7)
    line.breaks("moveto", "fail")
    with pytest.raises(RemoteFailed):
        line.thor.promote(8)
    line.mends()
    line.thor.promote(9)
    names = [each.name.split("-")[:2] for each in line.shared.iterdir()]
    assert sorted(names) == [["sprout", "cycle_001"], ["thor", "cycle_009"]]
    line.breaks("deletefile", "fail")
    with pytest.raises(RemoteFailed, match="could not remove"):
        line.thor.promote(10)
    assert line.thor.sync.outgoing(10) is None


def test_dead_line_ends_the_round(line: Line) -> None:
    """One file that cannot be read is noted and the others are looked at; after the third the round ends."""
    for cycle in (6, 7, 8):
        line.thor.promote(cycle)
    line.breaks("cat", "fail")
    with pytest.raises(RemoteFailed):
        line.sprout.receive()
    assert len(line.sprout.notes) == 2


def test_huge_list_is_refused(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with more files than anybody lists for bundles is no folder for bundles; parts of what is gone go."""
    path = line.file(line.thor.promote(7))
    line.breaks("cat", "cut")
    assert line.sprout.receive() == []
    line.mends()
    path.unlink()
    line.thor.promote(8)
    assert line.sprout.receive() == ["thor"]
    assert not list((line.sprout.state / "sync").iterdir())
    monkeypatch.setattr(rclone, "_MOST_LISTED_BYTES", 10)
    with pytest.raises(RemoteFailed, match="more than 10 bytes") as refused:
        line.sprout.receive()
    assert "a folder for bundles alone" in refused.value.hint


def test_rclone_is_needed(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the program, and with a configuration that others may read, the operator is told what to do."""
    config = line.sprout.state / "rclone.conf"
    config.write_text("[dropbox]\n")
    config.chmod(0o644)
    with pytest.raises(ConfigError, match="found mode 644"):
        line.sprout.receive()
    config.chmod(0o600)
    assert line.sprout.receive() == []
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(ConfigError, match="not installed") as refused:
        line.sprout.receive()
    assert "apt install rclone" in refused.value.hint


@contextmanager
def served(shared: Path) -> Iterator[str]:
    """A WebDAV server of rclone itself on the loopback; its remote."""
    command = ["rclone", "serve", "webdav", "--addr", "127.0.0.1:0", "--config", "/dev/null", str(shared)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stderr is not None
            address = next(found[1] for text in server.stderr if (found := re.search(r"http://([0-9.:]+)/", text)))
            yield f":webdav,url='http://{address}':bundles"
        finally:
            server.terminate()


@pytest.mark.skipif(shutil.which("rclone") is None, reason="RCLONE TESTS NOT RUN: apt install rclone")
@pytest.mark.parametrize("kind", ["local", "webdav"])
def test_real_rclone_carries(tmp_path: Path, kind: str) -> None:
    """The program itself, over a folder and over WebDAV: up, down, by content, and nothing twice."""
    shared = tmp_path / "shared"
    shared.mkdir()
    with served(shared) if kind == "webdav" else nullcontext(f":local:{shared / 'bundles'}") as remote:
        line = Line(tmp_path, remote, shared / "bundles")
        assert line.sprout.receive() == []
        line.thor.promote(7)
        assert line.sprout.receive() == ["thor"]
        line.thor.restarted(keep=1)
        line.thor.promote(8)
        assert [each.name.split("-")[1] for each in line.shared.iterdir()] == ["cycle_008"]
        assert line.sprout.receive() == ["thor"]
