"""The judgement of ``sleepctl doctor``: facts in, findings out; no file, no clock, no process."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import PurePath

import msgspec

from sleepd.protocol.capability import BaseCheck
from sleepd.text.shell import command_line, quoted
from sleepd.version import VERSION
from sleepd.worker_program import TOO_SLOW

from .doctor_facts import DoctorFacts, Mark, PathFacts, Result
from .engine_finding import engine_finding
from .sync_finding import sync_finding

_MIB, _GIB = 2**20, 2**30
_FIRST_SANE_YEAR = 2025
"""A machine without a battery for its clock starts in 1970, or in the year its image was built."""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one check."""

    name: str
    mark: Mark
    text: str
    command: str = ""
    """What fixes it."""


def judge(facts: DoctorFacts) -> list[Finding]:
    """Every finding, in the order in which an operator fixes them; leftovers last."""
    unread = bool(facts.config.problem)
    results = [
        (name, *(_UNREAD if unread and name in _CONFIGURED else check(facts))) for name, check in _checks(facts).items()
    ]
    results += [("leftovers", "WARN", text, command) for text, command in facts.leftovers]
    if not facts.leftovers:
        results.append(("leftovers", "PASS", "none", ""))
    return [Finding(name=name, mark=mark, text=text, command=command) for name, mark, text, command in results]


def _checks(facts: DoctorFacts) -> dict[str, Callable[[DoctorFacts], Result]]:
    """What is checked here: where cycles run on another machine, what that one has is checked there."""
    if facts.config.config.worker.engine == "local":
        return _CHECKS
    return {name: _on_host if name in _OF_THE_TRAINER else check for name, check in _CHECKS.items()}


def _on_host(facts: DoctorFacts) -> Result:
    return "PASS", f"cycles run on {facts.config.config.worker.place}; sleepctl worker-host check asks it", ""


def _config(facts: DoctorFacts) -> Result:
    config = facts.config
    if config.problem:
        return "FAIL", config.problem, config.hint
    if not config.path:
        return (
            "FAIL",
            "there is no configuration file",
            "sudo ./install.sh; or: sleepctl config show > FILE, and edit it",
        )
    if not config.config.buffer.paths:
        return (
            "FAIL",
            f"{config.path}: buffer.path is not set",
            f"set it to the agent's file: sudoedit {quoted(config.path)}",
        )
    return "PASS", f"{config.path} is correct", ""


def _unit(facts: DoctorFacts) -> Result:
    unit = facts.unit
    with_drop_ins = f" (drop-ins: {', '.join(unit.drop_ins)})" if unit.drop_ins else ""
    if not unit.load:
        return "WARN", "systemd does not answer here; start the daemon by hand", "sleepd --config FILE"
    if unit.load == "masked" or unit.file.startswith("masked"):
        return "FAIL", "the unit is masked, so it cannot start", "sudo systemctl unmask sage-sleepd"
    if unit.load == "not-found":
        return "WARN", "the unit is not installed", "sudo ./install.sh"
    if unit.load != "loaded":
        return "FAIL", f"the unit cannot be loaded: {unit.load}", "systemd-analyze verify sage-sleepd.service"
    if unit.active == "failed":
        command = "sleepctl logs; then: sudo systemctl reset-failed sage-sleepd; sudo systemctl start sage-sleepd"
        return "FAIL", f"the unit has failed: {unit.result}{with_drop_ins}", command
    if unit.needs_reload:
        return "WARN", "its files were changed and not read again", "sudo systemctl daemon-reload"
    if unit.file not in ("enabled", "enabled-runtime", "static", "linked", "generated"):
        return "WARN", f"{unit.active}, but not started at boot ({unit.file})", "sudo systemctl enable sage-sleepd"
    if unit.active != "active":
        return "WARN", f"enabled, but {unit.active}{with_drop_ins}", "sudo systemctl start sage-sleepd"
    return "PASS", f"active and {unit.file}{with_drop_ins}", ""


def _socket(facts: DoctorFacts) -> Result:
    socket = facts.socket
    if not socket.problem:
        return "PASS", f"{socket.path} answers", ""
    if not socket.is_running:
        left = " (the socket's file is left over; the next start replaces it)" if socket.exists else ""
        return "WARN", f"{socket.problem}{left}", socket.hint
    return "FAIL", socket.problem, socket.hint


def _operator(facts: DoctorFacts) -> Result:
    group = facts.config.config.control.operator_group
    if facts.socket.is_caller_operator is None:
        return (
            "WARN",
            f"there is no group {group}: only root and the daemon's user may control it",
            f"sudo groupadd {quoted(group)}",
        )
    if not facts.socket.is_caller_operator:
        command = f"sudo usermod -aG {quoted(group)} $USER, then log in again"
        return "WARN", f"you are not in the group {group}: you may only read, not force, pause or roll back", command
    return "PASS", "you may force, cancel, pause and roll back", ""


def _daemon(facts: DoctorFacts) -> Result:
    socket = facts.socket
    if socket.problem:
        return "WARN", "not asked: see socket", socket.hint
    if socket.daemon_version != VERSION:
        text = f"the daemon is of version {socket.daemon_version}, this program of {VERSION}"
        return "WARN", text, "sudo systemctl restart sage-sleepd"
    if socket.last_error:
        return "WARN", f"its last error: {socket.last_error}", socket.last_error_hint or "sleepctl status"
    return "PASS", f"version {socket.daemon_version}, no error", ""


def _state(facts: DoctorFacts) -> Result:
    state, who = facts.state, facts.daemon_user
    if state.kind == "other" or state.kind == "file":
        return "FAIL", f"{state.path} is no directory", command_line("sudo", "mv", state.path, f"{state.path}.old")
    if state.may_write:
        return "PASS", f"{state.path} can be written by {who}", ""
    if state.kind == "absent":
        # systemd makes its own (StateDirectory=); what the daemon is to make elsewhere needs a parent it may write.
        return (
            "WARN",
            f"{state.path} does not exist; the daemon creates it at its first start if it has permission",
            "sleepctl logs",
        )
    if state.may_write is None:
        return "WARN", f"you may not see whether the daemon can write {state.path}", "sudo sleepctl doctor"
    if state.blocked_at:
        return "FAIL", f"{who} cannot pass {state.blocked_at}", f"sudo chmod o+x {quoted(state.blocked_at)}"
    return "FAIL", f"{state.path} cannot be written by {who}", command_line("sudo", "chown", "-R", who, state.path)


def _disk(facts: DoctorFacts) -> Result:
    least = facts.config.config.state.min_free_megabytes * _MIB
    if facts.free_bytes is None:
        return "WARN", f"you may not see the free space of {facts.state.path}", "sudo sleepctl doctor"
    text = f"{_size(facts.free_bytes)} free for {facts.state.path}, {_size(least)} needed to start a cycle"
    return (
        ("PASS", text, "")
        if facts.free_bytes >= least
        else ("FAIL", text, f"make space: df -h {quoted(facts.state.path)}")
    )


def _buffer(facts: DoctorFacts) -> Result:
    buffer = facts.buffer
    if buffer.has_daemon_read and not buffer.problem:
        return "PASS", "the daemon has read it", ""
    if not buffer.places:
        return "FAIL", "buffer.path is not set", "see config"
    results = [_buffer_place(facts, place) for place in buffer.places]
    return next((one for one in results if one[0] != "PASS"), results[0])


def _buffer_place(facts: DoctorFacts, place: PathFacts) -> Result:
    buffer, who = facts.buffer, facts.daemon_user
    hidden = _hidden(facts, place.path)
    if hidden:
        show = command_line("sudo", "sleepctl", "setup-buffer", operands=(place.path,))
        return "FAIL", f"{place.path} is hidden from the service ({hidden})", show
    if buffer.problem:
        return "FAIL", buffer.problem, "sleepctl buffer"
    if buffer.has_daemon_read is False and place.kind == "file":
        return "FAIL", f"the running daemon does not see {place.path}", "sudo systemctl restart sage-sleepd"
    if place.blocked_at:
        allow = command_line("sudo", "setfacl", "-m", f"u:{who}:x", place.blocked_at)
        return "FAIL", f"{who} cannot pass {place.blocked_at}", allow
    if place.kind == "absent":
        hint = "the daemon reads it once it exists; is the path right?"
        return "WARN", f"{place.path} does not exist yet", hint
    if place.kind == "other":
        return (
            "FAIL",
            f"{place.path} is no regular file and no directory",
            f"name what the agent writes: sudoedit {quoted(facts.config.path)}",
        )
    if place.may_read is None:
        return "WARN", f"you may not see whether the daemon can read {place.path}", "sudo sleepctl doctor"
    if not place.may_read:
        return (
            "FAIL",
            f"{place.path} cannot be read by {who}",
            command_line("sudo", "setfacl", "-m", f"u:{who}:r", place.path),
        )
    return "PASS", f"{place.path} can be read by {who}", ""


def _hidden(facts: DoctorFacts, path: str) -> str:
    """The setting of the unit that hides ``path``; empty: none does."""
    pure, unit = PurePath(path), facts.unit
    if any(pure.is_relative_to(shown) for shown in unit.shown):
        return ""
    if unit.hides_homes and any(pure.is_relative_to(home) for home in ("/home", "/root", "/run/user")):
        return "ProtectHome="
    if unit.hides_tmp and any(pure.is_relative_to(tmp) for tmp in ("/tmp", "/var/tmp")):  # noqa: S108 (names to compare with)
        return "PrivateTmp="
    return ""


def _device(facts: DoctorFacts) -> Result:
    found = facts.capability
    if found is None:
        if facts.capability_problem.startswith(TOO_SLOW):
            text = f"{facts.interpreter} gave {facts.capability_problem}: it is busy, or torch or the base hangs"
            return "FAIL", text, "try again when the machine is less busy (uptime); else set another model.base"
        fix = "sudo ./install.sh, or set worker.python to an interpreter with torch and sage-sleepd"
        return "FAIL", f"{facts.interpreter} does not answer: {facts.capability_problem}", fix
    if found.version != VERSION:
        return "FAIL", f"{facts.interpreter} has sage-sleepd {found.version}, not {VERSION}", "sudo ./install.sh"
    if found.device_problem:
        return "FAIL", found.device_problem, found.device_hint
    text = f"{found.device}, {found.dtype}, torch {found.torch}"
    if not facts.config.config.worker.trains:
        return "PASS", f"none: this machine trains nothing; what other machines send is judged on {text}", ""
    wants_gpu = facts.config.config.worker.device == "auto" and facts.has_gpu
    if wants_gpu and found.device_free_bytes is None:
        return "WARN", f"there is a GPU, but a cycle would use {text}", "nvidia-smi; nvidia-modprobe -u"
    return "PASS", text, ""


def _model(facts: DoctorFacts) -> Result:
    found, base = facts.capability, facts.base
    if found is None:
        return "WARN", "not checked: see device", "fix the device first"
    if found.base_problem:
        return "FAIL", found.base_problem, found.base_hint
    where = f"{found.base_path} ({_size(found.base_bytes)})"
    if base is None:
        why = facts.base_check_problem or "see device"
        return "WARN", f"{where} was not checked: {why}", "sudo sleepctl doctor; then: sleepctl run --force"
    if base.problem:
        return "FAIL", base.problem, base.hint
    text = f"{where}: {base.architecture}, the adapter changes {', '.join(base.adapts)}"
    if base.notices:
        return "WARN", f"{text}; {'; '.join(base.notices)}", "no action is needed if that is intended"
    return "PASS", text, ""


def _chat(facts: DoctorFacts) -> Result:
    found = facts.capability
    if found is None or found.base_problem:
        return "WARN", "its chat template was not checked: see device and model", "fix these first"
    if found.chat is None:
        return "FAIL", found.chat_problem or "its chat template was not checked", found.chat_hint
    trained = f"in a sample reply, {found.chat.supervised!r} is supervised"
    if found.chat.warnings:
        return "WARN", f"{'; '.join(found.chat.warnings)}; {trained}", "sleepctl tokens ID shows one experience"
    return "PASS", f"{trained}; {'; '.join(found.chat.notes)}", ""


def _memory(facts: DoctorFacts) -> Result:
    found, base = facts.capability, facts.base
    if found is None or base is None or not base.needed_bytes:
        return "WARN", "the model's memory need is unknown: see device and model", "fix these first"
    is_gpu = found.device_free_bytes is not None
    free = found.device_free_bytes if is_gpu else facts.memory_bytes
    if free is None:
        return "WARN", "the free memory cannot be read here", "free -h"
    needed, need = base.needed_bytes, _need(base)
    if not facts.config.config.worker.trains:
        needed, need = found.base_bytes, f"nothing is trained here; judging loads the model ({_size(found.base_bytes)})"
    elif facts.config.config.worker.processes > 1 and not is_gpu:
        processes = facts.config.config.worker.processes
        needed, need = needed * processes, f"{need}; {processes} processes need as much each"
    text = f"{_size(free)} free {'on the GPU' if is_gpu else 'in RAM'}; {need}"
    if free >= needed:
        return "PASS", text, ""
    return (
        "WARN",
        text,
        "end what uses it, or set a smaller model.base; see: " + ("nvidia-smi" if is_gpu else "free -h"),
    )


def _need(base: BaseCheck) -> str:
    most = f"an experience of {base.longest_tokens} tokens, the most that the strategy trains"
    if not base.is_buffer_seen:
        return f"a cycle needs up to {_size(base.needed_bytes)} (an estimate, for {most})"
    text = f"a cycle needs about {_size(base.needed_bytes)} (an estimate, for the experiences in the buffer)"
    return f"{text}; with {most}, {_size(base.longest_bytes)}" if base.longest_tokens > base.row_tokens else text


def _clock(facts: DoctorFacts) -> Result:
    if facts.now.year < _FIRST_SANE_YEAR:
        return "FAIL", f"the clock says {facts.now:%Y-%m-%d}", "sudo timedatectl set-ntp true"
    if facts.last_sleep_at is not None and facts.last_sleep_at > facts.now + timedelta(minutes=1):
        text = f"the last sleep ({facts.last_sleep_at:%Y-%m-%d %H:%M} UTC) lies in the future: the clock was set back"
        return "WARN", text, "timedatectl; the wait till the next sleep counts from the daemon's start"
    if facts.is_clock_synchronised is False:
        return "WARN", "the clock is not synchronised", "sudo timedatectl set-ntp true"
    text = (
        "synchronised"
        if facts.is_clock_synchronised
        else "plausible; this system does not report whether it is synchronised"
    )
    return "PASS", text, ""


def _size(size: int) -> str:
    return f"{size / _GIB:.1f} GiB" if size >= _GIB else f"{size / _MIB:.0f} MiB"


_CONFIGURED = ("state", "disk", "buffer", "device", "model", "chat", "memory", "engine", "sync")
"""What the configuration names; where it is wrong, the built-in values are not the operator's."""
_OF_THE_TRAINER = ("device", "model", "chat", "memory")
_UNREAD: Result = ("WARN", "not checked: see config", "fix the configuration first")

_CHECKS: dict[str, Callable[[DoctorFacts], Result]] = {
    "config": _config,
    "unit": _unit,
    "socket": _socket,
    "operator": _operator,
    "daemon": _daemon,
    "state": _state,
    "disk": _disk,
    "buffer": _buffer,
    "device": _device,
    "model": _model,
    "chat": _chat,
    "memory": _memory,
    "engine": lambda facts: engine_finding(facts.engine),
    "sync": lambda facts: sync_finding(facts.sync),
    "clock": _clock,
}
