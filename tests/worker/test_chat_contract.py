"""The contract of a chat template, as a cycle and ``doctor`` check it: on a whole base."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from sleepd.worker import probe
from sleepd.worker.failure import GiveUp
from sleepd.worker.model.template_check import contract_of, open_tokenizer

from .conftest import BaseWith, RunHere, said_by
from .templates import CHATML, RAISES_ON_SYSTEM, by_name, make_tokenizer, tokenizer_for

pytestmark = pytest.mark.worker


@pytest.fixture
def base_with(tiny_model: Path, tmp_path: Path) -> BaseWith:
    """Returns a function that makes a copy of the tiny model with another chat template."""

    def make(template: str | None) -> Path:
        directory = tmp_path / "base"
        shutil.copytree(tiny_model, directory)
        (directory / "chat_template.jinja").unlink(missing_ok=True)
        settings = json.loads((directory / "tokenizer_config.json").read_bytes())
        settings.pop("chat_template", None)
        (directory / "tokenizer_config.json").write_text(json.dumps({**settings, "chat_template": template}))
        return directory

    return make


def test_cycle_reports_template_behaviour(run_here: RunHere, base_with: BaseWith) -> None:
    """The report has the sample and what the template does; a missing template is a warning among the notices."""
    report = run_here(base=str(base_with(None)))
    assert report.chat.has_template is False
    assert report.chat.supervised.endswith("two paragraphs.<|im_end|>")
    levels = {notice.event: notice.level for notice in report.notices if "no chat template" in notice.text}
    assert set(levels.values()) == {"warning"}
    assert "fingerprint_not_written" in levels  # an engine cannot be asked in a chat of which nobody knows the form


def test_losing_template_is_refused(run_here: RunHere, base_with: BaseWith) -> None:
    """Before anything is trained: the base cannot be used, with what was given and what came out."""
    losing = CHATML.replace("{{ m['content'] }}", "{{ m['text'] }}")
    with pytest.raises(GiveUp, match=r"prompt .* loses the text .* writes") as refused:
        run_here(base=str(base_with(losing)))
    assert refused.value.kind == "base_unusable"


def test_doctors_question_is_answered_without_weights(base_with: BaseWith) -> None:
    """The probe tells the contract, or why there is none, by the tokenizer alone."""
    directory = base_with(RAISES_ON_SYSTEM)
    (directory / "model.safetensors").write_bytes(b"never opened")
    asked = ("--base", directory, "--system-prompt=Be brief.")
    told = json.loads(said_by(probe.main, *asked))
    assert told["chat"]["asked"].startswith("<|im_start|>user\nBe brief.\n\n")
    assert any("knows no system role" in note for note in told["chat"]["notes"])
    (directory / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ raise_exception('never') }}"}))
    told = json.loads(said_by(probe.main, *asked))
    assert (told["chat"], "never" in told["chat_problem"]) == (None, True)


def test_stops_come_from_generation_configuration(base_with: BaseWith) -> None:
    """One number or several, of the generation's configuration or else of the model's."""
    from sleepd.worker.model.find_base import find_base

    directory = base_with(CHATML)
    for content, wanted in (({"eos_token_id": [1, 2]}, [1, 2]), ({"eos_token_id": 0}, [0]), ({}, [2])):
        (directory / "generation_config.json").write_text(json.dumps(content))
        assert open_tokenizer(find_base(str(directory), ""))[1] == wanted


def test_losing_tokenizer_is_refused() -> None:
    """What the template writes is of no use where the tokenizer makes something else of it."""
    tokenizer = tokenizer_for(by_name("Zephyr"))
    from tokenizers import normalizers

    tokenizer.backend_tokenizer.normalizer = normalizers.Replace("a", "")
    with pytest.raises(GiveUp, match="lose the prompt"):
        contract_of(tokenizer, [], "", "as_written")


def test_end_without_stop_is_reported() -> None:
    """It is trained all the same, and that the base's own generation would run on is said."""
    tokenizer = make_tokenizer("<|endoftext|> <|im_start|> <|im_end|>", CHATML, eos="<|endoftext|>")
    (warning,) = contract_of(tokenizer, [], "", "as_written").warnings
    assert re.findall(r"<\|\w+\|>", warning) == ["<|im_end|>", "<|endoftext|>"]
    assert contract_of(tokenizer, [2], "", "as_written").warnings == []


def test_control_words_without_token_are_refused() -> None:
    """A tokenizer that takes a control word for one only between blanks writes it as characters: nothing would stop."""
    from tokenizers import AddedToken

    tokenizer = make_tokenizer("<|endoftext|>", CHATML)
    words = [AddedToken(word, single_word=True, special=True) for word in ("<|im_start|>", "<|im_end|>")]
    tokenizer.add_special_tokens({"additional_special_tokens": words})
    with pytest.raises(GiveUp, match=r" <\|im_start\|> for a token"):
        contract_of(tokenizer, (), "", "as_written")


def test_unencodable_system_prompt_is_refused() -> None:
    """Half a character in it: the base cannot be used with it, and that is said before anything is trained."""
    with pytest.raises(GiveUp, match="half a character") as refused:
        contract_of(tokenizer_for(by_name("ChatML")), (), "Be \ud800.", "as_written")
    assert refused.value.kind == "base_unusable"
