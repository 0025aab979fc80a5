"""``python -m sleepd.sleepctl.generated``: write the files in ``share/`` anew, after a change of the command lines, of
the configuration, or of what an experience may be.

It needs shtab, which the extra ``test`` brings. A test compares the files with what this would write.
"""

from __future__ import annotations

import shutil
import sys

import msgspec

from sleepd.protocol.experience_record import json_schema

from .completion_scripts import scripts
from .manual import pages
from .shipped import COMPLETIONS, SCHEMA, SHARE


def files() -> dict[str, str]:
    """The text of every file by its path below ``share/``."""
    schema = msgspec.json.format(msgspec.json.encode(json_schema()), indent=1).decode() + "\n"
    return {
        **{f"man/{path}": text for path, text in pages().items()},
        **{COMPLETIONS[shell]: script for shell, script in scripts().items()},
        SCHEMA: schema,
    }


def main() -> int:
    """Write them, and remove what is no longer made."""
    shutil.rmtree(SHARE, ignore_errors=True)
    for name, text in files().items():
        path = SHARE / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
