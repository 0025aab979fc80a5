"""A whole cycle on the oldest libraries that pyproject.toml allows, on the newest, and on some between.

Run: python tests/faults/library_versions.py [NAME …]

Each row of ``VERSIONS`` is installed without dependencies into a folder of its own, which stands before the
environment's packages while ``python -m sleepd.selftest`` sleeps once on a tiny model. Needs a package registry.
Exit status 1: a row whose cycle did not end. torch is the environment's in every row.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

_HTTPX = ("httpx", "httpcore", "anyio", "h11", "certifi", "idna")
"""What huggingface_hub 1 needs, and the newest does not."""
VERSIONS: dict[str, tuple[str, ...]] = {
    "oldest": ("transformers==4.56.0", "peft==0.17.0", "tokenizers==0.22.0", "huggingface_hub==0.34.4"),
    "last-4": ("transformers==4.57.6", "peft==0.18.0", "tokenizers==0.22.1", "huggingface_hub==0.36.0"),
    "first-5": ("transformers==5.0.0", "peft==0.18.1", "tokenizers==0.22.2", "huggingface_hub==1.3.4", *_HTTPX),
    "installed": (),
}
"""What is installed over the environment's own packages; what is not named is the environment's."""


def main() -> int:
    """Print a line a row."""
    names = sys.argv[1:] or list(VERSIONS)
    return 1 if [name for name in names if not _sleeps_on(name)] else 0


def _sleeps_on(name: str) -> bool:
    with tempfile.TemporaryDirectory(prefix="sage-sleepd-versions-") as folder:
        if VERSIONS[name]:
            install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", folder, *VERSIONS[name]]
            subprocess.run(install, check=True, stderr=subprocess.DEVNULL)
        environment = {**os.environ, "PYTHONPATH": folder}
        command = [sys.executable, "-m", "sleepd.selftest"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
    print(
        f"{name} ({', '.join(VERSIONS[name][:2]) or 'as installed'}): {(done.stdout + done.stderr).strip()}", flush=True
    )
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
