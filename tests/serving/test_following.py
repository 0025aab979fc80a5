"""An agent's model follows the adapter in use: exchanged in its memory, switched off, and never half of one."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.worker
torch = pytest.importorskip("torch")

from peft import LoraConfig, PeftModel, get_peft_model  # noqa: E402
from safetensors import SafetensorError  # noqa: E402
from transformers import AutoModelForCausalLM  # noqa: E402

from sleepd.serving import follow  # noqa: E402
from sleepd.worker.programs.tiny_model import make_tiny_model  # noqa: E402

RANKS = {1: 4, 2: 4, 3: 8}


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model and three adapters, the third of another rank."""
    directory = tmp_path_factory.mktemp("known")
    make_tiny_model(directory / "base")
    for number, rank in RANKS.items():
        torch.manual_seed(number)
        config = LoraConfig(r=rank, lora_alpha=8, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
        get_peft_model(base(directory), config).save_pretrained(directory / f"cycle_00{number}")
    return directory


@pytest.fixture
def state(known: Path, tmp_path: Path) -> Path:
    """A copy of them that a test may change."""
    shutil.copytree(known, tmp_path / "state")
    return tmp_path / "state"


def base(directory: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(directory / "base").eval()


def put_in_use(state: Path, name: str) -> None:
    (state / "current").unlink(missing_ok=True)
    if name:
        (state / "current").symlink_to(name)


def answer(model: Any) -> Any:
    with torch.inference_mode():
        return model(input_ids=torch.tensor([[5, 6, 7, 8]])).logits[0, -1]


def expected(state: Path, name: str) -> Any:
    """What a model that was loaded for it answers."""
    return answer(PeftModel.from_pretrained(base(state), state / name).eval() if name else base(state))


def test_each_exchange_is_as_loaded_anew(state: Path) -> None:
    """After each change of the link the model answers as one loaded for it; without a link as the base."""
    following = follow(base(state), state)
    for name in ("", "cycle_001", "cycle_002", "", "cycle_002", "cycle_003", "cycle_001", ""):
        put_in_use(state, name)
        following.update()
        assert following.adapter == (state / name if name else None)
        assert torch.allclose(answer(following.model), expected(state, name), atol=1e-5), name


def test_nothing_is_loaded_twice(state: Path) -> None:
    """While the link stays, no file is opened: the adapter may even be gone."""
    put_in_use(state, "cycle_001")
    following = follow(base(state), state)
    (state / "cycle_001/adapter_model.safetensors").unlink()
    following.update()
    assert following.adapter == state / "cycle_001"


@pytest.mark.parametrize("broken", ["adapter_config.json", "adapter_model.safetensors"])
def test_unreadable_adapter_leaves_the_base(state: Path, broken: str) -> None:
    """An adapter that cannot be read raises, and until then and after the base answers; the next one is loaded."""
    put_in_use(state, "cycle_001")
    following = follow(base(state), state)
    (state / "cycle_002" / broken).write_bytes(b"{")
    put_in_use(state, "cycle_002")
    with pytest.raises((OSError, ValueError, SafetensorError)):
        following.update()
    assert following.adapter is None
    assert torch.allclose(answer(following.model), expected(state, ""), atol=1e-5)
    put_in_use(state, "cycle_003")
    following.update()
    assert torch.allclose(answer(following.model), expected(state, "cycle_003"), atol=1e-5)


def test_import_takes_no_torch() -> None:
    """What the daemon and the command line import of the package brings no library of the agent's with it."""
    program = "import sys, sleepd.serving; print([name for name in ('torch', 'peft') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
