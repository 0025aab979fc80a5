"""The examples in ``config/examples``: what an operator copies must run as it stands."""

from __future__ import annotations

import ast
import importlib.util
import json
import shlex
import subprocess
import sys
import tomllib
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from sleepd.buffer.experience import Experience, parse
from sleepd.config.limits import parse_limit
from sleepd.config.schema import Config
from sleepd.policy.judging.recall import is_recalled, read_questions
from sleepd.protocol.chat_example import ToolCall
from tests.test_experience_log import understood

EXAMPLES = Path(__file__).parents[1] / "config" / "examples"
HAS_TORCH = importlib.util.find_spec("torch") is not None
needs_torch = pytest.mark.skipif(not HAS_TORCH, reason="needs torch")


def make_adapter(base: Path, directory: Path, seed: int) -> Path:
    """An adapter with large random weights, which changes every reply."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    config = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)
    get_peft_model(AutoModelForCausalLM.from_pretrained(base), config).save_pretrained(directory)
    return directory


def test_example_probes_are_read() -> None:
    """The example file of probes is accepted, and its own answers are right answers."""
    questions = read_questions(str(EXAMPLES / "probes.toml"))
    assert len(questions) == 2
    assert all(is_recalled(f"It is {text}.", each.expected) for each in questions for text in each.expected)


class ModelServer(BaseHTTPRequestHandler):
    """Asks for the time with a call of the tool, and replies once it has the result."""

    asked: list[dict[str, Any]] = []  # noqa: RUF012 (set anew by the test)

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append(asked)
        last = asked["messages"][-1]
        call = {
            "id": f"call{len(asked['messages'])}",
            "type": "function",
            "function": {"name": "local_time", "arguments": f'{{"timezone": "{last["content"]}"}}'},
        }
        message: dict[str, Any] = {"role": "assistant", "content": f"It is {last['content']} there.", "refusal": None}
        if last["role"] == "user":
            message |= {"content": None, "tool_calls": [call]}
        content = json.dumps({"choices": [{"message": message}]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Nothing."""


def test_example_conversation_is_learned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each reply, the call of the tool too, is one that the daemon learns, with what was said before it in its context.

    The call names a zone that there is, and then one that there is not: the model gets the error as the result.
    """
    asked = list[dict[str, Any]]()
    monkeypatch.setattr(ModelServer, "asked", asked)
    buffer = tmp_path / "experiences.jsonl"
    with HTTPServer(("127.0.0.1", 0), ModelServer) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        command = [sys.executable, str(EXAMPLES / "conversation_agent.py"), "--buffer", str(buffer)]
        command += ["--server", f"http://127.0.0.1:{server.server_port}/v1", "--adapter", "cycle_004"]
        done = subprocess.run(
            [*command, "--system-prompt", "Be exact."],
            input="UTC\nno such zone\n\nGMT\n",
            capture_output=True,
            text=True,
        )
        server.shutdown()
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 3
    assert "error" in done.stdout.splitlines()[1]
    found = understood(buffer.read_bytes())
    assert [bool(one.calls) for one in found] == [True, False] * 3
    assert found[0].calls == (ToolCall(name="local_time", arguments='{"timezone": "UTC"}', id="call2"),)
    called = ["user", "assistant", "tool"]
    assert [one.role for one in found[3].context] == ["system", *called, "assistant", *called]
    assert [message["role"] for message in asked[4]["messages"]] == ["system", "user"]
    assert [one.said_under for one in found] == [4] * 6
    assert [one.conversation == found[0].conversation for one in found] == [True] * 4 + [False] * 2


@pytest.mark.worker
@pytest.mark.model
@needs_torch
def test_example_agent_follows_current(tiny_model: Path, tmp_path: Path) -> None:
    """The agent answers with the base, then with each adapter that ``current`` points to, then with the base again.

    Each experience names the adapter under which the reply was given, and is one that the daemon reads.
    """
    state, buffer = tmp_path / "state", tmp_path / "experiences.jsonl"
    state.mkdir()
    for number in (1, 2):
        make_adapter(tiny_model, state / f"cycle_00{number}", seed=number)
    command = [sys.executable, str(EXAMPLES / "agent.py"), "--base", str(tiny_model), "--state", str(state)]
    link = state / "current"
    with subprocess.Popen(
        [*command, "--buffer", str(buffer)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
    ) as agent:
        assert agent.stdin is not None
        assert agent.stdout is not None
        for target in ("", "cycle_001", "cycle_002", ""):
            link.unlink(missing_ok=True)
            if target:
                link.symlink_to(target)
            agent.stdin.write("Who are you?\n")
            agent.stdin.flush()
            assert agent.stdout.readline()
        agent.stdin.close()
    assert agent.returncode == 0
    replies = [json.loads(line) for line in buffer.read_text(encoding="utf-8").splitlines()]
    assert [each["said_under"] for each in replies] == [None, "cycle_001", "cycle_002", None]
    texts = [each["response"] for each in replies]
    assert texts[0] == texts[3]
    assert len(set(texts)) == 3
    parsed = [parse(each) for each in replies]
    assert all(isinstance(each, Experience) for each in parsed), parsed
    assert [each.said_under for each in parsed if isinstance(each, Experience)] == [None, 1, 2, None]


@pytest.mark.worker
@pytest.mark.model
@needs_torch
def test_example_evaluation_gives_figures(tiny_model: Path, tmp_path: Path) -> None:
    """The worker runs the example for the base and for an adapter, and reads the figures that its limits name."""
    from sleepd.config.strategies import find_strategy
    from sleepd.protocol.job import Job
    from sleepd.worker.evaluation import evaluation_command

    adapter = make_adapter(tiny_model, tmp_path / "adapter", seed=1)
    (tmp_path / "staging" / "work").mkdir(parents=True)
    job = Job(
        cycle=1,
        base=str(tiny_model),
        models_directory=str(tmp_path),
        staging=str(tmp_path / "staging"),
        strategy=find_strategy("consolidate"),
        evaluation_command=shlex.join([sys.executable, str(EXAMPLES / "evaluate.py")]),
        evaluation_seconds=Config().evaluation.seconds,
    )
    for directory in (None, adapter):
        figures = evaluation_command.figures(job, directory, tiny_model, lambda: None)
        assert set(figures) == {"accuracy", "mean_words"}
        assert 0 <= figures["accuracy"] <= 1
    documented = ast.get_docstring(ast.parse((EXAMPLES / "evaluate.py").read_text()), clean=False) or ""
    shown = tomllib.loads("\n".join(line.strip() for line in documented.splitlines() if line.startswith("    ")))
    assert {parse_limit(limit).name for limit in shown["promotion"]["limits"]} == set(figures)
