"""The code's fingerprint covers every file that a worker imports, wherever it stands."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import sleepd
from sleepd.worker.code_fingerprint import code_fingerprint, fingerprinted_files

pytestmark = pytest.mark.worker

PACKAGE = Path(sleepd.__file__).parent
_IMPORT_ALL = """
import gc
gc.disable()
import json, pkgutil, sys
import sleepd.worker.__main__
import sleepd.worker
for module in pkgutil.walk_packages(sleepd.worker.__path__, "sleepd.worker."):
    if not module.name.endswith("__main__"):
        __import__(module.name)
print(json.dumps([module.__file__ for name, module in sys.modules.items() if name.split(".")[0] == "sleepd"]))
"""


@pytest.fixture(scope="module")
def imported() -> list[Path]:
    """The files of ours that a worker has imported once all of its modules are loaded."""
    done = subprocess.run([sys.executable, "-c", _IMPORT_ALL], capture_output=True, text=True, check=True)
    return [Path(name) for name in json.loads(done.stdout)]


def test_every_imported_file_counts(imported: list[Path]) -> None:
    """No module that a worker imports is missing among the fingerprinted files, nor is a list of words."""
    files = set(fingerprinted_files())
    assert len(imported) > 50
    assert set(imported) <= files
    assert set((PACKAGE / "worker").rglob("*.toml")) <= files


def test_an_edit_anywhere_changes_it(imported: list[Path], tmp_path: Path) -> None:
    """One byte more in a file of any folder gives another fingerprint, and taking it back gives the first again."""
    copy = tmp_path / "sleepd"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    before = code_fingerprint(copy)
    assert before == code_fingerprint(PACKAGE)
    one_of_each_folder = {file.parent: file for file in imported}.values()
    for file in one_of_each_folder:
        edited = copy / file.relative_to(PACKAGE)
        content = edited.read_bytes()
        edited.write_bytes(content + b"\n")
        assert code_fingerprint(copy) != before, f"an edit of {file.relative_to(PACKAGE)} is missed"
        edited.write_bytes(content)
    assert code_fingerprint(copy) == before


def test_a_moved_file_changes_it(tmp_path: Path) -> None:
    """The same contents under another name are another code."""
    (tmp_path / "a.py").write_text("x = 1\n")
    before = code_fingerprint(tmp_path)
    (tmp_path / "a.py").rename(tmp_path / "b.py")
    assert code_fingerprint(tmp_path) != before
