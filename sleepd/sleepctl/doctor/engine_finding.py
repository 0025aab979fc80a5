"""What ``sleepctl doctor`` finds in the engine that answers the agent: its facts gathered, and judged."""

from __future__ import annotations

import os
from contextlib import suppress

import msgspec

from sleepd.config.schema import Config
from sleepd.errors import ConfigError, PermissionDenied, SleepdError
from sleepd.protocol.deployment.adapter_fingerprint import LEAST_CHANCES
from sleepd.protocol.deployment.live_request import LiveAnswer, LiveRequest
from sleepd.protocol.status import Status
from sleepd.sleepctl.endpoint_asking import ask_endpoint
from sleepd.text.shell import command_line

from .doctor_facts import EngineFacts, Result

_SECONDS = 20.0
"""For one answer; the first one may wait until the engine has loaded its model."""
_OTHERS = 0o077
_KEY_OF_SYSTEMD = "sleepctl status shows what the service finds, which may have a key from systemd"


def engine_facts(config: Config, status: Status | None) -> EngineFacts:
    """The engine is asked, unless it has given the GPU to a cycle: a question would have it load its model."""
    serve = config.serve
    if not serve.kind:
        return EngineFacts()
    mode: int | None = None
    with suppress(OSError):
        mode = os.stat(serve.key_file).st_mode & 0o777 if serve.key_file else None
    facts = EngineFacts(kind=serve.kind, url=serve.url, key_file=serve.key_file, key_mode=mode)
    if serve.free_before_training and status is not None and status.state in ("training", "evaluating"):
        text = "it has freed the GPU for the cycle that trains"
        hint = "sleepctl doctor, when the cycle has ended"
        return msgspec.structs.replace(facts, problem=text, hint=hint, was_asked=False)
    request = LiveRequest(
        url=serve.url,
        model=serve.model,
        key_file=serve.key_file,
        state=config.state.directory,
        seconds=_SECONDS,
        is_check=True,
    )
    try:
        return msgspec.structs.replace(facts, answer=ask_endpoint(request))
    except SleepdError as error:
        wants_key = not serve.key_file and "status 401" in error.message
        hint = _KEY_OF_SYSTEMD if wants_key else error.hint
        is_ours = wants_key or isinstance(error, PermissionDenied | ConfigError)
        return msgspec.structs.replace(facts, problem=error.message, hint=hint, was_asked=not is_ours)


def engine_finding(facts: EngineFacts) -> Result:
    """Reachable, with log-probabilities, and running what is in use?"""
    if not facts.kind:
        return "PASS", "none is configured (serve.kind): adapters are put in use by the link `current` alone", ""
    if facts.key_mode is not None and facts.key_mode & _OTHERS:
        text = f"{facts.key_file}: others may read the engine's key (mode {facts.key_mode:o})"
        return "FAIL", text, command_line("sudo", "chmod", "600", facts.key_file)
    if facts.answer is None:
        if facts.was_asked:
            return "FAIL", facts.problem, facts.hint
        return "WARN", f"not asked: {facts.problem}", facts.hint
    return _of_answer(facts.url, facts.answer)


def _of_answer(url: str, answer: LiveAnswer) -> Result:
    identity = answer.identity
    wanted = "the base model" if answer.in_use is None else f"cycle {answer.in_use}"
    if identity.kind == "no_logprobs":
        few = f"fewer than {LEAST_CHANCES} log-probabilities for a token"
        text = f"{url} answers with {few}: what it runs cannot be proved"
        return "WARN", text, "use an engine that gives them, such as llama-server or vLLM"
    if not answer.compared:
        return "PASS", f"{url} answers, with log-probabilities; no cycle has recorded its answers yet", ""
    if answer.is_in_use:
        return "PASS", f"{url} answers with {identity.text}, which is in use", ""
    if identity.kind == "too_coarse":
        return "WARN", f"{url}: {identity.reason}", "sleepctl live"
    if identity.kind == "other_template":
        text = f"{url} has another chat template: {identity.reason}"
        return "FAIL", text, "start the engine with the base's own chat template, then: sleepctl reload"
    return "FAIL", f"{url} answers with {identity.text}; in use is {wanted}", "sleepctl reload; then: sleepctl status"
