"""Packing is exact: the same losses and the same gradients as one chat example a row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sleepd.worker.data.examples import Encoded
from sleepd.worker.data.packing import attention_mask, make_rows, shared_opening
from sleepd.worker.model.device import Device
from sleepd.worker.model.losses import kl_from_base, make_reference, row_logits, token_losses

pytestmark = pytest.mark.worker
CPU = Device(torch.device("cpu"), torch.float32, "cpu")
OPENING = (1, 40, 41, 42)


def encoded() -> list[Encoded]:
    """Five of unequal length which share four tokens."""
    return [
        Encoded(str(n), OPENING + tuple(range(50 + n, 58 + 3 * n)) + tuple(range(9, 12 + n)), 12 + 2 * n)
        for n in range(5)
    ]


@pytest.fixture(scope="module", params=["eager", "sdpa"])
def model(request: pytest.FixtureRequest, tiny_model: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32, attn_implementation=request.param)


def losses_and_gradient(model: Any, rows: Any) -> tuple[dict[str, float], torch.Tensor]:
    """Loss of each chat example, and the gradient of their sum."""
    model.zero_grad()
    found = {}
    for row in rows:
        for one, logits, targets in row_logits(model, row, CPU):
            loss: Any = token_losses(logits, targets).sum()
            found[one.id] = loss.item()
            loss.backward(retain_graph=True)
    return found, torch.cat([weight.grad.flatten() for weight in model.parameters()])


def test_packed_rows_match_single_rows(model: Any) -> None:
    """All in one row behind one opening, against each alone."""
    alone, gradient_alone = losses_and_gradient(model, make_rows(encoded(), 1, 0, packed=False))
    opening = shared_opening(encoded())
    rows = make_rows(encoded(), 10_000, opening)
    assert opening == len(OPENING)
    assert len(rows) == 1
    packed, gradient_packed = losses_and_gradient(model, rows)
    assert packed == pytest.approx(alone, rel=1e-5)
    torch.testing.assert_close(gradient_packed, gradient_alone, rtol=1e-4, atol=1e-6)


def test_single_rows_match_model_loss(model: Any) -> None:
    """Against transformers' labels, with everything but the reply masked."""
    one = encoded()[3]
    labels = torch.tensor([[-100] * one.prompt_tokens + list(one.ids[one.prompt_tokens :])])
    theirs = model(input_ids=torch.tensor([one.ids]), labels=labels).loss.item()
    ours, _ = losses_and_gradient(model, make_rows([one], 1, 0))
    assert ours[one.id] / one.supervised == pytest.approx(theirs, rel=1e-5)


def test_segment_sees_opening_and_itself() -> None:
    """The mask of an opening of one and two members of two tokens."""
    seen = (attention_mask(torch.tensor([0, 1, 1, 2, 2]), torch.float32)[0, 0] == 0).int().tolist()
    assert seen == [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [1, 0, 0, 1, 0], [1, 0, 0, 1, 1]]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(3, 60), min_size=1, max_size=20), st.integers(10, 120))
def test_every_sequence_is_in_one_row(lengths: list[int], budget: int) -> None:
    """Nothing is lost or doubled; only a sequence that is alone may exceed the budget."""
    given_ones = [Encoded(str(i), tuple(range(length)), 2) for i, length in enumerate(lengths)]
    rows = make_rows(given_ones, budget, shared_opening(given_ones))
    assert sorted(one.id for row in rows for one in row.members) == sorted(one.id for one in given_ones)
    assert all(row.tokens <= budget or len(row.members) == 1 for row in rows)


def test_divergence_is_bounded() -> None:
    """KL over joined outcomes: nothing from the base to itself, and never more than over the whole vocabulary."""
    torch.manual_seed(0)
    base, other = torch.randn(5, 300) * 3, torch.randn(5, 300) * 3
    reference = make_reference(base)
    assert kl_from_base(base, reference).abs().max() < 1e-4
    exact = torch.nn.functional.kl_div(other.log_softmax(-1), base.softmax(-1), reduction="none").sum(-1)
    joined = kl_from_base(other, reference)
    assert (joined <= exact + 1e-4).all()
    assert (joined > 0.8 * exact).all()
