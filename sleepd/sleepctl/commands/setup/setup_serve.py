"""``sleepctl setup-serve``: what the service needs once, so that it can put adapters into the engine of ``[serve]``.

For ``llama-restart`` a drop-in of the engine's unit, which takes the adapter from an environment file, and a polkit
rule, which lets the service's user restart that one unit. For ``llama-router`` a file of presets. Nothing is started;
the commands that come next are shown.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from sleepd.config.schema import Config
from sleepd.config.serve_config import ENVIRONMENT_FILE, LORA_VARIABLE
from sleepd.errors import ConfigError, NotFound, PermissionDenied
from sleepd.files import make_directory, replace_file
from sleepd.protocol.status import SCHEMA
from sleepd.sleepctl.exit_codes import ExitCode
from sleepd.sleepctl.pages.decision_page import line
from sleepd.sleepctl.session import Session
from sleepd.sleepctl.subprocesses import answer_of
from sleepd.text.shell import command_line, quoted

from .setup_buffer import SERVICE_USER

UNITS = Path("/etc/systemd/system")
POLKIT_RULE = Path("/etc/polkit-1/rules.d/50-sage-sleepd-engine.rules")
_DROP_IN = "50-sage-sleepd.conf"
_RULE = """\
// Written by sleepctl setup-serve: {user} may restart the engine that runs its adapters, and nothing else.
polkit.addRule(function(action, subject) {{
    if (action.id == "org.freedesktop.systemd1.manage-units" && subject.user == "{user}" &&
        action.lookup("unit") == "{unit}" &&
        ["restart", "start", "stop"].indexOf(action.lookup("verb")) >= 0) {{
        return polkit.Result.YES;
    }}
}});
"""
_PRESETS = """\
; Written by sleepctl setup-serve. Start the engine with: llama-server --models-preset {file}
; sage-sleepd changes the lora line of this section and nothing else.
version = 1

[{model}]
model = {base}
"""


def setup_serve(session: Session) -> ExitCode:
    """Write what the engine's kind needs, and show the next commands."""
    config, is_root = session.places.load_config().config, os.geteuid() == 0
    kind, instance = config.serve.kind, session.arguments.instance
    if not kind:
        hint = 'in the configuration, under [serve], set kind, such as "llama-router"; config/README.md has the keys'
        raise ConfigError("serve.kind is not set: there is no engine to set up", hint=hint)
    written: list[Path] = []
    if kind == "llama-restart" and config.serve.unit:
        written = _unit_files(config, is_root=is_root)
        answer_of("systemctl", *(["--user"] if config.serve.user_unit else []), "daemon-reload")
    elif kind == "llama-router":
        written = _presets(config, is_root=is_root)
    following = _next_commands(config, instance, is_root=is_root)
    page = [line(f"wrote {file}") for file in written]
    page += [line(""), line("next:"), *(line(f"  {command}") for command in following)]
    session.console.show({"schema": SCHEMA, "written": [str(file) for file in written], "next": following}, page)
    return ExitCode.OK


def _unit_files(config: Config, *, is_root: bool) -> list[Path]:
    serve = config.serve
    if not serve.user_unit and not is_root:
        raise PermissionDenied(f"a drop-in of {serve.unit} needs root", hint="sudo sleepctl setup-serve")
    units = Path.home() / ".config/systemd/user" if serve.user_unit else UNITS
    said = answer_of("systemctl", *(["--user"] if serve.user_unit else []), "cat", serve.unit)
    if said is None:
        raise NotFound(f"there is no unit {serve.unit}", hint="write a unit that starts llama-server, then again")
    command = start_command(said, serve.unit)
    directory = serve.directory_in(Path(config.state.directory))
    text = (
        f"# Written by sleepctl setup-serve: the adapter comes from the file below.\n[Service]\n"
        f"EnvironmentFile=-{directory / ENVIRONMENT_FILE}\nExecStart=\nExecStart={command} ${LORA_VARIABLE}\n"
    )
    files = {units / f"{serve.unit}.d" / _DROP_IN: text}
    if not serve.user_unit:
        files[POLKIT_RULE] = _RULE.format(user=SERVICE_USER, unit=serve.unit)
    for file, content in files.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        replace_file(file, content.encode(), mode=0o644)
    return list(files)


def start_command(unit_text: str, unit: str) -> str:
    """The last ``ExecStart=`` in what ``systemctl cat`` prints, without our own drop-in.

    Raises:
        ConfigError: there is none, or it names adapters itself.
    """
    files = re.split(r"(?m)^# (?=/)", unit_text)
    theirs = "\n".join(each for each in files if not each.partition("\n")[0].strip().endswith(_DROP_IN))
    joined = re.sub(r"\\\n\s*", " ", theirs)
    found = [each.strip() for each in re.findall(r"(?m)^\s*ExecStart\s*=(.*)$", joined)]
    command = found[-1] if found else ""
    if not command:
        raise ConfigError(f"{unit}: expected ExecStart=, found none", hint=f"systemctl cat {unit}")
    if re.search(r"--lora\b", command):
        text = f"{unit}: its ExecStart= names an adapter itself (--lora)"
        raise ConfigError(text, hint="take --lora out of it: sage-sleepd adds its own")
    return command


def _presets(config: Config, *, is_root: bool) -> list[Path]:
    serve = config.serve
    file = serve.ini_in(Path(config.state.directory))
    if file.exists():
        return []
    base = config.model.base if config.model.base.endswith(".gguf") else "/path/to/the/base.gguf"
    text = _PRESETS.format(file=file, model=serve.model, base=base)
    make_directory(file.parent)
    replace_file(file, text.encode(), mode=0o640)
    if is_root:
        for each in (file.parent, file):
            shutil.chown(each, SERVICE_USER, SERVICE_USER)
    return [file]


def _next_commands(config: Config, instance: str, *, is_root: bool) -> list[str]:
    """From here on in order; the first one only where the engine runs as a user of its own."""
    name = f"sage-sleep-serve@{instance}.socket" if instance else "sage-sleep-serve.socket"
    systemctl = ("systemctl",) if is_root else ("systemctl", "--user")
    commands = [command_line(*systemctl, "enable", "--now", name)]
    if is_root:
        commands.insert(
            0, f"usermod -aG {quoted(SERVICE_USER)} USER  # the user whom the engine runs as: it reads the adapters"
        )
    if config.serve.kind == "llama-router":
        file = config.serve.ini_in(Path(config.state.directory))
        commands.append(command_line("llama-server", "--models-preset", file))
    return [*commands, "sleepctl reload", "sleepctl status"]
