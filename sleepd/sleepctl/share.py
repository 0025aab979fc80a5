"""``python -m sleepd.sleepctl.share [--remove] PREFIX``: manual pages and completions, to where programs look for them.

The JSON Schema of the buffer's lines goes with them. For the install scripts. Those of another release call this module
of this one when they roll back or uninstall, so it keeps its name. The files are made by ``python -m
sleepd.sleepctl.generated``.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import suppress
from pathlib import Path

from sleepd.files import replace_file

from .generated.shipped import SCHEMA, shared_files


def main() -> int:
    """Write or remove them all."""
    parser = argparse.ArgumentParser(
        prog="python -m sleepd.sleepctl.share", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("prefix", type=Path, metavar="PREFIX", help="such as /usr/local")
    parser.add_argument("--remove", action="store_true", help="take them away")
    given = parser.parse_args()
    for name, content in shared_files().items():
        path = given.prefix / "share" / name
        if given.remove:
            path.unlink(missing_ok=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, content, mode=0o644)
    if given.remove:
        with suppress(OSError):  # ENOTEMPTY: below ~/.local it also holds the releases
            (given.prefix / "share" / SCHEMA).parent.rmdir()
    return 0


if __name__ == "__main__":
    sys.exit(main())
