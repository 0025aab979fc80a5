"""``python -m sleepd.worker.programs.show_tokens``: one experience as a base sees it, by its tokenizer alone.

Standard input is a JSON object as ``ShownText`` has it; standard output one line of JSON, also where the
experience or the base cannot be used, for that is an answer.
"""

from __future__ import annotations

import argparse
import sys
from itertools import groupby

import msgspec

from sleepd.protocol.capability import SeenPiece, SeenTokens, ShownText
from sleepd.worker.environment import prepare_environment
from sleepd.worker.failure import GiveUp
from sleepd.worker.model.find_base import find_base


def main() -> int:
    """Encode it, and print every piece."""
    parser = argparse.ArgumentParser(
        prog="python -m sleepd.worker.programs.show_tokens", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--base", default="embedded")
    parser.add_argument("--cache", default="", help="the hub cache; empty: the library's default place")
    parser.add_argument("--system-prompt", default="")
    parser.add_argument("--thoughts", choices=("as_written", "drop"), default="as_written")
    parser.add_argument("--max-tokens", type=int, default=2048)
    arguments = parser.parse_args()
    prepare_environment()
    given = msgspec.json.decode(sys.stdin.buffer.read(), type=ShownText)
    sys.stdout.write(msgspec.json.encode(_seen(arguments, given)).decode() + "\n")
    return 0


def _seen(arguments: argparse.Namespace, given: ShownText) -> SeenTokens:
    from sleepd.worker.data.chat_format import ChatFormat
    from sleepd.worker.data.control_tokens import Refused
    from sleepd.worker.data.examples import Encoded, encode_or_refuse
    from sleepd.worker.model.template_check import open_tokenizer

    try:
        tokenizer, stops = open_tokenizer(find_base(arguments.base, arguments.cache))
        chat = ChatFormat(tokenizer, arguments.system_prompt, thoughts=arguments.thoughts, stops=stops)
        one = encode_or_refuse(chat, given, arguments.max_tokens)
    except GiveUp as error:
        return SeenTokens(problem=f"the base cannot be used: {error.message}", hint=error.hint)
    except Refused as error:
        return SeenTokens(problem=f"it is not trained: {error}", hint="nothing to do: other experiences are trained")

    def kind(place: int) -> tuple[bool, bool]:
        return place >= one.prompt_tokens, one.ids[place] in chat.words.by_id

    def piece(one: Encoded, places: list[int], *, is_supervised: bool, is_control: bool) -> SeenPiece:
        ids = [one.ids[place] for place in places]
        text = str(tokenizer.decode(ids, clean_up_tokenization_spaces=False))
        return SeenPiece(text=text, ids=ids, is_supervised=is_supervised, is_control=is_control)

    pieces = [
        piece(one, list(places), is_supervised=is_supervised, is_control=is_control)
        for (is_supervised, is_control), places in groupby(range(len(one.ids)), kind)
    ]
    return SeenTokens(pieces=pieces, is_truncated=one.is_truncated)


if __name__ == "__main__":
    sys.exit(main())
