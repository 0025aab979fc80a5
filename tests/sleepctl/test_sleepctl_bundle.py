"""``sleepctl bundle``: what the command says, and its exit codes."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from sleepd.protocol.checkpoint.base_identity import in_quantization
from sleepd.sleepctl.__main__ import main
from sleepd.version import VERSION
from tests.bundle_makers import BASE, allow, make_cycle, make_key
from tests.kept import kept
from tests.sleepctl.sleepctl_ran import Ran

Bundle = Callable[..., Ran]


@pytest.fixture
def bundle(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Bundle:
    """The command, with a key whose owner is called thor, and one promoted cycle that is in use."""
    make_cycle(tmp_path / "state")
    (tmp_path / "state/current").symlink_to("cycle_007")
    monkeypatch.setenv("SLEEPD_BUNDLE_KEY", str(tmp_path / "key"))
    monkeypatch.setenv("SLEEPD_BUNDLE_ALLOWED_SIGNERS", allow(tmp_path / "signers", thor=make_key(tmp_path / "key")))
    monkeypatch.setenv("SLEEPD_STATE_DIRECTORY", str(tmp_path / "state"))

    def run(*arguments: str | Path) -> Ran:
        code = main(["bundle", *map(str, arguments)])
        said = capsys.readouterr()
        return Ran(code, said.out, said.err)

    return run


def test_bundle_goes_and_comes(bundle: Bundle, tmp_path: Path) -> None:
    """The champion is exported, shown, imported, listed and removed; the page is kept word by word."""
    file = tmp_path / "out.bundle"
    done = [
        bundle("export", "--to", file),
        bundle("show", file),
        bundle("import", file),
        bundle("list"),
        bundle("remove", next((tmp_path / "state/foreign").glob("[0-9a-f]*")).name[:12]),
        bundle("list"),
    ]
    assert [each.code for each in done] == [0] * 6
    assert done[1].out == kept("bundle", done[1].out, id=done[1].out.split()[1], version=VERSION)
    assert "from:thor  cycle 7  gain there 0.410, not measured here" in done[3].out
    assert done[5].out == "no bundle was imported\n"


def test_packed_base_is_shown(bundle: Bundle, tmp_path: Path) -> None:
    """The base of a bundle is shown with what it was quantised to."""
    make_cycle(tmp_path / "state", 8, base=in_quantization(BASE, "nf4"))
    bundle("export", 8, "--to", tmp_path / "out")
    assert "base aaaaaaaaaaaa:nf4+bbbbbbbbbbbb" in bundle("show", tmp_path / "out").out


def test_nothing_is_overwritten(bundle: Bundle, tmp_path: Path) -> None:
    """A file that is there stays as it is."""
    (tmp_path / "there").write_text("mine")
    refused = bundle("export", "--to", tmp_path / "there")
    assert (refused.code, (tmp_path / "there").read_text()) == (2, "mine")


def test_second_import_is_nothing_to_do(bundle: Bundle, tmp_path: Path) -> None:
    """A bundle that is here already is exit code 5, and an unknown id is exit code 4."""
    bundle("export", 7, "--to", tmp_path / "out")
    assert bundle("import", tmp_path / "out").code == 0
    assert bundle("import", tmp_path / "out").code == 5
    assert bundle("remove", "ffff").code == 4


def test_missing_files_are_named(bundle: Bundle, tmp_path: Path) -> None:
    """A file or a folder that is not there is named, and the hint is about its name and not about the disk."""
    for command in (("show", tmp_path / "missing"), ("export", "--to", tmp_path / "missing" / "out")):
        refused = bundle(*command)
        assert (refused.code, "missing: No such file" in refused.err) == (4, True)
        assert f"ls -l {tmp_path}\n" in refused.err
        assert "df -h" not in refused.err
    assert bundle("export", 9, "--to", tmp_path / "out").code == 4


def test_full_disk_is_told_apart(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only where the disk is full the hint is about space; a folder in place of a file is no matter of space."""
    assert "ls -ld" in bundle("show", tmp_path).err

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("sleepd.sleepctl.commands.adapters.bundle_commands.write_bundle", full)
    assert f"df -h {tmp_path}\n" in bundle("export", "--to", tmp_path / "out").err


def test_other_users_state_is_not_written(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who does not own the state directory is told as whom to import; even root would leave files of its own there."""
    bundle("export", "--to", tmp_path / "out")
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    refused = bundle("import", tmp_path / "out")
    assert (refused.code, "sudo -u" in refused.err) == (8, True)
    assert not (tmp_path / "state/foreign").exists()
