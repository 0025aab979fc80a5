"""What a worker program answers that writes an adapter in another form."""

from __future__ import annotations

from typing import Literal

import msgspec

Quantization = Literal["f32", "f16", "q8_0"]
"""How a GGUF file holds its numbers."""


class ConvertedAdapter(msgspec.Struct, frozen=True, kw_only=True):
    """The last line of ``python -m sleepd.worker.programs.adapter_to_gguf``."""

    tensors: int = 0
    architecture: str = ""
    """As GGUF calls that of the base."""
    converter: str = ""
    """The packages that wrote it, with their versions."""
    problem: str = ""
    """Why there is no file; empty: there is one, and it was read back."""
    hint: str = ""
