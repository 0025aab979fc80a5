"""What the two programs share that write an adapter in another form: their arguments, and an answer of one line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import msgspec

from sleepd.protocol.deployment.converted_adapter import ConvertedAdapter, Quantization
from sleepd.worker.environment import prepare_environment
from sleepd.worker.failure import GiveUp


def parser_of(program: str, description: str, *, needs_adapter: bool) -> argparse.ArgumentParser:
    """The arguments that both take."""
    parser = argparse.ArgumentParser(prog=f"python -m {program}", description=description.splitlines()[0])
    parser.add_argument("--adapter", type=Path, required=needs_adapter, help="a checkpoint's directory")
    parser.add_argument("--base", required=True, help="embedded, a directory, a .gguf file or a cached hub id")
    parser.add_argument("--cache", default="", help="the hub cache; empty: the library's default place")
    parser.add_argument("--numbers", choices=get_args(Quantization), default="f16", help="of a GGUF file")
    parser.add_argument("--to", type=Path, required=True, help="what is written; the directory above it is there")
    return parser


def answer_with(convert: Callable[[argparse.Namespace], ConvertedAdapter], arguments: argparse.Namespace) -> int:
    """Convert, and write down what came of it; returns 0 also where it fails, for that is an answer."""
    prepare_environment()
    try:
        answer = convert(arguments)
    except GiveUp as error:
        answer = ConvertedAdapter(problem=error.message, hint=error.hint)
    except OSError as error:
        text = f"{arguments.to} cannot be written: {error.strerror or error}: {error.filename or ''}".rstrip(": ")
        answer = ConvertedAdapter(problem=text, hint="make room on that disk, or name another directory")
    sys.stdout.write(msgspec.json.encode(answer).decode() + "\n")
    return 0
