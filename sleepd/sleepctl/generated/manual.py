"""The manual pages sleepctl(1), sleepd(8) and sleepd.toml(5), from the grammars and the configuration's own words."""

from __future__ import annotations

import argparse
import json
from itertools import groupby

from sleepd.config.render import fields
from sleepd.config.schema import Config
from sleepd.daemon_arguments import EXIT_CODES
from sleepd.daemon_arguments import build_parser as build_daemon_parser
from sleepd.sleepctl.exit_codes import MEANINGS
from sleepd.sleepctl.parser.arguments import build_parser
from sleepd.sleepctl.parser.command_texts import EXAMPLES, GROUPS, VARIABLES
from sleepd.version import VERSION

from .grammar import commands
from .roff import entries, escaped, exit_status, heading, literal, notes, options, page, paragraph, section, synopsis

_SUMMARIES = {
    "sleepctl": "inspect and control sage-sleepd",
    "sleepd": "let a local LLM agent learn from its experiences while it sleeps",
    "sleepd.toml": "configuration of sage-sleepd",
}
_STATE = [
    ("current", "The adapter in use, a link that is replaced in one step; absent: the base model itself."),
    ("cycle_NNN/", "What was promoted: the adapter, what it was trained on, and every measurement."),
    ("retired/", "Candidates that were rejected, and adapters that were rolled back."),
    ("staging/", "The cycle under way."),
    ("status.json, history.json", "What sleepctl shows while the daemon is down."),
]

_DAEMON_VARIABLES = [
    ("SLEEPD_CONFIG", "The configuration file, where --config is not given."),
    ("STATE_DIRECTORY, RUNTIME_DIRECTORY", "As systemd sets them, where the configuration leaves the places out."),
    ("NOTIFY_SOCKET, WATCHDOG_USEC, JOURNAL_STREAM", "As systemd sets them: readiness, signs of life, the log."),
]
_SIGNALS = [
    ("SIGHUP", "Reads the configuration again, as sleepctl reload does."),
    ("SIGTERM, SIGINT", "Stops. A cycle under way is suspended; a second one kills the worker."),
]
_PURPOSE = (
    "When enough new experiences have come together, it starts a worker process which trains a LoRA "
    "adapter, and which measures it on experiences that were never trained on. The adapter is put in "
    "use only if it is better there and nothing that was measured was damaged. sleepctl(1) shows what "
    "came of it, and why."
)


def pages() -> dict[str, str]:
    """Every page by its path below ``man``: ``man1/sleepctl.1``."""
    return {
        "man1/sleepctl.1": _sleepctl(build_parser()),
        "man8/sleepd.8": _sleepd(build_daemon_parser()),
        "man5/sleepd.toml.5": _sleepd_toml(),
    }


def _sleepctl(parser: argparse.ArgumentParser) -> str:
    overview = [
        f".SS {escaped(group[0].upper() + group[1:])}\n" + entries(members.items()) for group, members in GROUPS.items()
    ]
    sections = [f".SS {escaped(' '.join(words))}\n{_command(command, parser)}" for words, command in commands(parser)]
    config = Config()
    files = [
        ("~/.config/sage-sleepd/config.toml, /etc/sage-sleepd/config.toml", "The configuration: sleepd.toml(5)."),
        (config.control.socket, "The daemon's control socket."),
        (f"{config.state.directory}/status.json, history.json", "What is shown while the daemon is down."),
    ]
    return page(
        *[
            heading("sleepctl", 1, version=VERSION, summary=_SUMMARIES["sleepctl"]),
            section("synopsis", ".PP\n.B sleepctl\n.I COMMAND\n[\n.I OPTION\n\\&... ]\n"),
            section(
                "description",
                paragraph(
                    "sleepctl asks the daemon sleepd(8) over its control socket, and shows the answer. Data goes to "
                    "standard output, as a screen or, with --json, as JSON; everything else goes to standard error."
                ),
                *overview,
            ),
            section("options", options(parser)),
            section("commands", paragraph("All of them take the options above as well."), *sections),
            exit_status(MEANINGS),
            section("environment", entries(VARIABLES.items())),
            section("files", entries(files)),
            section(
                "examples", entries((command, f"{text[0].upper()}{text[1:]}.") for command, text in EXAMPLES.items())
            ),
            section("see also", ".PP\n.BR sleepd (8),\n.BR sleepd.toml (5),\n.BR journalctl (1),\n.BR systemctl (1)\n"),
        ]
    )


def _command(command: argparse.ArgumentParser, parser: argparse.ArgumentParser) -> str:
    own = options(command, without=parser)
    return f"{synopsis(command)}{paragraph(command.description or '')}{own}{notes(command.epilog or '')}"


def _sleepd(parser: argparse.ArgumentParser) -> str:
    config = Config()
    files = [
        ("/etc/sage-sleepd/config.toml", "The configuration: sleepd.toml(5)."),
        (config.control.socket, "The control socket."),
        *((f"{config.state.directory}/{name}", meaning) for name, meaning in _STATE),
    ]
    return page(
        *[
            heading("sleepd", 8, version=VERSION, summary=_SUMMARIES["sleepd"]),
            section("synopsis", synopsis(parser)),
            section(
                "description",
                paragraph(parser.description or ""),
                paragraph(_PURPOSE),
            ),
            section("options", options(parser)),
            section(
                "signals",
                entries(_SIGNALS),
            ),
            exit_status(EXIT_CODES),
            section("environment", entries(_DAEMON_VARIABLES)),
            section("files", entries(files)),
            section(
                "examples",
                entries(
                    [
                        ("sudo systemctl enable --now sage-sleepd", "Starts it now and at every boot."),
                        ("sleepd --config ./config.toml", "Runs it in the foreground, without systemd."),
                    ]
                ),
            ),
            section("see also", ".PP\n.BR sleepctl (1),\n.BR sleepd.toml (5),\n.BR systemd.exec (5)\n"),
        ]
    )


def _sleepd_toml() -> str:
    sections = []
    for name, group in groupby(fields(Config()), key=lambda field: field[0]):
        part = getattr(Config(), name)
        known = entries((f"{key} = {json.dumps(value)}", meaning) for _, key, value, meaning in group)
        sections.append(f".SS {escaped(f'[{name}]')}\n{paragraph(type(part).__doc__ or '')}{known}")
    example = '[buffer]\npath = "/srv/agent/experiences.jsonl"\n\n[triggers]\nmin_new_experiences = 5'
    return page(
        *[
            heading("sleepd.toml", 5, version=VERSION, summary=_SUMMARIES["sleepd.toml"]),
            section("synopsis", ".PP\n~/.config/sage\\-sleepd/config.toml\n.br\n/etc/sage\\-sleepd/config.toml\n"),
            section(
                "description",
                paragraph(
                    "A TOML document that sleepd(8) reads at its start and on SIGHUP, and sleepctl(1) to find the "
                    "daemon. "
                    "The first of these files that is there counts; $SLEEPD_CONFIG and --config name another one. "
                    "Every key may be left out but buffer.path; the values shown are the defaults. An unknown key "
                    "is an error. `sleepctl config check` says what is wrong with a file."
                ),
                paragraph(
                    "Beside the file, conf.d/*.toml override single keys, in lexical order; after them the variables "
                    "SLEEPD_SECTION_KEY do, such as SLEEPD_LOG_LEVEL=debug. A service has an environment of its own. "
                    "`sleepctl config show` says where each value came from."
                ),
            ),
            section("keys", *sections),
            section("examples", literal(example)),
            section("see also", ".PP\n.BR sleepd (8),\n.BR sleepctl (1)\n"),
        ]
    )
