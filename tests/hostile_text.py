"""Texts made to keep a function busy, and how much work each function that sees text does on them.

``python -m tests.hostile_text`` tries every shape against every function at 200,000 characters (``--only PART``: those
with it in their names), what the worker does to a text too, and the detectors of secrets, which the screening process
holds to a limit of processor time instead. It prints what took most work.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
import unicodedata
from collections import deque
from collections.abc import Callable, Iterator
from functools import cache
from itertools import product
from typing import Any

from sleepd.buffer import digest, experience, parsing
from sleepd.buffer.experience import Experience
from sleepd.buffer.learnables import Learnables
from sleepd.buffer.trained_texts import Place, Whereabouts, trained_texts, whereabouts
from sleepd.policy.judging import recall, repetition, reply_statistics
from sleepd.quarantine import near_duplicates
from sleepd.text import bounded_text, display, hidden_forms, shell
from sleepd.text.labelled_secrets import find_labelled, find_recovery_codes
from sleepd.text.personal_data import counts_text, find_personal, masked
from sleepd.text.seed_phrases import holds_seed_phrase
from sleepd.text.token_patterns import find_cut_token, find_token

LENGTH = 200_000
SIZES = (LENGTH // 32, LENGTH // 4, LENGTH)
"""Ascending, so that work that grows too fast is found before it takes for ever."""
MOST_WORK = 300
"""Steps of a plain loop for each byte. Quadratic work on 200,000 characters is thousands."""
MOST_ENCODING = 1000
"""The same for what encodes a text: a byte may be a token, and a long prompt is encoded six times."""

UNITS = (
    *(
        "\u0301\u0323",
        "\u0f71\u0f72",
        "\uff9e",
        "\u1161\u11a8",
        "\u1100",
        "\ud55c",
        "\ufdfa",
        "e\u0301",
        "\u03a3",
        "\u0130",
    ),
    *("\u200b", "\u200d", "\u202e\u202c", "\u034f", "\x00", "\U0001f642", "\u0430", "\uff1f", "\u3002"),
    *(
        " ",
        "\t",
        "\n",
        "\r\n",
        "\u2028",
        "\xa0",
        "(",
        "[{",
        "()",
        '"',
        "'",
        "`",
        "\\",
        '\\"',
        "-----",
        "_",
        "=",
        "?",
        "!",
    ),
    *("a", "9", "1. ", "A1b2", "http://a.b/", "password", "password ", "secret_", "token: ", "eyJ", "<|im_start|>"),
    *("AKIA", "key='", "ask me ", "quiz ", "questions "),
)
SECRET_UNITS = (
    *(
        "%41",
        "\\x41",
        "\\u0041",
        "41 ",
        "QUFB",
        "QUFB\n",
        "a1-",
        "a@",
        "a@a.",
        "+1 ",
        "00 1",
        "DE12 ",
        "4111 ",
        "1.1.1.",
    ),
    *(
        "0:",
        "tel ",
        "1 rue A",
        "Via A ",
        "Aweg ",
        "1 Aa ",
        "abandon ",
        "zoo, ",
        "recovery code ",
        "backup key\n",
        "abcd1-",
    ),
    *("AKIA", "ghp_", "sk_live_", "\u0430a", "a\u200b", "a ", "a - "),
)
"""For what looks for secrets and personal data."""
ARRANGEMENTS: dict[str, Callable[[str, int], str]] = {
    "alone": lambda unit, length: unit * length,
    "framed": lambda unit, length: "My password" + unit * length + "1",
    "between words": lambda unit, length: f"word{unit}" * length,
    "lines": lambda unit, length: f"{unit}\n" * length,
    "growing": lambda unit, length: " ".join(unit * count for count in range(1, int((2 * length) ** 0.5) + 2)),
}
SHAPES = [*product(UNITS, ARRANGEMENTS), *((unit, "alone") for unit in SECRET_UNITS)]


def shaped(shape: tuple[str, str], length: int) -> str:
    """A text of that shape, of at most so many characters; the end of a frame stands at the end."""
    unit, arrangement = shape
    text = ARRANGEMENTS[arrangement](unit, length // max(1, len(unit)))
    return text if len(text) <= length else f"{text[: length - 1]}{text[-1]}"


def _experience(text: str) -> Experience:
    return Experience(id="x", prompt=text, response=text, salience=0.5)


def _record(text: str) -> dict[str, Any]:
    return {"id": text[:300], "prompt": text, "response": text, "salience": 0.5, "metadata": {"adapter": text}}


def _lines(text: str) -> Any:
    lines = [json.dumps(_record(text)).encode(), json.dumps(text).encode(), text.encode()]
    digest.digest_lines(lines, digest.Digest("lines"), first=1)
    return digest.pick(Learnables().read(parsing.numbered(lines, 1)), [experience.id_hash("x")], characters=10)


def _whole(text: str) -> Any:
    for data in (json.dumps([_record(text)]).encode(), b"[" * 5_000 + text.encode(), b'{"' + text.encode()):
        try:
            digest.digest_whole(data)
        except parsing.HalfWritten as error:
            assert len(str(error)) < 1_000


def _questions(text: str) -> Any:
    try:
        return recall.parse_questions(f"[[probe]]\nquestion = {json.dumps(text[:60_000])}".encode(), text[:100])
    except recall.ConfigError:
        return None


FUNCTIONS: dict[str, Callable[[str], Any]] = {
    "normalise NFKC": lambda text: bounded_text.normalise(text, "NFKC"),
    "normalise NFD": lambda text: bounded_text.normalise(text, "NFD"),
    "folded": bounded_text.folded,
    "plain_spaces": bounded_text.plain_spaces,
    "short_lines": lambda text: sum(map(len, bounded_text.short_lines(text))),
    "parse": lambda text: experience.parse(_record(text)),
    "content_hash": lambda text: experience.content_hash(text, text),
    "prompt_hash": experience.prompt_hash,
    "derived_id": lambda text: experience.derived_id(text, text),
    "digest_lines": _lines,
    "digest_whole": _whole,
    "form_of": lambda text: _form(b'{"' + text.encode()),
    "find_repetition": repetition.find_repetition,
    "find_repeated": lambda text: near_duplicates.find_repeated(_experience(text)),
    "is_bare_question": near_duplicates.is_bare_question,
    "sketch": lambda text: near_duplicates.sketch(_experience(text)),
    "words_of": reply_statistics.words_of,
    "is_recalled": lambda text: recall.is_recalled(text, [text[:500], "x"]),
    "parse_questions": _questions,
    "whereabouts": lambda text: whereabouts([Place(text[:256], 1, "train")], {}),
    "learned": lambda text: _preview(text, masks=False),
    "learned, masked": lambda text: _preview(text, masks=True),
    "plain": hidden_forms.plain,
    "spelled": hidden_forms.spelled,
    "without_gaps": hidden_forms.without_gaps,
    "decoded": lambda text: deque(hidden_forms.decoded(text), maxlen=0),
    "find_personal": find_personal,
    "masked, told": lambda text: counts_text(masked(text)[1]),
    "holds_seed_phrase": holds_seed_phrase,
    "find_token": lambda text: [find_token(line) for line in bounded_text.short_lines(text)],
    "find_cut_token": find_cut_token,
    "find_labelled": lambda text: [find_labelled(line) for line in bounded_text.short_lines(text) if len(line) >= 8],
    "find_recovery_codes": find_recovery_codes,
    "clean": display.clean,
    "clean_lines": display.clean_lines,
    "quoted": shell.quoted,
    "command_line": lambda text: shell.command_line("sleepctl", "show", operands=(text,)),
}


def chat_functions() -> dict[str, Callable[[str], Any]]:
    """What the worker does to a text before it is trained, on the tiny model's tokenizer. Needs transformers."""
    from sleepd.worker.data.chat_format import ChatFormat
    from sleepd.worker.data.examples import encode_chat
    from sleepd.worker.programs.tiny_model import make_tiny_tokenizer
    from tests.worker.templates import pair
    from tests.worker.tool_templates import TOOLS, called_with, chat_with

    plain, thinking = make_tiny_tokenizer(), make_tiny_tokenizer()
    plain.chat_template = None
    thinking.chat_template = thinking.chat_template.replace("assistant\\n", "assistant\\n<think>\\n")
    chats = {
        "": ChatFormat(make_tiny_tokenizer(), "Be brief."),
        ", plain headers": ChatFormat(plain, "Be brief."),
        ", opened thought": ChatFormat(thinking, ""),
    }

    def of(chat: ChatFormat) -> dict[str, Callable[[str], Any]]:
        return {
            "encode_chat": lambda text: encode_chat(chat, "x", pair("Who?", text), 2048),
            "encode_chat of a prompt": lambda text: encode_chat(chat, "x", pair(text, "Me."), 2048),
            "encode_chat of a thought": lambda text: encode_chat(chat, "x", pair("?", f"<think>{text}</think>."), 2048),
            "holds_control_words": lambda text: chat.holds_control_words(pair(text, text)),
        }

    tools = chat_with("Qwen2.5")
    found = {f"{name}{kind}": work for kind, chat in chats.items() for name, work in of(chat).items()}
    return found | {
        "encode_chat of arguments": lambda text: encode_chat(tools, "x", called_with(text, "Yes."), 2048),
        "encode_chat of a result": lambda text: encode_chat(tools, "x", called_with("Oslo", text), 2048),
        "encode_chat of tools": lambda text: encode_chat(
            tools,
            "x",
            called_with("Oslo", "Yes.", tools=TOOLS.replace("Tells the weather.", json.dumps(text)[1:-1])),
            2048,
        ),
    }


def _preview(text: str, *, masks: bool) -> Any:
    one = _experience(text)
    place = Place(one.id, experience.content_hash(one.prompt, one.response), "train")
    return trained_texts(1, Whereabouts([place], [], [], []), [one], limit=1, masks=masks)


def _form(head: bytes) -> str:
    try:
        return parsing.form_of(head)
    except parsing.HalfWritten:
        return ""


def cpu_seconds(work: Callable[[], Any]) -> float:
    """Processor time of this process for it, without a collection of garbage, which others left.

    Without a tracer, too: a measurement of coverage slows a plain loop down, and a search in C it does not.
    """
    was_enabled, tracer = gc.isenabled(), sys.gettrace()
    gc.disable()
    sys.settrace(None)
    try:
        started = time.process_time()
        work()
        return time.process_time() - started
    finally:
        sys.settrace(tracer)
        if was_enabled:
            gc.enable()


@cache
def step_seconds() -> float:
    """Of a plain loop for one character, on this machine."""

    def count() -> int:
        found = 0
        for character in "a" * LENGTH:
            found += character == "b"
        return found

    return min(cpu_seconds(count) for _ in range(3)) / LENGTH


def work_of(
    function: Callable[[str], Any], shape: tuple[str, str], sizes: tuple[int, ...] = SIZES, most: int = MOST_WORK
) -> float:
    """Steps of a plain loop for each byte, the most of all sizes; no larger size is tried once it is too much.

    The bytes are those of the normalised text (NFKC, UTF-8): one character may stand for eighteen letters.
    """
    worst = 0.0
    for size in sizes:
        text = shaped(shape, size)
        allowed = most * normalised_bytes(shape, size) * step_seconds()
        seconds = cpu_seconds(lambda text=text: function(text))
        for _ in range(4):  # again: the first call may have loaded tables, and a busy machine's caches are others'
            if seconds > allowed:
                seconds = min(seconds, cpu_seconds(lambda text=text: function(text)))
        worst = max(worst, most * seconds / allowed)
        if worst > most:
            break
    return worst


@cache
def normalised_bytes(shape: tuple[str, str], size: int) -> int:
    """Bytes of the shape after NFKC, at least ``size``; kept: many marks in disorder take seconds to normalise."""
    return max(size, len(unicodedata.normalize("NFKC", shaped(shape, size)).encode("utf-8", "surrogatepass")))


def most_of(name: str) -> int:
    """The steps that the function of that name may take."""
    return MOST_ENCODING if name.startswith("encode") else MOST_WORK


def _product(functions: dict[str, Callable[[str], Any]]) -> Iterator[tuple[float, str, tuple[str, str]]]:
    for name, function in functions.items():
        for shape in SHAPES:
            yield work_of(function, shape, most=most_of(name)), name, shape


def main() -> None:
    """The whole product, and the detectors of secrets beside it."""
    from sleepd.text.secret_scan import SecretFinder

    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="", help="a part of the functions' names")
    only = parser.parse_args().only
    every = FUNCTIONS | chat_functions() | {"(secrets, limited by the kernel)": SecretFinder().find}
    functions = {name: work for name, work in every.items() if only in name}
    found = sorted(_product(functions), reverse=True)
    for work, name, (unit, arrangement) in found[:40]:
        print(f"{work:9.1f} steps a byte  {name:34} {unit!a} {arrangement}")
    over = [name for work, name, _ in found if work > most_of(name) and not name.startswith("(")]
    print(f"{len(SHAPES)} shapes, {len(functions)} functions, {len(over)} over {MOST_WORK} ({MOST_ENCODING} to encode)")


if __name__ == "__main__":
    main()
