"""An agent's model is asked in its own process which adapter answers, with the fingerprints that a worker wrote."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: E402

from sleepd.errors import CheckpointInvalid  # noqa: E402
from sleepd.serving import follow, prove  # noqa: E402
from tests.serving.real_llama import make_recorded_champions  # noqa: E402


def test_agent_proves_its_adapter(plain_model: Path, models: Path, tmp_path: Path) -> None:
    """Base, both generations and a half of one are told apart, whatever the follower believes to have loaded.

    1. With each link, the answers name what is behind it: they prove it.
    2. The adapter is switched off behind the follower's back: the base is named, and nothing is proved.
    3. Half of the adapter is on: neither is named.
    4. The fingerprint is damaged: an error names it.
    """
    make_recorded_champions(tmp_path, plain_model, models, tmp_path / "job")
    state, tokenizer = tmp_path / "state", AutoTokenizer.from_pretrained(plain_model)
    following = follow(AutoModelForCausalLM.from_pretrained(plain_model, dtype=torch.float32).eval(), state)
    found = []
    for name in ("cycle_001", "", "cycle_002"):
        (state / "current").unlink(missing_ok=True)
        if name:
            (state / "current").symlink_to(name)
        following.update()
        proof = prove(following, tokenizer)
        found.append((proof.identity.cycle, proof.identity.is_named, proof.is_wanted))
    assert found == [(1, True, True), (None, True, True), (2, True, True)]

    following.model.disable_adapter_layers()
    proof = prove(following, tokenizer)
    assert (proof.identity.kind, proof.is_wanted) == ("base", False)

    following.model.enable_adapter_layers()
    for name, one in following.model.named_parameters():
        if ".lora_B." in name:
            one.data *= 0.5
    proof = prove(following, tokenizer)
    assert (proof.identity.is_named, proof.is_wanted) == (False, False)

    fingerprint = state / "cycle_002/fingerprint.json"
    fingerprint.write_bytes(fingerprint.read_bytes() + b" ")
    with pytest.raises(CheckpointInvalid, match=r"fingerprint\.json: .* committed"):
        prove(following, tokenizer)
