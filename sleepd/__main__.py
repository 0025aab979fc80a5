"""``sleepd``: the daemon, in the foreground."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from . import log
from .config import discover
from .config_layers import load, require_buffer
from .daemon import live
from .errors import ConfigError, SleepdError
from .version import VERSION


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the daemon until it is told to stop; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="sleepd",
        description="Watch an agent's experience buffer, and let it learn in its sleep. Runs in the foreground; "
        "SIGHUP reads the configuration again, SIGTERM stops. Beside the configuration file, conf.d/*.toml override "
        "single keys, in lexical order, and after them the variables SLEEPD_SECTION_KEY (SLEEPD_LOG_LEVEL=debug).",
        epilog="Exit status: 0 stopped as told, 1 failed, 2 usage, 7 the state directory is in use, 9 configuration.",
    )
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="default: $SLEEPD_CONFIG, ~/.config/sage-sleepd/config.toml, /etc/sage-sleepd/config.toml",
    )
    parser.add_argument("--version", action="version", version=f"sage-sleepd {VERSION}")
    options = parser.parse_args(arguments)
    try:
        path = options.config or discover(os.environ)
        if path is None:
            raise ConfigError(
                "no configuration was found", hint="sleepd --config FILE; config/config.toml shows every key"
            )
        path = path.absolute()
        config = load(path, environment=os.environ).config
        require_buffer(config, str(path))
        log.configure(config.log.level)
        asyncio.run(live(config, path))
    except SleepdError as error:
        sys.stderr.write(f"sleepd: {error.message}\n")
        if error.hint:
            sys.stderr.write(f"hint: {error.hint}\n")
        return error.exit_code
    except OSError as error:
        sys.stderr.write(f"sleepd: {error}\nhint: check the disk: df -h; journalctl -k\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
