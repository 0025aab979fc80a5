"""The real llama.cpp server runs a base, generations of adapters, or something else: what ``live`` says of it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sleepd.protocol.deployment.live_request import LiveAnswer, LiveRequest
from sleepd.serving.identify_endpoint import live
from tests.tiny_engine import adapter_gguf, base_gguf, llama_server

from .conftest import RecordingChannel, examples, make_job

pytestmark = pytest.mark.worker
Start = Callable[..., AbstractContextManager[str]]
"""Starts the server with the adapters that are named, and gives its URL."""


@pytest.fixture(scope="module")
def state(plain_model: Path, models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state directory: cycle 1, cycle 2 which continues it and is in use, and an adapter of no cycle."""
    import torch

    from sleepd.worker.evaluation.fingerprint import write_fingerprint
    from sleepd.worker.model.adapter import save_adapter
    from sleepd.worker.model.loading import load

    directory = tmp_path_factory.mktemp("state")
    job = make_job(plain_model, models, directory / "staging", threads=1)
    loaded = load(job, RecordingChannel())
    moving = [one for name, one in loaded.model.named_parameters() if ".lora_B." in name]
    for name, cycle, seed, by in (("cycle_001", 1, 1, 0.3), ("cycle_002", 2, 2, 0.2), ("foreign", 9, 3, 0.4)):
        dice = torch.Generator().manual_seed(seed)
        for one in moving:
            one.data = one.data * (name != "foreign") + by * torch.randn(one.shape, generator=dice)
        (directory / name).mkdir()
        save_adapter(loaded.model, directory / name, plain_model)
        parent: dict[str, Any] = {"parent": str(directory / "cycle_001"), "parent_cycle": 1} if cycle == 2 else {}
        own = msgspec.structs.replace(job, cycle=cycle, staging=str(directory / name), **parent)
        write_fingerprint(own, loaded, examples(), lambda _tokens: None)
    (directory / "current").symlink_to("cycle_002")
    return directory


@pytest.fixture(scope="module")
def engine(plain_model: Path, state: Path, tmp_path_factory: pytest.TempPathFactory) -> Start:
    """A function that starts the server with some of these adapters."""
    directory = tmp_path_factory.mktemp("gguf")
    whole = base_gguf(plain_model, directory / "base.gguf")
    known = {
        name: adapter_gguf(plain_model, state / name, directory / f"{name}.gguf")
        for name in ("cycle_001", "cycle_002", "foreign")
    }
    return lambda *names, **settings: llama_server(whole, [known[name] for name in names], **settings)


def asked(state: Path, url: str) -> LiveAnswer:
    """What ``live`` answers."""
    return live(LiveRequest(url=url, state=str(state)))


@pytest.mark.parametrize(
    ("names", "kind", "cycle"),
    [((), "base", None), (("cycle_001",), "parent", 1), (("cycle_002",), "candidate", 2)],
    ids=["none", "older", "newer"],
)
def test_engine_runs_what_it_was_started_with(
    engine: Start, state: Path, names: tuple[str, ...], kind: str, cycle: int | None
) -> None:
    """The base and both generations are named, far nearer than the next, and only the one in use is as it should be."""
    with engine(*names) as url:
        found = asked(state, url)
    assert (found.identity.kind, found.identity.cycle) == (kind, cycle), found.identity
    assert found.identity.distance < 0.1 < found.identity.next_nearest
    assert (found.in_use, found.is_in_use) == (2, cycle == 2)
    assert found.compared[0] == 2


@pytest.mark.parametrize("names", [("cycle_001", "cycle_002"), ("foreign",)], ids=["stacked", "foreign"])
def test_engine_that_runs_something_else_is_named_nothing(engine: Start, state: Path, names: tuple[str, ...]) -> None:
    """Two adapters at once, and one that no fingerprint knows, are taken for none of ours."""
    with engine(*names) as url:
        found = asked(state, url)
    assert not found.identity.is_named, found.identity
    assert not found.is_in_use


def test_engine_with_another_template_is_seen(engine: Start, state: Path) -> None:
    """A template that writes the same conversation in other tokens is what is reported, not an adapter."""
    template = "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}\n{% endfor %}[assistant] "
    with engine("cycle_002", chat_template=template, use_jinja=True) as url:
        assert asked(state, url).identity.kind == "other_template"
