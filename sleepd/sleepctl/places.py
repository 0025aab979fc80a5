"""Where the daemon's socket and files are: from the command line, the environment, or its configuration."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from sleepd.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from sleepd.config.layers import Layered
    from sleepd.config.schema import Config


def instance_socket(instance: str) -> str:
    """The control socket of ``sage-sleepd@NAME``."""
    return f"/run/sage-sleepd-{checked_instance(instance)}/sleepd.sock"


def checked_instance(name: str) -> str:
    """The name of an instance, as a unit may have it.

    Raises:
        UsageError: it is none.
    """
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}", name):
        raise UsageError(
            f"expected a name of letters, digits, '_', '.' and '-', found {name!r}", hint="--instance blue"
        )
    return name


class Places:
    """The places, looked up when they are first asked for.

    Args:
        socket: ``--socket``; empty: not given.
        state: ``--state``; empty: not given.
        config: ``--config``; empty: not given.
        environment: of the process.
        note: shows a sentence to the operator.
    """

    def __init__(
        self, *, socket: str, state: str, config: str, environment: Mapping[str, str], note: Callable[[str], None]
    ) -> None:
        self._socket = socket
        self._state = state
        self._named_config = config
        self._environment = environment
        self._note = note

    @property
    def socket(self) -> str:
        """The control socket: ``--socket``, ``$SLEEPD_SOCKET``, the configuration's, the built-in one."""
        return self._socket or self._environment.get("SLEEPD_SOCKET") or self._guessed_config.control.socket

    @property
    def state(self) -> Path:
        """The state directory: ``--state``, the configuration's, the built-in one."""
        return Path(self._state or self._guessed_config.state.directory)

    @cached_property
    def config_file(self) -> Path | None:
        """``--config``, else the one that the daemon would find; None: there is none."""
        from sleepd.config.checks import discover

        return Path(self._named_config) if self._named_config else discover(self._environment)

    def load_config(self) -> Layered:
        """The configuration and where it came from, strictly; without a file, the built-in one and the environment.

        Raises:
            ConfigError: a file cannot be read, or a file or a variable has an error.
        """
        from sleepd.config.layers import load

        return load(self.config_file, environment=self._environment)

    @cached_property
    def _guessed_config(self) -> Config:
        """As :meth:`load_config`, but a file that nobody named does not keep the operator from the daemon."""
        try:
            return self.load_config().config
        except ConfigError as error:
            if self._named_config or self._environment.get("SLEEPD_CONFIG"):
                raise
            from sleepd.config.layers import load

            self._note(f"note: {error.message}; looking for the daemon in the default place (fix: {error.hint})")
            return load(None, environment=self._environment).config
