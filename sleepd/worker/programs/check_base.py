"""Whether a base can be trained, and what memory a cycle takes: one line of JSON.

For ``sleepctl doctor``. No weight is read: the model is built on the meta device and compared with the files' tables of
contents. The same functions refuse as in a cycle. Of a GGUF that is still to be converted only its configuration is
checked, for its tensors are compared while it is converted.
"""

from __future__ import annotations

import argparse
import resource
import sys
from typing import Any

import msgspec

from sleepd.config.strategies import find_strategy
from sleepd.errors import NotFound
from sleepd.protocol.capability import BaseCheck, ShownText
from sleepd.protocol.strategy import Strategy
from sleepd.worker.environment import prepare_environment
from sleepd.worker.failure import GiveUp
from sleepd.worker.model.find_base import Base, adapter_beside, find_base
from sleepd.worker.model.memory.memory_estimate import Shape, needed_bytes, shape_of


def main() -> int:
    """Print what was found; returns 0 also where the base is unusable, for that is an answer."""
    parser = argparse.ArgumentParser(
        prog="python -m sleepd.worker.programs.check_base", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--base", default="embedded")
    parser.add_argument("--cache", default="", help="the hub cache; empty: the library's default place")
    parser.add_argument("--quantization", choices=("none", "nf4"), default="none")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--strategy", default="consolidate")
    parser.add_argument("--row-tokens", type=int, help="of the longest row; default: see --longest")
    parser.add_argument("--longest", action="store_true", help="stdin is the buffer's longest experience")
    parser.add_argument("--system-prompt", default="")
    parser.add_argument("--thoughts", choices=("as_written", "drop"), default="as_written")
    parser.add_argument("--memory-bytes", type=int, default=0, help="most memory for looking; 0: no limit")
    given = parser.parse_args()
    if given.memory_bytes:
        resource.setrlimit(resource.RLIMIT_DATA, (given.memory_bytes, given.memory_bytes))
    prepare_environment()
    try:
        found = _check(given)
    except GiveUp as error:
        found = BaseCheck(problem=error.message, hint=error.hint)
    except MemoryError:
        text = f"{given.base}: looking at it, without its weights, takes more than {given.memory_bytes / 2**30:.0f} GiB"
        found = BaseCheck(problem=text, hint="compare config.json and tokenizer.json with their source")
    sys.stdout.write(msgspec.json.encode(found).decode() + "\n")
    return 0


def _check(given: argparse.Namespace) -> BaseCheck:
    try:
        strategy = find_strategy(given.strategy)
    except NotFound as error:
        raise GiveUp("bad_job", error.message, error.hint) from error
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    from sleepd.worker.model.adapter import start_adapter
    from sleepd.worker.model.device import choose_device
    from sleepd.worker.model.quantization import to_be_quantised

    base, device = find_base(given.base, given.cache), choose_device(given.device)
    model = _skeleton(base, device, given.quantization)
    packed = to_be_quantised(model, given.quantization)
    notices = []
    if not base.is_gguf and (beside := adapter_beside(base.path)):
        notices.append(f"{base.path} holds {beside}: the base is used without that adapter")
    config = model.config.get_text_config()
    adapted = start_adapter(model, strategy, 0, lambda _event, text: notices.append(text))
    row = given.row_tokens
    if given.longest and (longest := _longest(given, base, strategy.max_tokens)):
        row = max(longest, strategy.micro_batch_tokens)
    return _told(adapted, shape_of(adapted, config, packed), strategy, notices, base, device, row)


def _longest(given: argparse.Namespace, base: Base, max_tokens: int) -> int | None:
    """Tokens of the longest experience; None: it cannot be trained, which the check of the chat template tells."""
    from sleepd.worker.data.chat_format import ChatFormat
    from sleepd.worker.data.control_tokens import Refused
    from sleepd.worker.data.examples import encode_or_refuse
    from sleepd.worker.model.template_check import open_tokenizer

    text = msgspec.json.decode(sys.stdin.buffer.read(), type=ShownText)
    try:
        tokenizer, stops = open_tokenizer(base)
        chat = ChatFormat(tokenizer, given.system_prompt, thoughts=given.thoughts, stops=stops)
        return len(encode_or_refuse(chat, text, max_tokens).ids)
    except (GiveUp, Refused):
        return None


def _skeleton(base: Base, device: Any, quantization: str) -> Any:
    from sleepd.worker.model.loading import check_base
    from sleepd.worker.model.quantization import require_quantization

    if base.is_gguf:
        require_quantization(quantization, device)
        return _gguf_skeleton(base)
    return check_base(base.path, device, quantization)


def _gguf_skeleton(base: Base) -> Any:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from sleepd.worker.model.find_base import seen_files
    from sleepd.worker.model.inspect_base import reading

    with reading(f"{base.path} cannot be read as a model"), seen_files(base.path) as seen, torch.device("meta"):
        config = AutoConfig.from_pretrained(seen, gguf_file=base.path.name, local_files_only=True)
        return AutoModelForCausalLM.from_config(config)


def _told(
    adapted: Any, shape: Shape, strategy: Strategy, notices: list[str], base: Base, device: Any, tokens: int | None
) -> BaseCheck:
    from sleepd.worker.model.adapted_layers import adapted_layers
    from sleepd.worker.model.device import attention_for
    from sleepd.worker.model.inspect_base import most_positions
    from sleepd.worker.model.memory.memory_estimate import Need

    config = adapted.config.get_text_config()
    positions = most_positions(config)
    longest = min(strategy.max_tokens, positions or strategy.max_tokens)
    number_bytes = 2 if str(device.dtype) == "torch.bfloat16" else 4
    need = Need(
        shape,
        number_bytes=number_bytes,
        is_eager=attention_for(config.to_dict()) == "eager",
        is_converted=base.is_gguf,
    )
    row = min(tokens or longest, longest)
    names = sorted({name.rpartition(".")[2] for name in adapted_layers(adapted)})
    return BaseCheck(
        architecture=str(config.model_type),
        adapts=names,
        positions=positions,
        needed_bytes=needed_bytes(need, row),
        row_tokens=row,
        is_buffer_seen=tokens is not None,
        longest_tokens=longest,
        longest_bytes=needed_bytes(need, longest),
        notices=notices,
    )


if __name__ == "__main__":
    sys.exit(main())
