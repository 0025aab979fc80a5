"""``python tests/faults/damaged_checkpoints.py --flips 1000``: bits flipped, files cut, links put in their place.

A state directory with three champions is made once by real cycles of a fake worker. Then, again and again, one damage
is done to a copy of the champion, and a start-up runs on it. Accepted is only what is byte for byte what was committed;
anything else must be named, and the champion before it, which is whole, must be in use.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path
from random import Random

import structlog

ROOT = Path(__file__).parents[2]
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))

from sleepd.errors import SleepdError  # noqa: E402
from sleepd.store.checkpoints import verify_usable  # noqa: E402
from tests.stages import Stage, refresh  # noqa: E402

KINDS = ("flip", "truncate", "empty", "remove", "link", "pipe", "moved", "extra")
"""``moved`` puts a link in the directory's own place; ``extra`` adds a file, which is no damage."""


def three_champions(directory: Path) -> Stage:
    """Cycles 1 to 3, each the continuation of the one before; the adapters are a few kilobytes of noise."""
    stage = Stage(directory)
    for number in (1, 2, 3):
        stage.write(12 * number)
        assert stage.sleep().state == "promoted"
        stage.clock.advance(7 * 3600)
    return stage


def damage(checkpoint: Path, kind: str, random: Random) -> str:
    """Do it to one file; returns which."""
    if kind == "moved":
        elsewhere = checkpoint.parent.parent / "elsewhere"
        checkpoint.rename(elsewhere)
        checkpoint.symlink_to(elsewhere)
        return checkpoint.name
    file = random.choice(sorted(checkpoint.iterdir()))
    content = bytearray(file.read_bytes())
    if kind == "flip":
        content[random.randrange(len(content))] ^= 1 << random.randrange(8)
        file.write_bytes(content)
    elif kind == "truncate":
        file.write_bytes(content[: random.randrange(len(content))])
    elif kind == "empty":
        file.write_bytes(b"")
    elif kind == "extra":
        (checkpoint / "notes.txt").write_text("by the owner")
    else:
        file.unlink()
        if kind == "link":
            file.symlink_to("/dev/zero")
        elif kind == "pipe":
            os.mkfifo(file)
    return file.name


def try_damage(whole: Stage, directory: Path, kind: str, random: Random) -> tuple[str, str]:
    """One damage and one start; returns the file, and what is wrong with what came of it (empty: nothing)."""
    stage = Stage(directory)
    stage.clock.wall = whole.clock.wall
    shutil.copytree(whole.state, stage.state, symlinks=True, dirs_exist_ok=True)
    shutil.copy(whole.buffer, stage.buffer)
    name = damage(stage.state / "cycle_003", kind, random)
    try:
        stage.play(refresh)
        in_use = os.readlink(stage.state / "current")
        verify_usable(stage.state / in_use)
    except (SleepdError, OSError) as error:
        return name, f"{type(error).__name__}: {error}"
    expected = "cycle_003" if kind == "extra" else "cycle_002"
    if in_use != expected and not (kind == "flip" and _says_the_same(stage, whole)):
        return name, f"{in_use} is in use, expected {expected}"
    return name, ""


def _says_the_same(stage: Stage, whole: Stage) -> bool:
    """A bit of white space in the manifest."""
    return verify_usable(stage.state / "cycle_003") == verify_usable(whole.state / "cycle_003")


def try_all(tried: int, *, seed: int) -> tuple[Counter[str], list[str]]:
    """So many damages; returns how many of each kind, and every failure."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    counted: Counter[str] = Counter()
    failures = []
    try:
        with tempfile.TemporaryDirectory(prefix="damaged-") as made:
            whole = three_champions(Path(made) / "whole")
            for number in range(tried):
                random = Random(f"{seed}:{number}")
                kind = "flip" if number % 2 else random.choice(KINDS)
                directory = Path(made) / "copy"
                directory.mkdir()
                name, fault = try_damage(whole, directory, kind, random)
                counted[kind] += 1
                if fault:
                    failures.append(f"{number} {kind} {name}: {fault}")
                shutil.rmtree(directory)
    finally:
        structlog.reset_defaults()
    return counted, failures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--flips", type=int, default=1000, help="bit flips; as many other damages beside them")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    counted, failures = try_all(2 * options.flips, seed=options.seed)
    for kind, number in counted.most_common():
        print(f"{number:>6} {kind}")
    print(f"{len(failures)} accepted or left without a whole champion")
    for failure in failures[:20]:
        print(f"    {failure}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
