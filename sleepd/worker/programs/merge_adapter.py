"""``python -m sleepd.worker.programs.merge_adapter``: a base and an adapter as one model, without a network.

The answer is one line of JSON. Nothing is measured here: what is known of the adapter was measured before the merging.
"""

from __future__ import annotations

import argparse
import sys
from importlib.metadata import version
from pathlib import Path

from sleepd.protocol.deployment.converted_adapter import ConvertedAdapter
from sleepd.version import VERSION
from sleepd.worker.failure import GiveUp

from .converting import answer_with, parser_of

_WAY_OUT = "name the base's .gguf file in model.base (sleepctl export: with --base-gguf)"


def main() -> int:
    """Merge one adapter; without one, write the base itself in the same form."""
    parser = parser_of("sleepd.worker.programs.merge_adapter", __doc__, needs_adapter=False)
    parser.add_argument("--expected", default="", help="the base's fingerprint; empty: it is not compared")
    parser.add_argument("--models", type=Path, required=True, help="where converted copies of models stand")
    parser.add_argument("--most-bytes", type=int, default=0, help="that the model may take on the disk; 0: no limit")
    parser.add_argument("--form", choices=("gguf", "safetensors"), required=True)
    return answer_with(merge, parser.parse_args())


def merge(arguments: argparse.Namespace) -> ConvertedAdapter:
    """Write the merged model.

    Raises:
        GiveUp: base or adapter cannot be used, or the base is another one than the adapter's.
        OSError: the disk did not take it.
    """
    from sleepd.protocol.checkpoint.base_identity import is_same_base
    from sleepd.worker.model.find_base import find_base, fingerprint
    from sleepd.worker.model.gguf.convert_gguf import open_base
    from sleepd.worker.model.gguf.gguf_architecture import find_architecture
    from sleepd.worker.model.gguf.merged_model import write_merged_directory, write_merged_gguf

    base, expected = find_base(arguments.base, arguments.cache), arguments.expected
    adapter, most_bytes = arguments.adapter, arguments.most_bytes
    if arguments.form == "safetensors":
        directory, _ = open_base(
            arguments.base, arguments.cache, arguments.models, lambda _event, _text: None, expected=expected
        )
        tensors = write_merged_directory(arguments.to, directory, adapter, most_bytes)
        return ConvertedAdapter(tensors=tensors, converter=f"peft {version('peft')} (Apache-2.0)")
    if not base.is_gguf:
        text = f"a merged GGUF file is made from the base's own GGUF file, and {base.path} is a directory"
        raise GiveUp("base_unusable", text, _WAY_OUT)
    if expected and not is_same_base(expected, fingerprint(base, arguments.models)):
        text = f"{base.path} is another base than the one that this adapter was trained on"
        raise GiveUp("base_changed", text, _WAY_OUT)
    architecture = find_architecture(base)
    tensors = write_merged_gguf(arguments.to, base.path, adapter, architecture, arguments.numbers, most_bytes)
    made = f"sage-sleepd {VERSION} (Apache-2.0), gguf {version('gguf')} (MIT)"
    return ConvertedAdapter(tensors=tensors, architecture=architecture.name, converter=made)


if __name__ == "__main__":
    sys.exit(main())
