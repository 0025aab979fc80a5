"""``web``, ``digest`` and ``notify``: each loads what it needs only when it is asked for."""

from __future__ import annotations

from sleepd.sleepctl.exit_codes import ExitCode
from sleepd.sleepctl.session import Session


def web(session: Session) -> ExitCode:
    """The page: its address, its token, or the page itself."""
    from .web_command import show_web

    return show_web(session)


def digest(session: Session) -> ExitCode:
    """What happened since a moment, in a few lines."""
    from .digest_command import show_digest

    return show_digest(session)


def notify(session: Session) -> ExitCode:
    """The operator's command, once for each event."""
    from .notify import follow_and_notify

    return follow_and_notify(session)
