"""The command line's grammar and its ``--help``."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from typing import Any, NoReturn, get_args

from sleepd.config.checks import BUFFER_FORMATS
from sleepd.config.strategies import STRATEGIES
from sleepd.protocol.deployment.converted_adapter import Quantization
from sleepd.protocol.deployment.exported_adapter import ExportForm
from sleepd.sleepctl.exit_codes import ExitCode, table
from sleepd.text.display import clean
from sleepd.version import VERSION

from .argument_types import Whole, metric_name, moment_or_age, number, positive, two_names
from .bundle_arguments import add_bundle_commands, add_sync
from .command_texts import EPILOGS, EXAMPLES, GROUPS, VARIABLES
from .quarantine_arguments import add_quarantine
from .worker_host_arguments import add_worker_host

COMPLETED = ("bash", "zsh", "fish", "cycles", "quarantine")
"""What ``completions`` can print: the scripts, and what they ask for."""


_STATE_HELP = {"live": "where the fingerprints are", "export": "where the cycle is", "sync": "the state directory"}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        dashed = ""
        if re.search(r"required: ID$|^unrecognized arguments: (-- |-(?!-))", message):
            dashed = "; put options before ACTION and ID; put an ID that begins with - last, after --"
        sys.stderr.write(f"sleepctl: {clean(message)}\nhint: {self.prog} --help{dashed}\n")
        self.exit(ExitCode.USAGE)


def build_parser() -> argparse.ArgumentParser:
    """The whole grammar; ``command`` names the command in what it parses to."""
    parser = _Parser(
        prog="sleepctl",
        usage="sleepctl COMMAND [OPTION …]",
        description=_overview(),
        epilog="\n\n".join((_table("examples", EXAMPLES), _table("environment", VARIABLES), f"exit codes:\n{table()}")),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--version", action="version", version=f"sleepctl {VERSION}", help="print this program's version"
    )
    parser.set_defaults(json=False, socket="", config="", state="")
    _add_options(parser)
    commands = parser.add_subparsers(
        prog="sleepctl", metavar="COMMAND", dest="command", required=True, help=argparse.SUPPRESS
    )
    for group in GROUPS.values():
        for name, summary in group.items():
            _add_command(commands, name, summary)
    return parser


def _table(title: str, rows: dict[str, str]) -> str:
    wide = max(map(len, rows))
    return "\n".join([f"{title}:", *(f"  {name:<{wide}}  {meaning}" for name, meaning in rows.items())])


def _overview() -> str:
    lines = ["Inspect and control sage-sleepd, which lets an agent learn while it sleeps."]
    for group, members in GROUPS.items():
        lines += ["", f"{group}:", *(f"  {name:<13}{summary}" for name, summary in members.items())]
    return "\n".join([*lines, "", "The options of a command: sleepctl COMMAND --help"])


def _add_watch_option(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--watch",
        metavar="SECONDS",
        nargs="?",
        type=positive,
        const=2.0,
        help="redraw at every event and every SECONDS (default: 2); Ctrl-C ends it",
    )


def _add_command(commands: Any, name: str, summary: str) -> None:
    command = commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        epilog=EPILOGS.get(name),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    if name in ("config", "metric"):
        (_add_config_commands if name == "config" else _add_metric_commands)(command)
        return
    if name in ("bundle", "worker-host"):
        (add_bundle_commands if name == "bundle" else add_worker_host)(command, _add_options)
        return
    _add_options(command)
    _add_places(command, name)
    if name in _OPTIONS:
        _OPTIONS[name](command)
    if name == "check":
        command.add_argument("--apply", action="store_true", help="start a cycle if due; otherwise exit with 5")
    if name in ("tag", "prune"):
        _add_keeping_options(command, name)
    if name in ("buffer", "import", "tokens"):
        _add_experience_options(command, name)
    if name in ("web", "digest", "notify"):
        _add_page_options(command, name)
    if name in ("decisions", "simulate"):
        command.add_argument("--since", metavar="WHEN", type=moment_or_age, help="90m, 12h, 3d or 2026-01-31[T08:00]")
    if name in ("history", "why", "decisions", "quarantine", "report"):
        default = {"history": 20, "why": 10, "decisions": 50, "quarantine": 100, "report": 10}[name]
        command.add_argument(
            "--limit", metavar="N", type=Whole(1), default=default, help=f"how many (default: {default})"
        )


def _add_page_options(command: argparse.ArgumentParser, name: str) -> None:
    """Of the page, of the letter in the morning, and of notifications."""
    if name == "digest":
        since = "default: 24h; 90m, 3d or 2026-01-31[T08:00]"
        command.add_argument("--since", metavar="WHEN", type=moment_or_age, default="24h", help=since)
        return
    if name == "notify":
        command.add_argument("--once", action="store_true", help="tell what is pending, and end")
        where = "remembers what was told; default: in $STATE_DIRECTORY or your own state directory"
        command.add_argument("--told", metavar="FILE", default="", help=where)
        return
    what = command.add_mutually_exclusive_group()
    what.add_argument("--open", action="store_true", help="open it in your browser")
    what.add_argument("--token", action="store_true", help="print the token that the page asks for")
    command.add_argument("--instance", metavar="NAME", default="", help="of sage-sleepd@NAME")
    where = "where it is or will be (default: 127.0.0.1:7533)"
    command.add_argument("--address", metavar="IP:PORT", default="127.0.0.1:7533", help=where)


def _add_experience_options(command: argparse.ArgumentParser, name: str) -> None:
    """Of what shows or copies experiences."""
    if name == "buffer":
        command.add_argument("--sample", action="store_true", help="show the first three as they were understood")
    if name == "import":
        command.add_argument("files", metavar="FILE", nargs="+", help="an export, or a log")
        command.add_argument("--format", metavar="NAME", default="auto", choices=BUFFER_FORMATS, help="default: auto")
        command.add_argument("--output", metavar="FILE", default="", help="append to it; default: print")
    if name == "tokens":
        command.add_argument("id", metavar="ID", help="of the experience")


def _add_history_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--strategies", action="store_true", help="by strategy: mean gain, drift and time")


def _add_live_options(command: argparse.ArgumentParser) -> None:
    help_ = "of the engine, such as http://127.0.0.1:8080; default: as [serve] names engine, model and key"
    command.add_argument("url", metavar="URL", nargs="?", default="", help=help_)
    help_ = "the name that it is served under; default: the engine's only one"
    command.add_argument("--model", metavar="NAME", default="", help=help_)
    help_ = "with the key that the engine wants, readable by you only"
    command.add_argument("--key-file", metavar="FILE", default="", help=help_)


def _add_export_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("cycle", metavar="N", type=Whole(1), help="the cycle's number")
    command.add_argument("--to", metavar="DIR", required=True, help="a new directory; nothing is overwritten")
    forms = get_args(ExportForm)
    help_ = f"{', '.join(forms)}; default: peft"
    command.add_argument("--as", dest="form", metavar="FORM", choices=forms, default="peft", help=help_)
    numbers = get_args(Quantization)
    help_ = f"of a GGUF file: {', '.join(numbers)}; default: f16"
    command.add_argument("--numbers", metavar="FORMAT", choices=numbers, default="f16", help=help_)
    help_ = "merge into this file; default: the base, where it is a GGUF file"
    command.add_argument("--base-gguf", metavar="FILE", default="", help=help_)


def _add_keeping_options(command: argparse.ArgumentParser, name: str) -> None:
    """Of what is kept of the past."""
    if name == "tag":
        command.add_argument("cycle", metavar="N", type=Whole(1), help="the cycle's number")
        tag = command.add_mutually_exclusive_group()
        tag.add_argument("name", metavar="TAG", nargs="?", default="kept", help="default: kept")
        tag.add_argument("--remove", action="store_true", help="remove its tag")
    else:
        command.add_argument("--dry-run", action="store_true", help="only list what would be removed")
        help_ = "newest promoted cycles to keep; default: as configured"
        command.add_argument("--keep", metavar="N", type=Whole(1), help=help_)


def _add_places(command: argparse.ArgumentParser, name: str) -> None:
    """The cycle, path or experience that a command is about."""
    if name in ("status", "history", "show", "report", "live", "export", "sync"):
        command.add_argument(
            "--state",
            metavar="DIR",
            default=argparse.SUPPRESS,
            help=_STATE_HELP.get(name, "where to read when the daemon is down"),
        )
    if name == "show":
        command.add_argument("cycle", metavar="N", type=Whole(1), help="the cycle's number")
    if name == "report":
        newest = "the cycle's number; default: the newest one with a verdict"
        command.add_argument("cycle", metavar="N", nargs="?", type=Whole(1), help=newest)
        command.add_argument("--html", metavar="FILE", default="", help="write the page as one self-contained file")
    if name == "rollback":
        command.add_argument(
            "cycle",
            metavar="N",
            nargs="?",
            type=Whole(0),
            help="the cycle to activate; 0: the base itself; default: the champion before the one in use",
        )
    if name == "setup-buffer":
        command.add_argument("path", metavar="PATH", help="the file of the agent, or a directory of files")
        help_ = "of sage-sleepd@NAME, which has its own configuration and state; created if new"
        command.add_argument("--instance", metavar="NAME", default="", help=help_)
    if name == "setup-serve":
        command.add_argument("--instance", metavar="NAME", default="", help="of sage-sleepd@NAME")
    if name == "completions":
        command.add_argument(
            "kind",
            metavar="SHELL",
            choices=COMPLETED,
            help="bash, zsh, fish; cycles, quarantine: lists for a script",
        )


def _add_options(parser: argparse.ArgumentParser) -> None:
    # SUPPRESS: what stands before the command is not overwritten by a default after it.
    parser.add_argument(
        "--json", action="store_true", default=argparse.SUPPRESS, help='data as JSON with a "schema" number'
    )
    parser.add_argument("--config", metavar="FILE", default=argparse.SUPPRESS, help="the daemon's configuration file")
    parser.add_argument("--socket", metavar="PATH", default=argparse.SUPPRESS, help="the daemon's control socket")


def _add_run_options(run: argparse.ArgumentParser) -> None:
    run.add_argument("--force", action="store_true", help="even if not due or cooling down; needs the operator group")
    run.add_argument("--wait", action="store_true", help="show its progress and return when it has ended")
    run.add_argument("--epochs", metavar="N", type=Whole(1), help="instead of the strategy's")
    run.add_argument("--learning-rate", metavar="RATE", type=positive, help="instead of the strategy's")
    run.add_argument("--max-experiences", metavar="N", type=Whole(1), help="train at most N new experiences")
    strategy = run.add_mutually_exclusive_group()
    strategy.add_argument("--strategy", metavar="NAME", help=f"one of: {', '.join(STRATEGIES)}")
    both = "both on the same experiences; the better one of those that pass is promoted"
    strategy.add_argument("--strategies", metavar="A,B", type=two_names, default=[], help=both)


def _add_logs_options(logs: argparse.ArgumentParser) -> None:
    logs.add_argument("-f", "--follow", action="store_true", help="follow the log")
    logs.add_argument("-n", "--lines", metavar="N", type=Whole(0), help="the last N (default: 50, or all that match)")
    logs.add_argument("--since", metavar="TIME", help='such as yesterday, 22:00, "2026-01-31 22:00", or =-2h')
    logs.add_argument("--cycle", metavar="N", type=Whole(1), help="of this cycle only")
    logs.add_argument("--event", metavar="NAME", help="of this kind only, such as candidate_promoted")
    logs.add_argument("--unit", metavar="UNIT", help="of this unit, not of the one that the daemon runs in")
    logs.add_argument("--user", action="store_true", help="the unit is one of your own systemd (systemctl --user)")


def _add_config_commands(config: argparse.ArgumentParser) -> None:
    _add_options(config)
    commands = config.add_subparsers(metavar="check|show", dest="subcommand")
    config.set_defaults(subcommand="show")
    for name, summary in (
        ("check", "Check a configuration file."),
        ("show", "Show what is in effect, as TOML or JSON."),
    ):
        command = commands.add_parser(name, help=summary, description=summary)
        command.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="as JSON")
        default = "the one that the daemon would find"
        if name == "check":
            command.add_argument(
                "config", metavar="FILE", nargs="?", default=argparse.SUPPRESS, help=f"default: {default}"
            )
        else:
            command.add_argument("--config", metavar="FILE", default=argparse.SUPPRESS, help=f"default: {default}")


def _add_metric_commands(metric: argparse.ArgumentParser) -> None:
    _add_options(metric)
    commands = metric.add_subparsers(metavar="add|remove", dest="subcommand", required=True)
    for name, summary in (("add", "Add a figure to a cycle."), ("remove", "Take a figure away from a cycle.")):
        command = commands.add_parser(name, help=summary, description=summary)
        _add_options(command)
        command.add_argument("cycle", metavar="CYCLE", type=Whole(1), help="the cycle's number")
        command.add_argument("name", metavar="NAME", type=metric_name, help="such as accuracy")
        if name == "add":
            command.add_argument("value", metavar="VALUE", type=number, help="a number")


_OPTIONS: dict[str, Callable[[argparse.ArgumentParser], None]] = {
    "status": _add_watch_option,
    "logs": _add_logs_options,
    "run": _add_run_options,
    "history": _add_history_options,
    "live": _add_live_options,
    "export": _add_export_options,
    "quarantine": add_quarantine,
    "sync": add_sync,
}
"""What adds the options of one command alone."""
