"""The section ``[serve]`` of the configuration."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

Kind = Literal["", "llama-router", "llama-restart", "vllm", "peft", "merged", "command"]
WITHOUT_PACKED_BASES = ("llama-router", "llama-restart", "merged")
"""Kinds whose engines run no base whose layers are packed as ``model.quantization`` has it."""
INI_FILE = "llama-server.ini"
ENVIRONMENT_FILE = "llama-server.env"
LORA_VARIABLE = "SAGE_SLEEPD_LORA"
"""What llama-server's unit takes its adapter from: a variable in that file, in the directory of ``serve.directory``."""
_PLAIN_PATH = re.compile(r"[A-Za-z0-9/._-]*")
"""What systemd takes into a command line as one word."""


class ServeConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The engine that answers the agent."""

    kind: Annotated[
        Kind,
        Meta(
            description='How an adapter gets into the engine: "llama-router" (llama-server --models-preset), '
            '"llama-restart" (llama-server --lora, restarted), "vllm", "peft" (the agent calls sleepd.serving.follow), '
            '"merged" (base and adapter as one model, for Ollama and LM Studio), or "command" (your own program). '
            "Empty: nothing is put into an engine, and no engine is asked."
        ),
    ] = ""
    url: Annotated[
        str,
        Meta(
            description="Where the engine answers, without /v1. For a host other than this machine, allow its address "
            "in a drop-in of sage-sleep-serve.service (IPAddressAllow=)."
        ),
    ] = "http://127.0.0.1:8080"
    model: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=200,
            description="The model name that your agent asks for. For vllm a name of its own, not that of the base.",
        ),
    ] = "agent"
    key_file: Annotated[
        str,
        Meta(
            description="A file with the engine's API key, readable by the service's user only (0600). Empty: the "
            "systemd credential sage-sleepd-engine-key where there is one, else no key."
        ),
    ] = ""
    directory: Annotated[
        str,
        Meta(
            description="Where the adapters for the engine are written; the engine must be able to read it. Empty: "
            "serving/ in the state directory."
        ),
    ] = ""
    ini: Annotated[
        str,
        Meta(
            description="llama-router: the file that llama-server got with --models-preset. Only the lora line of the "
            "section that `model` names is changed. Empty: llama-server.ini in `directory`."
        ),
    ] = ""
    unit: Annotated[
        str,
        Meta(
            pattern=r"^([A-Za-z0-9:_.@\-]{1,200}\.service)?\Z",
            description="llama-restart: the systemd unit of llama-server, set up once with `sleepctl setup-serve`. "
            "Empty: `command` restarts the server.",
        ),
    ] = ""
    user_unit: Annotated[bool, Meta(description="llama-restart: the unit runs under systemctl --user.")] = False
    command: Annotated[
        str,
        Meta(
            description="command: a program that puts the adapter into the engine. It gets SLEEPD_CYCLE (0: the base), "
            "SLEEPD_ADAPTER (its directory; empty: the base), SLEEPD_MODEL and SLEEPD_URL, and ends with 0. "
            "llama-restart without a unit: it restarts llama-server with what llama-server.env in `directory` says; "
            "SLEEPD_ADAPTER is the GGUF file. merged: it loads the model in SLEEPD_ADAPTER, a directory; empty: "
            "`ollama create` does."
        ),
    ] = ""
    quantization: Annotated[
        Literal["f16", "q8_0"],
        Meta(description="The number format of the adapters that are written as GGUF files for llama-server."),
    ] = "f16"
    merged_as: Annotated[
        str,
        Meta(
            pattern=r"^(f16|q8_0|safetensors|I?Q[0-9][A-Z0-9_]{0,20})\Z",
            description='merged: the form of the model. "f16" or "q8_0": a GGUF file; "safetensors": a directory; a '
            'type of llama-quantize, such as "Q4_K_M": that program makes the GGUF file, and must be installed.',
        ),
    ] = "q8_0"
    merged_gigabytes: Annotated[
        float,
        Meta(
            ge=0.001,
            le=100000.0,
            description="merged: how much disk the merged models may take together. Two stay: the one that is served "
            "and the one before.",
        ),
    ] = 50.0
    wait_idle_seconds: Annotated[
        float,
        Meta(
            ge=0.0,
            le=86400.0,
            description="How long a swap of adapters waits for the engine to finish its requests. After that it "
            "goes ahead, and the engine may break off what is still running.",
        ),
    ] = 120.0
    ready_seconds: Annotated[
        float,
        Meta(ge=1.0, le=3600.0, description="How long the engine may take to answer again after a swap."),
    ] = 180.0
    answer_seconds: Annotated[
        float, Meta(ge=1.0, le=3600.0, description="How long one answer of the engine may take.")
    ] = 60.0
    proof_minutes: Annotated[
        float, Meta(ge=1.0, le=10080.0, description="How often the engine is asked again which adapter it runs.")
    ] = 60.0
    free_before_training: Annotated[
        bool,
        Meta(
            description="Before a cycle trains, ask the engine to free the GPU (llama-router: unload the model; vllm: "
            "sleep). It answers nothing until the cycle has ended; then it is proved again."
        ),
    ] = False

    def directory_in(self, state: Path) -> Path:
        """Where files for the engine are written, with that state directory."""
        return Path(self.directory) if self.directory else state / "serving"

    def ini_in(self, state: Path) -> Path:
        """The presets of llama-server's router."""
        return Path(self.ini) if self.ini else self.directory_in(state) / INI_FILE


def is_url(text: str) -> bool:
    """Whether ``text`` is the address of a server: a scheme and a host, and neither a name nor a password in it."""
    try:
        parts = urlsplit(text)
        is_server = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, or brackets that do not close
        return False
    is_plain = text.isascii() and text.isprintable() and " " not in text
    return is_server and is_plain and not parts.username and not parts.query and not parts.fragment


def incomplete(serve: ServeConfig) -> Iterator[tuple[str, str, object]]:
    """What its kind needs and has not: the key, what is expected there, and what was found."""
    if serve.kind == "llama-restart" and not (serve.unit or serve.command):
        yield "serve.unit", "the systemd unit of llama-server, or serve.command", serve.unit
    if serve.kind == "llama-restart" and not _PLAIN_PATH.fullmatch(serve.directory):
        yield "serve.directory", "letters, digits and . _ - / only, for systemd's command line", serve.directory
    if serve.kind == "command" and not serve.command:
        yield "serve.command", "the program that puts an adapter into the engine", serve.command
    if any(each in serve.model for each in "[]\n\r\0"):
        yield "serve.model", "a name without brackets and line breaks", serve.model
