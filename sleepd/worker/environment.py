"""The environment of a worker program: cut off from the model hub, and without what systemd meant for the daemon."""

from __future__ import annotations

import os
import warnings

from sleepd.host import NO_HUB, SYSTEMD_VARIABLES

_QUIET = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
_YIELDING = {
    # Threads that wait for each other by spinning come to a crawl as soon as anybody else uses a core: 27 tokens a
    # second instead of 170 beside one busy process, measured on two cores.
    "OMP_WAIT_POLICY": "passive",
}
_ALLOCATOR = dict.fromkeys(("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"), "expandable_segments:True")
"""Rows of many lengths leave holes in the blocks of a GPU; segments that grow have none. Torch before 2.9 reads the
second name."""
_KNOWN_WARNINGS = (
    # peft 0.21 asks transformers 5.24 under the older name; both know the newer one.
    "`is_gradient_checkpointing` is deprecated",
    # transformers 5.24 says it of its own generation.
    ".past_key_values. is deprecated",
)
"""FutureWarnings of the libraries that concern nothing of ours, as regular expressions of their beginnings."""


def prepare_environment() -> None:
    """Set the variables of this process. Must run before torch or transformers is imported."""
    for name in SYSTEMD_VARIABLES:
        os.environ.pop(name, None)
    os.environ.update(NO_HUB | _QUIET)
    for name, value in (_YIELDING | _ALLOCATOR).items():
        os.environ.setdefault(name, value)


def silence_known_warnings() -> None:
    """Keep those of ``_KNOWN_WARNINGS`` out of the log; a new one is seen."""
    for beginning in _KNOWN_WARNINGS:
        warnings.filterwarnings("ignore", message=beginning, category=FutureWarning)
