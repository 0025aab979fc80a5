"""The grammar of ``sleepd``'s command line, for the program itself and for its manual page."""

from __future__ import annotations

import argparse
from pathlib import Path

from .version import VERSION

EXIT_CODES = {
    0: "stopped by a signal",
    1: "failed",
    2: "usage",
    7: "the state directory is in use",
    9: "configuration",
}


def build_parser() -> argparse.ArgumentParser:
    """What ``sleepd`` understands."""
    codes = ", ".join(f"{code} {meaning}" for code, meaning in EXIT_CODES.items())
    parser = argparse.ArgumentParser(
        prog="sleepd",
        description="Watch an agent's experience buffer, and let it learn in its sleep. Runs in the foreground; "
        "SIGHUP reads the configuration again, SIGTERM stops. Beside the configuration file, conf.d/*.toml override "
        "single keys, in lexical order, and after them the variables SLEEPD_SECTION_KEY (SLEEPD_LOG_LEVEL=debug).",
        epilog=f"Exit status: {codes}.",
    )
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="default: $SLEEPD_CONFIG, ~/.config/sage-sleepd/config.toml, /etc/sage-sleepd/config.toml",
    )
    parser.add_argument("--version", action="version", version=f"sage-sleepd {VERSION}")
    return parser
