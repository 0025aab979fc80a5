"""``python -m sleepd.worker.probe``: which device and which base a cycle would use here, as one line of JSON.

For ``sleepctl doctor``, which must not import torch. The same functions choose as in a cycle; no weights are loaded.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import msgspec

from sleepd.protocol.capability import Capability
from sleepd.version import VERSION

from .environment import prepare_environment
from .failure import GiveUp
from .model.find_base import find_base


def main() -> int:
    """Print what was found; returns 0 also where nothing is usable, for that is an answer."""
    parser = argparse.ArgumentParser(prog="python -m sleepd.worker.probe", description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--base", default="embedded")
    parser.add_argument("--cache", default="", help="the hub cache; empty: the library's default place")
    parser.add_argument("--system-prompt", default="")
    parser.add_argument("--thoughts", choices=("as_written", "drop"), default="as_written")
    given = parser.parse_args()
    prepare_environment()
    found = Capability(version=VERSION, **_device(given.device), **_base(given.base, given.cache), **_chat(given))
    sys.stdout.write(msgspec.json.encode(found).decode() + "\n")
    return 0


def _device(asked: str) -> dict[str, Any]:
    try:
        import torch

        from .model.device import choose_device
    except (ImportError, OSError) as error:  # OSError: one of its shared libraries
        return {
            "device_problem": f"torch, transformers and peft cannot be imported: {error}",
            "device_hint": "pip install 'sage-sleepd[worker]' there, or set worker.python to an interpreter with them",
        }
    try:
        device = choose_device(asked)
    except GiveUp as error:
        return {"torch": str(torch.__version__), "device_problem": error.message, "device_hint": error.hint}
    is_gpu = device.torch_device.type == "cuda"
    return {
        "torch": str(torch.__version__),
        "device": device.description,
        "dtype": str(device.dtype).removeprefix("torch."),
        "device_free_bytes": torch.cuda.mem_get_info(device.torch_device)[0] if is_gpu else None,
    }


def _base(name: str, cache: str) -> dict[str, Any]:
    try:
        base = find_base(name, cache)
        return {"base_path": str(base.path), "base_bytes": sum(file.stat().st_size for file in base.weights)}
    except GiveUp as error:
        return {"base_problem": error.message, "base_hint": error.hint}
    except (ImportError, OSError) as error:
        return {"base_problem": f"{name}: {error}", "base_hint": "see model.base and who may read it"}


def _chat(given: argparse.Namespace) -> dict[str, Any]:
    try:
        from .model.template_check import contract_of, open_tokenizer

        tokenizer, stops = open_tokenizer(find_base(given.base, given.cache))
        return {"chat": contract_of(tokenizer, stops, given.system_prompt, given.thoughts)}
    except GiveUp as error:
        return {"chat_problem": error.message, "chat_hint": error.hint}
    except (ImportError, OSError) as error:
        return {"chat_problem": f"not checked: {error}", "chat_hint": "see device and model"}


if __name__ == "__main__":
    sys.exit(main())
