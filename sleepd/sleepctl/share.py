"""``python -m sleepd.sleepctl.share [--remove] PREFIX``: manual pages and completions, to where programs look for them.

For the install script. They are made from the installed code, so that they match it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from sleepd.files import replace_file

from .arguments import build_parser
from .generated.completion_scripts import SCRIPTS
from .generated.manual import pages

_COMPLETIONS = {
    "bash": "bash-completion/completions/sleepctl",
    "zsh": "zsh/site-functions/_sleepctl",
    "fish": "fish/vendor_completions.d/sleepctl.fish",
}


def shared_files() -> dict[str, str]:
    """Every file by its path below ``PREFIX/share``."""
    files = {f"man/{path}": text for path, text in pages().items()}
    return files | {_COMPLETIONS[shell]: script(build_parser()) for shell, script in SCRIPTS.items()}


def main() -> int:
    """Write or remove them all."""
    parser = argparse.ArgumentParser(
        prog="python -m sleepd.sleepctl.share", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("prefix", type=Path, metavar="PREFIX", help="such as /usr/local")
    parser.add_argument("--remove", action="store_true", help="take them away")
    given = parser.parse_args()
    for name, text in shared_files().items():
        path = given.prefix / "share" / name
        if given.remove:
            path.unlink(missing_ok=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, text.encode(), mode=0o644)
    return 0


if __name__ == "__main__":
    sys.exit(main())
