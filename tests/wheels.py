"""The wheel of this checkout."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def build_wheel(directory: Path) -> Path:
    """Build it below a directory, from a copy of what it is made of, which leaves nothing in the checkout."""
    source = directory / "source"
    shutil.copytree(ROOT / "sleepd", source / "sleepd", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-input", "--quiet"]
    subprocess.run([*command, "--wheel-dir", str(directory), str(source)], check=True, capture_output=True)
    (wheel,) = directory.glob("*.whl")
    return wheel
