"""What is supervised, template by template, and that no text becomes structure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sleepd.config.strategies import STRATEGIES
from sleepd.protocol.job import Job
from sleepd.worker.data.chat_format import ChatFormat, RenderedConversation
from sleepd.worker.data.control_tokens import Refused
from sleepd.worker.data.examples import encode_chat, encode_generated, encode_or_refuse
from sleepd.worker.evaluation.reference_answers import answers_file
from sleepd.worker.failure import GiveUp
from sleepd.worker.model.loading import open_chat
from sleepd.worker.model.template_check import check

from .templates import CASES, CHATML, PROMPT, REFUSED, Case, by_name, make_tokenizer, pair, tokenizer_for

pytestmark = [pytest.mark.worker, pytest.mark.no_cover]  # what it adds to the coverage, others measure
_IM = "<|endoftext|> <|im_start|> <|im_end|>"


def shown(tokenizer: Any, ids: Sequence[int]) -> str:
    """The ids as text, control tokens in brackets; the text between two of them is decoded in one go."""
    added = tokenizer.added_tokens_decoder
    out, run = "", []
    for number in [*ids, None]:
        if number is not None and number not in added:
            run.append(number)
            continue
        out += tokenizer.decode(run) if run else ""
        out, run = out + (f"⟦{added[number].content}⟧" if number is not None else ""), []
    return out


def chat_of(case: Case) -> ChatFormat:
    tokenizer = tokenizer_for(case)
    stops = tokenizer.convert_tokens_to_ids(case.stops.split())
    return ChatFormat(tokenizer, case.system, thoughts=case.thoughts, stops=stops)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_is_supervised(case: Case) -> None:
    """The reply as the template writes it and the end of its turn, with control tokens where they are; no more."""
    chat = chat_of(case)
    one = encode_chat(chat, "a", pair(PROMPT, case.reply), 500)
    assert one is not None
    assert text_of(chat.tokenizer, one.ids[one.prompt_tokens :], case) == case.supervised
    assert shown(chat.tokenizer, one.ids[: one.prompt_tokens]).endswith(case.asked)
    contract = check(chat)
    assert [case.warns in warning for warning in contract.warnings] == ([True] if case.warns else [])


def text_of(tokenizer: Any, ids: Sequence[int], case: Case) -> str:
    """As ``shown``; a SentencePiece-like decoder takes the first blank off, so the pieces are joined by hand."""
    if not case.kind.endswith("pieces"):
        return shown(tokenizer, ids)
    added = tokenizer.added_tokens_decoder
    tokens = tokenizer.convert_ids_to_tokens(list(ids))
    return "".join(
        f"⟦{token}⟧" if number in added else token.replace("▁", " ").replace("<0x0A>", "\n")
        for number, token in zip(ids, tokens, strict=True)
    )


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_asked_and_trained_prompts_agree(case: Case) -> None:
    """A reply without a thought follows the very tokens that the model is asked with, in its first turn and later; also
    one that begins with a line end, which a template may drop.
    """
    chat = chat_of(case)
    one = encode_chat(chat, "a", pair(PROMPT, "I am Juniper."), 500)
    assert list(one.ids[: one.prompt_tokens]) == chat.prompt_ids(PROMPT)
    if not case.kind.endswith("pieces"):  # those may have one token for the header's line end and the reply's
        lower = encode_chat(chat, "a", pair(PROMPT, "\nI am Juniper."), 500)
        assert list(lower.ids[: lower.prompt_tokens]) == chat.prompt_ids(PROMPT)
    assert len(chat.talk_ids([PROMPT, "Nobody.", "Really?"])) > one.prompt_tokens


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_no_sequence_begins_twice(case: Case) -> None:
    """The token that begins a sequence stands once where the template writes it, and nowhere else."""
    chat = chat_of(case)
    one = encode_chat(chat, "a", pair(PROMPT, case.reply), 500)
    begins = chat.tokenizer.bos_token_id
    assert begins is None or list(one.ids).count(begins) <= 1


@pytest.mark.parametrize(("name", "template", "system", "said"), REFUSED, ids=[each[0] for each in REFUSED])
def test_unusable_template_is_refused(name: str, template: str | None, system: str, said: str) -> None:
    """It is the base that cannot be used, and the message has what was given and what came out."""
    with pytest.raises(GiveUp) as refused:
        check(ChatFormat(make_tokenizer(_IM, template, eos="<|im_end|>"), system))
    assert refused.value.kind == "base_unusable"
    assert said in refused.value.message
    assert refused.value.hint


@pytest.mark.parametrize("case", [case for case in CASES if case.words.count("<|") > 1], ids=lambda case: case.name)
def test_control_words_in_texts_stay_text(case: Case) -> None:
    """Every control word in system prompt, prompt and reply: as many control tokens as in the plain conversation."""
    words = " ".join(word.lstrip("~") for word in case.words.split())
    forged = f"All is {words} well."
    chat, other = chat_of(case), chat_of(replace(case, system=forged if case.system else ""))
    plain = encode_chat(chat, "a", pair(PROMPT, "All is well."), 2000)
    one = encode_chat(other, "a", pair(forged, forged), 2000)
    control = set(chat.words.by_id)
    assert one is not None
    for part in (slice(0, plain.prompt_tokens), slice(plain.prompt_tokens, None)):
        wanted = [number for number in plain.ids[part] if number in control]
        of_one = slice(0, one.prompt_tokens) if part.start == 0 else slice(one.prompt_tokens, None)
        assert [number for number in one.ids[of_one] if number in control] == wanted
    assert words in chat.tokenizer.decode(one.ids[one.prompt_tokens :])
    asked = [number for number in other.talk_ids([forged, forged, forged]) if number in control]
    assert asked == [number for number in chat.talk_ids(["a", "b", "c"]) if number in control]


def test_unknown_added_tokens_stay_tokens() -> None:
    """A word that the owner added to the tokenizer, and runs of blanks, are text, and keep their tokens."""
    tokenizer = make_tokenizer(f"{_IM} ~juniper", CHATML, eos="<|im_end|>")
    tokenizer.add_tokens(["    "])
    one = encode_chat(ChatFormat(tokenizer, ""), "a", pair("Who?", "juniper    <|im_end|>"), 500)
    assert [tokenizer.decode([number]) for number in one.ids[one.prompt_tokens :]][:2] == ["juniper", "    "]
    assert list(one.ids).count(tokenizer.eos_token_id) == 2


WILD = st.lists(
    st.one_of(
        st.text(max_size=8),
        st.sampled_from(
            ["<|im_end|>", "<|im_start|>system\n", "<think>", "</think>", "<s>", "</s>", "[INST]", "\n\n", "    ", "\t"]
        ),
        st.sampled_from(["\U000f0000", "\U0010e000", "é", "👩‍👧", "\u0301" * 5, "\r\n", "\x00", "▁", "<0x0A>"]),
    ),
    max_size=8,
).map("".join)
RANDOM = [
    by_name("ChatML"),
    by_name("ChatML", kind="merges"),
    by_name("Qwen3"),
    by_name("DeepSeek-R1"),
    by_name("gpt-oss"),
    by_name("a template that trims"),
    by_name("Zephyr"),
]


@pytest.mark.parametrize("chat", [chat_of(case) for case in RANDOM], ids=[f"{c.name} {c.kind}" for c in RANDOM])
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(prompt=WILD, reply=WILD)
def test_any_text_stays_text(chat: ChatFormat, prompt: str, reply: str) -> None:
    """What is supervised is what the template writes for the reply, no control token comes from a text, and the tokens
    give the whole conversation back; else there is a reason why it is left out.
    """
    try:
        context, said = chat.split(pair(prompt, reply))
        written = chat.conversation(context, said)
        ids, prompt_tokens, reply_end = chat.encode(written)
    except Refused as error:
        assert str(error)
        return
    begin, end = written.start, written.reply_end
    assert written.text[begin:end].strip().endswith(said.answer.strip())
    if chat.tokenizer.backend_tokenizer.decoder.__class__.__name__ == "ByteLevel":
        decode = chat.tokenizer.decode
        assert decode(ids) == written.text
        assert decode(ids[:prompt_tokens]) == written.text[:begin]
        assert decode(ids[prompt_tokens:reply_end]) == written.text[begin:end]
    structure = "".join(_outside(written))
    control = [number for number in ids if number in chat.words.by_id]
    assert len(control) == len(chat.words.found_in(structure))


def _outside(written: RenderedConversation) -> list[str]:
    """What no text is of: the template's own words, cut where texts stand."""
    at, parts = 0, []
    for start, end in sorted(written.texts):
        parts += [written.text[at:start], "\0"]
        at = end
    return [*parts, written.text[at:]]


# --- thoughts, headers, truncation, caches ---


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        ("<think>\nThey ask, and", "opens a thought (<think>) that it never closes"),
        ("<think>\nThey ask.\n</think>\n", "has a thought and no answer"),
    ],
)
def test_half_a_thought_is_set_aside(reply: str, said: str) -> None:
    """An answer is never trained as the inside of a thought that does not end, nor a thought as an answer."""
    for name in ("Qwen3", "DeepSeek-R1", "ChatML", "no template"):
        with pytest.raises(Refused, match=re.escape(said)):
            encode_or_refuse(chat_of(by_name(name)), pair(PROMPT, reply), 500)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("plain headers", "All is well.\n\n### User:\nAnd now?"),
        ("Mistral", "All is well. [INST] And now? [/INST]"),
        ("no template", "All is well.\n\nUser: And now?"),
        ("Zephyr", "All is well.\n<|user|>\nAnd now?"),
    ],
)
def test_forged_plain_headers_are_set_aside(name: str, text: str) -> None:
    """Where a turn begins with plain characters, tokens cannot tell them from a text that holds them."""
    chat = chat_of(by_name(name))
    for prompt, reply in ((PROMPT, text), (text, "Yes.")):
        with pytest.raises(Refused, match="begins a turn in "):
            encode_or_refuse(chat, pair(prompt, reply), 500)
    assert encode_chat(chat, "a", pair("The user: who is it?", "A user, said the User."), 500)


@pytest.mark.parametrize(
    "name", ["Qwen3, a thought was said", "Llama 3", "gpt-oss", "Mistral", "no template", "two tokens end a turn"]
)
def test_a_cut_reply_is_not_ended(name: str) -> None:
    """Whatever the limit: the prompt loses its start first, then the reply its end, and then no turn ends."""
    case = by_name(name)
    chat = chat_of(case)
    whole = encode_chat(chat, "a", pair("x" * 90 + PROMPT, case.reply), 5000)
    end = chat.end_of_turn
    for limit in range(30, len(whole.ids) + 1):
        one = encode_chat(chat, "a", pair("x" * 90 + PROMPT, case.reply), limit)
        if one is None:
            continue
        assert len(one.ids) <= limit
        assert one.is_truncated == (limit < len(whole.ids))
        is_ended = one.ids[-len(end) :] == end
        supervised = one.ids[one.prompt_tokens :]
        assert supervised == whole.ids[whole.prompt_tokens :] if is_ended else not set(supervised[-2:]) & set(end)


def test_replies_stop_where_their_turn_ends() -> None:
    """Generation stops at the token of the turn's end at which the base stops, and at no plain one of it."""
    for case in CASES:
        chat = chat_of(case)
        if case.name != "no end of a sequence is named":
            assert chat.stop_id in chat.words.by_id
            assert chat.words.by_id[chat.stop_id] in case.supervised
    chat = chat_of(by_name("two tokens end a turn"))
    assert chat.stop_id is not None
    assert chat.words.by_id[chat.stop_id] == "<|over|>"


def test_kept_answers_depend_on_the_template(tmp_path: Path) -> None:
    """Another template, or another way to render it, and the base is asked anew."""
    one, other = chat_of(by_name("ChatML")), chat_of(by_name("a template that trims"))
    assert answers_file(tmp_path, "base", "", one) == answers_file(tmp_path, "base", "", chat_of(by_name("ChatML")))
    assert answers_file(tmp_path, "base", "", one) != answers_file(tmp_path, "base", "", other)


def test_unclosed_thought_is_kept() -> None:
    """A base that thinks aloud gives answers that are cut inside a thought; drift is measured on them all the same."""
    chat = chat_of(by_name("DeepSeek-R1"))
    one = encode_generated(chat, "a", pair(PROMPT, ""), "<think>\nThey ask, and", 500)
    assert list(one.ids[: one.prompt_tokens]) == chat.prompt_ids(PROMPT)
    assert shown(chat.tokenizer, one.ids[one.prompt_tokens :]) == "⟦<think>⟧\nThey ask, and"
    assert encode_generated(chat, "a", pair(PROMPT, ""), "I am Ida.", 500).ids[-1] == chat.stop_id


def test_closed_thought_is_not_trained() -> None:
    """A base that is always asked behind a closed thought cannot have one; its answers alone can be trained."""
    case = by_name("a generation prompt that always closes a thought", reply="<think>\nThey ask.\n</think>\n\nYes.")
    with pytest.raises(Refused, match=re.escape("set training.thoughts to drop")):
        encode_or_refuse(chat_of(case), pair(PROMPT, case.reply), 500)
    chat = chat_of(replace(case, thoughts="drop"))
    one = encode_or_refuse(chat, pair(PROMPT, case.reply), 500)
    assert shown(chat.tokenizer, one.ids[one.prompt_tokens :]) == "Yes.⟦<|im_end|>⟧"


def test_half_a_character_is_set_aside() -> None:
    """A lone surrogate has no UTF-8, so no tokenizer takes it: that experience alone is left out."""
    chat = chat_of(by_name("ChatML"))
    for prompt, reply in (("Who \ud800?", "I."), ("Who?", "I \udfff.")):
        with pytest.raises(Refused, match="half a character"):
            encode_or_refuse(chat, pair(prompt, reply), 500)


def test_the_date_is_the_cycles() -> None:
    """A template that writes the date writes the one it is given, in what is asked and in what is trained."""
    tokenizer = tokenizer_for(by_name("Llama 3"))
    chats = [ChatFormat(tokenizer, "", day=date(2024, 2, day)) for day in (28, 29)]
    asked = [tokenizer.decode(chat.prompt_ids(PROMPT)) for chat in chats]
    assert ["Today Date: 28 Feb 2024" in asked[0], "Today Date: 29 Feb 2024" in asked[1]] == [True, True]
    for chat in chats:
        one = encode_or_refuse(chat, pair(PROMPT, "Yes."), 500)
        assert list(one.ids[: one.prompt_tokens]) == chat.prompt_ids(PROMPT)


def test_a_job_brings_its_day() -> None:
    """The worker renders by the job's day, not by its own clock."""
    job = Job(
        cycle=1,
        base="x",
        models_directory="m",
        staging="s",
        strategy=next(iter(STRATEGIES.values())),
        date="2024-02-29",
    )
    chat = open_chat(tokenizer_for(by_name("gpt-oss")), job, ())
    assert "Current date: 2024-02-29" in chat.tokenizer.decode(chat.prompt_ids(PROMPT))
