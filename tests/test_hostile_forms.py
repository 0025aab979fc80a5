"""What finds secrets and personal data does work that grows with a text's length alone."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import pytest

from sleepd import plain_forms
from sleepd.personal_data import masked
from sleepd.seed_phrases import holds_seed_phrase
from sleepd.token_shapes import find_cut_token
from sleepd.told_secrets import find_recovery_codes
from tests.hostile_text import LENGTH, MOST_WORK, SHAPES, work_of

FUNCTIONS: dict[str, Callable[[str], Any]] = {
    "plain": plain_forms.plain,
    "spelled": plain_forms.spelled,
    "without_gaps": plain_forms.without_gaps,
    "decoded": lambda text: deque(plain_forms.decoded(text), maxlen=0),
    "masked": masked,
    "holds_seed_phrase": holds_seed_phrase,
    "find_cut_token": find_cut_token,
    "find_recovery_codes": find_recovery_codes,
}
UNITS = (
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
SECRET_SHAPES = [(unit, "alone") for unit in UNITS]


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_work_of_each_form_is_bounded(name: str) -> None:
    """On each shape at 6,250 characters, and on those made for it at 50,000, a character costs at most 150 steps."""
    function = FUNCTIONS[name]
    work = {shape: work_of(function, shape, (LENGTH // 32,)) for shape in SHAPES}
    work |= {shape: work_of(function, shape, (LENGTH // 4,)) for shape in SECRET_SHAPES}
    assert {shape: steps for shape, steps in work.items() if steps > MOST_WORK} == {}
