"""``python -m sleepd.worker.programs.ask``: put questions to a base, with an adapter or without, and print the replies.

The questions are a JSON list of strings, the replies one JSON list on stdout. Greedy, so asking twice gives the same.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from pathlib import Path

from sleepd.worker.environment import prepare_environment
from sleepd.worker.failure import GiveUp

QUESTIONS_AT_ONCE = 16
REPLY_TOKENS = 96

_log = logging.getLogger(__name__)


def main() -> int:
    """Ask, and write the replies. Exit code 1 where the base or the adapter cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m sleepd.worker.programs.ask", description=__doc__.splitlines()[0])
    parser.add_argument("--base", required=True, help="embedded, a directory, a .gguf file or a cached hub id")
    parser.add_argument("--models", type=Path, required=True, help="where converted copies of models stand")
    parser.add_argument("--cache", default="", help="the hub cache, where it is not the default one")
    parser.add_argument("--adapter", type=Path, help="an adapter's directory; without one the base itself replies")
    parser.add_argument("--system-prompt", default="")
    parser.add_argument("--questions", type=Path, required=True, help="a JSON list of strings")
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    prepare_environment()
    try:
        replies = ask(arguments)
    except GiveUp as error:
        _log.error("%s; %s", error.message, error.hint)
        return 1
    sys.stdout.write(json.dumps(replies, ensure_ascii=False) + "\n")
    return 0


def ask(arguments: argparse.Namespace) -> list[str]:
    """One reply to each question.

    Raises:
        GiveUp: the questions, the base or the adapter cannot be used.
    """
    questions = _read_questions(arguments.questions)
    from transformers.utils import logging as transformers_logging

    from sleepd.worker.data.chat_format import ChatFormat
    from sleepd.worker.model.adapter import load_adapted, load_base
    from sleepd.worker.model.device import choose_device
    from sleepd.worker.model.generate import greedy_replies, named_stops, stop_ids
    from sleepd.worker.model.gguf.convert_gguf import open_base

    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    directory, _ = open_base(arguments.base, arguments.cache, arguments.models, lambda _event, text: _log.info(text))
    device = choose_device(arguments.device)
    model, tokenizer = (
        load_adapted(directory, arguments.adapter, device) if arguments.adapter else load_base(directory, device)
    )
    chat = ChatFormat(tokenizer, arguments.system_prompt, stops=named_stops(model.generation_config))
    replies: list[str] = []
    for start in range(0, len(questions), QUESTIONS_AT_ONCE):
        ids = greedy_replies(
            model,
            device,
            [chat.prompt_ids(question) for question in questions[start : start + QUESTIONS_AT_ONCE]],
            stop_ids=stop_ids(model, chat),
            max_new_tokens=REPLY_TOKENS,
        )
        replies += [tokenizer.decode(reply, skip_special_tokens=True).strip() for reply in ids]
    return replies


def _read_questions(path: Path) -> list[str]:
    try:
        questions = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise GiveUp("bad_job", f"the questions cannot be read: {error}", "give a JSON list of strings") from error
    if not isinstance(questions, list) or not all(isinstance(one, str) for one in questions):
        raise GiveUp("bad_job", f"{path} holds no JSON list of strings", 'such as ["Who are you?"]')
    return questions


if __name__ == "__main__":
    sys.exit(main())
