"""Telling systemd: READY, STATUS, WATCHDOG, STOPPING, RELOADING (sd_notify(3))."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

import sdnotify

from sleepd.log import get_logger


class Notifier:
    """The line to systemd; outside systemd it leads nowhere and sends nothing."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._has_complained = False
        self._sdnotify: Any = None
        if environment.get("NOTIFY_SOCKET"):
            try:
                self._sdnotify = sdnotify.SystemdNotifier(debug=True)
            except OSError as error:
                self._complain(error)
        self._last_status = ""
        self.ping_interval_seconds = _half_of_deadline(environment)
        """Seconds between two signs of life; None: systemd asked for none."""

    def ready(self) -> None:
        """The service is up, state recovered, socket open."""
        self._send("READY=1")

    def status(self, sentence: str) -> None:
        """The sentence in ``systemctl status``; an unchanged one is not sent again."""
        if sentence != self._last_status:
            self._last_status = sentence
            self._send("STATUS=" + sentence.replace("\n", " "))

    def alive(self) -> None:
        """The loop turns. Only the loop's own turn may call this."""
        self._send("WATCHDOG=1")

    def reloading(self) -> None:
        """The configuration is being read again."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """The service is on its way down."""
        self._send("STOPPING=1")

    def _send(self, message: str) -> None:
        if self._sdnotify is None:
            return
        try:
            # The library encodes as latin-1; this way the bytes on the wire are UTF-8, as systemd wants them.
            self._sdnotify.notify(message.encode().decode("latin-1"))
        except OSError as error:
            self._complain(error)

    def _complain(self, error: OSError) -> None:
        # Said once: a daemon that cannot reach systemd goes on working, and its log is not flooded.
        if not self._has_complained:
            self._has_complained = True
            get_logger().warning("notify_failed", text=f"systemd cannot be notified: {error}")


def _half_of_deadline(environment: Mapping[str, str]) -> float | None:
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    try:
        return int(environment["WATCHDOG_USEC"]) / 2e6
    except (KeyError, ValueError):
        return None
