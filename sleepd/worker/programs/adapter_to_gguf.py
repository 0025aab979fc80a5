"""``python -m sleepd.worker.programs.adapter_to_gguf``: one adapter as a GGUF file for llama.cpp, without a network.

The answer is one line of JSON. The file is read back and compared before the answer names no problem.
"""

from __future__ import annotations

import argparse
import sys
from importlib.metadata import version

from sleepd.protocol.deployment.converted_adapter import ConvertedAdapter
from sleepd.version import VERSION

from .converting import answer_with, parser_of


def main() -> int:
    """Convert one adapter."""
    parser = parser_of("sleepd.worker.programs.adapter_to_gguf", __doc__, needs_adapter=True)
    return answer_with(convert, parser.parse_args())


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
