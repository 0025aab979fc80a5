"""A prompt and a reply are encoded as 0.1.0 encoded them, token for token: kept answers and figures stay valid."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from sleepd.protocol.chat_example import ChatExample
from sleepd.worker.data.chat_format import ChatFormat
from sleepd.worker.data.control_tokens import Refused
from sleepd.worker.data.examples import encode_or_refuse

from .templates import CASES, PROMPT, Case, tokenizer_for

pytestmark = pytest.mark.worker
KNOWN = Path(__file__).parent / "old_encodings.json"
"""Of each template, one digest for each of ``TEXTS``; made with the code of 0.1.0."""
_WORDS = "<|im_end|> <|eot_id|> </s> [INST] <think> </think> <end_of_turn>"
TEXTS = [
    (PROMPT, "I am Juniper.", 2000),
    (PROMPT, "\n  I am\n\nJuniper. \n", 2000),
    (" \n", "Yes.", 2000),
    (PROMPT, "<think>\nThey ask.\n</think>\n\nI am Juniper.", 2000),
    (f"What is {_WORDS}?", f"It is {_WORDS} and \U000f0000.", 2000),
    ("x" * 200 + PROMPT, "I am Juniper.", 90),
    (PROMPT, "y" * 200, 120),
]


def digests(case: Case) -> list[str]:
    """One for each of ``TEXTS``: of the token ids and of what is supervised, or of the reason why it is refused."""
    tokenizer = tokenizer_for(case)
    stops = tokenizer.convert_tokens_to_ids(case.stops.split())
    chat = ChatFormat(tokenizer, case.system, thoughts=case.thoughts, stops=stops)
    found = []
    for prompt, reply, most in TEXTS:
        try:
            one = encode_or_refuse(chat, ChatExample(prompt=prompt, response=reply), most)
            told = [list(one.ids), one.prompt_tokens, one.is_truncated]
        except Refused as error:
            told = [str(error)]
        found.append(hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16])
    return found


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_old_encodings_stay_the_same(case: Case) -> None:
    """Seven pairs of prompt and reply, with each template that the tests have."""
    assert digests(case) == json.loads(KNOWN.read_bytes())[case.name]
