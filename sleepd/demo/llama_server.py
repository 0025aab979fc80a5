"""The server of llama.cpp with a model and an adapter; SIGHUP starts it again with what the adapter's file says then.

It is run by its path, in an environment that has xllamacpp alone, and imports nothing of ours.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path
from typing import Final, NoReturn

import xllamacpp

_SIGNALS: Final = {signal.SIGHUP, signal.SIGTERM, signal.SIGINT}


def main() -> NoReturn:
    """Serve until SIGTERM. A model or an adapter that does not load ends it with 1."""
    options = _parser().parse_args()
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # before the server has threads; sigwait takes them
    server = xllamacpp.Server(_parameters(options))
    options.ready.write_text(server.listening_address)
    number = signal.sigwait(_SIGNALS)
    options.ready.unlink(missing_ok=True)
    # The server's own end waits for requests that are under way, and some never end.
    if number != signal.SIGHUP:
        os._exit(0)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))  # its port among them
    os.execv(sys.executable, sys.orig_argv)  # noqa: S606 - this program again, without a shell


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="llama_server.py", description=__doc__)
    parser.add_argument("--model", required=True, help="a GGUF file")
    parser.add_argument("--alias", default="agent", help="the model's name for those who ask")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--adapters", type=Path, required=True, help="a file: NAME=--lora FILE")
    parser.add_argument("--ready", type=Path, required=True, help="a file that is there while it answers")
    return parser


def _parameters(options: argparse.Namespace) -> xllamacpp.CommonParams:
    params = xllamacpp.CommonParams()
    params.model.path = options.model
    params.model_alias = {options.alias}
    params.port = options.port
    params.n_ctx, params.n_parallel, params.n_gpu_layers = 4096, 1, 0
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = max(1, (os.cpu_count() or 1) // 2)
    params.verbosity, params.warmup = 0, False
    text = options.adapters.read_text() if options.adapters.exists() else ""
    _, _, adapter = text.strip().partition("=--lora ")
    if adapter:
        params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(adapter, 1.0)]
    return params


if __name__ == "__main__":
    main()
