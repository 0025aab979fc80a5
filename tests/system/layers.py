"""Disks of machines, kept in the checkout between runs: the slow things are made once."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

from tests.system.machine import Machine

ROOT = Path(__file__).parent.parent.parent
KEPT = ROOT / ".sleepd-test" / "system"
"""A Debian tree, the packages, and layers above the tree; a name is a kind and a digest of what it was made of."""


def made_once(directory: Path, make: Callable[[Path], None]) -> Path:
    """``directory``, made by ``make`` where it is not there or was not finished; older ones of its kind go."""
    done = directory.with_name(directory.name + ".complete")
    if not done.exists():
        kind = directory.name.rpartition("-")[0]
        for old in KEPT.glob(f"{kind}-*"):
            old.unlink() if old.is_file() else shutil.rmtree(old)
        directory.mkdir(parents=True)
        make(directory)
        done.touch()
    return directory


@contextmanager
def temporary() -> Iterator[Path]:
    """A directory beside the trees; an overlay's upper layer may not lie on another overlay, as /tmp may."""
    KEPT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="disk-", dir=KEPT, ignore_cleanup_errors=True) as directory:
        yield Path(directory)


def digest(directory: Path) -> str:
    """Of all files in it that make a difference to what is installed."""
    files = sorted(path for path in directory.rglob("*") if path.is_file() and path.suffix != ".md")
    content = b"".join(str(path.relative_to(directory)).encode() + path.read_bytes() for path in files)
    return sha256(content).hexdigest()[:8]


class Layers:
    """Makes machines, and layers for them: what a machine left on its disk, kept for the next run.

    Args:
        tree: the lowest layer.
        shown: what every machine is shown read-only.
        key: names the state of what is installed; layers of another are made anew.
    """

    def __init__(self, tree: Path, shown: dict[str, Path], key: str) -> None:
        self._tree = tree
        self._shown = shown
        self._key = key

    def machine(self, layers: Sequence[Path], scratch: Path, **also: Path) -> Machine:
        """One on these layers, the uppermost first; the tree is below them. ``also`` is shown below /srv."""
        shown = {f"/srv/{name}": path for name, path in also.items()}
        return Machine([*layers, self._tree], scratch, self._shown | shown)

    def made(self, name: str, layers: Sequence[Path], make: Callable[[Machine], None]) -> Path:
        """The layer that ``make`` leaves on a machine, once for each state of the checkout."""

        def boot_and_make(directory: Path) -> None:
            with self.machine(layers, directory) as machine:
                make(machine)
                machine.shut_down()

        return made_once(KEPT / f"{name}-{self._key}", boot_and_make) / "upper"
