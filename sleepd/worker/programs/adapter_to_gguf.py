"""``python -m sleepd.worker.programs.adapter_to_gguf``: one adapter as a GGUF file for llama.cpp, without a network.

The answer is one line of JSON. The file is read back and compared before the answer names no problem.
"""

from __future__ import annotations

import argparse
import sys
from importlib.metadata import version
from pathlib import Path
from typing import get_args

import msgspec

from sleepd.protocol.deployment.converted_adapter import ConvertedAdapter, Quantization
from sleepd.version import VERSION
from sleepd.worker.environment import prepare_environment
from sleepd.worker.failure import GiveUp


def main() -> int:
    """Convert, and say what came of it; returns 0 also where it fails, for that is an answer."""
    parser = argparse.ArgumentParser(
        prog="python -m sleepd.worker.programs.adapter_to_gguf", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--adapter", type=Path, required=True, help="a checkpoint's directory")
    parser.add_argument("--base", required=True, help="embedded, a directory, a .gguf file or a cached hub id")
    parser.add_argument("--cache", default="", help="the hub cache; empty: the library's default place")
    parser.add_argument("--numbers", choices=get_args(Quantization), default="f16")
    parser.add_argument("--to", type=Path, required=True, help="the file; its directory is there")
    arguments = parser.parse_args()
    prepare_environment()
    try:
        answer = convert(arguments)
    except GiveUp as error:
        answer = ConvertedAdapter(problem=error.message, hint=error.hint)
    except OSError as error:
        text = f"{arguments.to} cannot be written: {error.strerror or error}"
        answer = ConvertedAdapter(problem=text, hint="make room on that disk, or name another directory")
    sys.stdout.write(msgspec.json.encode(answer).decode() + "\n")
    return 0


def convert(arguments: argparse.Namespace) -> ConvertedAdapter:
    """Write the file, and read it back.

    Raises:
        GiveUp: base or adapter cannot be used, or the file is not what it should be.
        OSError: the disk did not take it.
    """
    from sleepd.worker.model.find_base import find_base
    from sleepd.worker.model.gguf.gguf_adapter import (
        check_fits_base,
        check_gguf_adapter,
        read_for_gguf,
        write_gguf_adapter,
    )
    from sleepd.worker.model.gguf.gguf_architecture import find_architecture

    base = find_base(arguments.base, arguments.cache)
    architecture = find_architecture(base)
    tensors, alpha = read_for_gguf(arguments.adapter, architecture)
    if base.is_gguf:
        check_fits_base(base.path, tensors)
    name = arguments.adapter.resolve().name
    write_gguf_adapter(arguments.to, name, architecture, tensors, alpha, arguments.numbers)
    check_gguf_adapter(arguments.to, architecture, tensors, alpha, arguments.numbers)
    converter = f"sage-sleepd {VERSION} (Apache-2.0), gguf {version('gguf')} (MIT)"
    return ConvertedAdapter(tensors=len(tensors), architecture=architecture.name, converter=converter)


if __name__ == "__main__":
    sys.exit(main())
