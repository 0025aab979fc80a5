"""Which function each command is. What imports much is imported when it is called, so that ``status`` starts fast."""

from __future__ import annotations

from sleepd.sleepctl.exit_codes import ExitCode
from sleepd.sleepctl.session import Command, Session

from . import daemon_commands, trigger_commands
from .adapters import bundle_commands, metric_commands
from .adapters.export import export
from .adapters.live_command import live
from .adapters.registry_commands import decisions, prune, tag
from .experiences import buffer_commands
from .experiences.quarantine_commands import quarantine
from .experiences.tokens import tokens
from .setup import config_commands, worker_host
from .watching import page_commands


def events(session: Session) -> ExitCode:
    """What happens, as it happens."""
    from .watching.events import follow

    return follow(session)


def logs(session: Session) -> ExitCode:
    """What the daemon logged."""
    from .watching.logs import show_journal

    return show_journal(session)


def doctor(session: Session) -> ExitCode:
    """What may keep it from sleeping, and what fixes it."""
    from sleepd.sleepctl.doctor.examine import examine

    return examine(session)


def setup_buffer(session: Session) -> ExitCode:
    """The agent's buffer, named and shown."""
    from .setup.setup_buffer import setup_buffer as set_up

    return set_up(session)


def setup_serve(session: Session) -> ExitCode:
    """The engine, and what the service may do with it."""
    from .setup.setup_serve import setup_serve as set_up

    return set_up(session)


def sync(session: Session) -> ExitCode:
    """Bundles up and down through a directory."""
    from .adapters.sync_command import sync as run_sync

    return run_sync(session)


def completions(session: Session) -> ExitCode:
    """A shell's completions, or the cycles' numbers for them."""
    from .setup.completions import complete

    return complete(session)


COMMANDS: dict[str, Command] = {
    "status": daemon_commands.status,
    "check": daemon_commands.check,
    "why": daemon_commands.why,
    "when": trigger_commands.when,
    "simulate": trigger_commands.simulate,
    "decisions": decisions,
    "history": daemon_commands.history,
    "show": daemon_commands.show,
    "report": daemon_commands.report,
    "web": page_commands.web,
    "digest": page_commands.digest,
    "notify": page_commands.notify,
    "buffer": buffer_commands.buffer,
    "import": buffer_commands.import_records,
    "quarantine": quarantine,
    "tokens": tokens,
    "live": live,
    "version": daemon_commands.version,
    "run": daemon_commands.run,
    "cancel": daemon_commands.cancel,
    "pause": daemon_commands.pause,
    "resume": daemon_commands.resume,
    "rollback": daemon_commands.rollback,
    "reload": daemon_commands.reload,
    "events": events,
    "logs": logs,
    "doctor": doctor,
    "setup-buffer": setup_buffer,
    "setup-serve": setup_serve,
    "completions": completions,
    "rebase": daemon_commands.rebase,
    "tag": tag,
    "export": export,
    "prune": prune,
    "sync": sync,
    "worker-host check": worker_host.check,
    "worker-host serve": worker_host.serve,
    "bundle export": bundle_commands.export,
    "bundle import": bundle_commands.import_,
    "bundle show": bundle_commands.show,
    "bundle judge": bundle_commands.judge,
    "bundle list": bundle_commands.list_,
    "bundle remove": bundle_commands.remove,
    "metric add": metric_commands.add,
    "metric remove": metric_commands.remove,
    "config check": config_commands.check,
    "config show": config_commands.show,
}
