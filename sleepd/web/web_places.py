"""Where the page is, and where its token lies."""

from __future__ import annotations

from typing import Final

ADDRESS: Final = "127.0.0.1:7533"
SERVICE_TOKEN: Final = "/var/lib/sage-sleep-web/token"  # noqa: S105 - a path
"""Of the service; only root and the service can read it."""
SOCKET_HEADER: Final = "Sage-Sleepd-Socket"
"""Of ``/health``: the control socket of the daemon that the page shows."""


def service_token(instance: str) -> str:
    """Of the page of ``sage-sleepd@NAME``; empty: of the one service."""
    return f"/var/lib/sage-sleep-web-{instance}/token" if instance else SERVICE_TOKEN
