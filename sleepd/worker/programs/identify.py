"""Who this machine is to another one that trains with it: version, code and base as one line of JSON; no torch."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import msgspec

from sleepd.protocol.checkpoint.base_identity import in_quantization
from sleepd.protocol.remote_job import MachineIdentity
from sleepd.version import VERSION
from sleepd.worker.code_fingerprint import own_files_digest
from sleepd.worker.environment import prepare_environment
from sleepd.worker.failure import GiveUp
from sleepd.worker.model.find_base import find_base, fingerprint


def main() -> int:
    """Print it; returns 0 also where the base is unusable, for that is an answer."""
    parser = argparse.ArgumentParser(
        prog="python -m sleepd.worker.programs.identify", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--base", required=True)
    parser.add_argument("--cache", default="", help="the hub cache; empty: the library's default place")
    parser.add_argument("--models", type=Path, required=True, help="where fingerprints are remembered")
    parser.add_argument("--quantization", choices=("none", "nf4"), default="none")
    given = parser.parse_args()
    prepare_environment()
    found = MachineIdentity(version=VERSION, code=own_files_digest(), **_base(given))
    sys.stdout.write(msgspec.json.encode(found).decode() + "\n")
    return 0


def _base(given: argparse.Namespace) -> dict[str, Any]:
    try:
        base = find_base(given.base, given.cache)
        given.models.mkdir(mode=0o750, parents=True, exist_ok=True)
        return {"base": in_quantization(fingerprint(base, given.models), given.quantization)}
    except GiveUp as error:
        return {"base_problem": error.message, "base_hint": error.hint}
    except (ImportError, OSError) as error:
        return {"base_problem": f"{given.base}: {error}", "base_hint": "see model.base and who may read it"}


if __name__ == "__main__":
    sys.exit(main())
