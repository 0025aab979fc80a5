#!/usr/bin/env python3
"""An agent that holds conversations, calls a tool, and writes down every reply with ``ExperienceLog``.

    python conversation_agent.py --server http://127.0.0.1:8080/v1 [--adapter cycle_007] [--buffer experiences.jsonl]

Each line of standard input is what the user says, and the reply goes to standard output. An empty line begins a new
conversation. The model runs in any server that speaks OpenAI's chat completions (llama-server, vLLM, Ollama).

It needs sage-sleepd and nothing else.
"""

from __future__ import annotations

import argparse
import json
import sys
import urllib.request
import uuid
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from sleepd import ExperienceLog
from sleepd.errors import BufferUnwritable

SALIENCE = 0.8
"""How much an experience matters, from 0 to 1. A real agent judges each reply by itself."""
MOST_REPLIES = 8
"""To one message of the user; a model that calls tools for ever is stopped."""
TOOL = {
    "type": "function",
    "function": {
        "name": "local_time",
        "description": "The date and time at a place.",
        "parameters": {
            "type": "object",
            "properties": {"timezone": {"type": "string", "description": "such as Europe/Oslo"}},
            "required": ["timezone"],
        },
    },
}


class Agent:
    """One conversation after the other.

    Args:
        server: the address of the model server, up to ``/v1``.
        model: the name by which the server knows the model.
        log: where the replies are written down.
        adapter: the adapter that the server has loaded; empty: none. A server loads an adapter when it is started, and
            ``current`` may lead to another one by now.
        system_prompt: the first message of each conversation; empty: none.
    """

    def __init__(self, server: str, model: str, log: ExperienceLog, adapter: str, system_prompt: str) -> None:
        self._server = server
        self._model = model
        self._log = log
        self._adapter = adapter
        self._system_prompt = system_prompt
        self._messages: list[dict[str, Any]] = []
        self._conversation = ""
        self.begin()

    def begin(self) -> None:
        """Forget what was said, and begin a new conversation."""
        self._messages = [{"role": "system", "content": self._system_prompt}] if self._system_prompt else []
        self._conversation = str(uuid.uuid4())

    def answer(self, text: str) -> str:
        """The reply to what the user says, after as many calls of the tool as the model wants."""
        self._messages.append({"role": "user", "content": text})
        for _ in range(MOST_REPLIES):
            reply = self._reply()
            self._messages.append(reply)
            self._write_down()
            if not reply.get("tool_calls"):
                return reply.get("content") or ""
            self._messages += [run_tool(call) for call in reply["tool_calls"]]
        return "(no answer)"

    def _reply(self) -> dict[str, Any]:
        asked = {"model": self._model, "messages": self._messages, "tools": [TOOL]}
        request = urllib.request.Request(  # noqa: S310 (the operator's own server)
            f"{self._server}/chat/completions", json.dumps(asked).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request) as response:  # noqa: S310
            reply: dict[str, Any] = json.load(response)["choices"][0]["message"]
        return reply

    def _write_down(self) -> None:
        """The reply, with all that was said before it. The call of a tool is a reply, too."""
        last = self._messages[-1]
        if not last.get("tool_calls") and not (last.get("content") or "").strip():
            return  # there is nothing to learn from an empty reply
        try:
            self._log.add(
                messages=self._messages,
                tools=[TOOL],
                salience=SALIENCE,
                conversation=self._conversation,
                # If this adapter is rolled back, what was said under it is kept from training.
                said_under=self._adapter or None,
            )
        except BufferUnwritable as error:  # a full disk must not silence the agent
            print(f"{error.message}; {error.hint}", file=sys.stderr)


def run_tool(call: dict[str, Any]) -> dict[str, Any]:
    """The message with the result of a call; a wrong call gets its error as the result, so that the model sees it."""
    try:
        zone = ZoneInfo(json.loads(call["function"]["arguments"])["timezone"])
        result = datetime.now(zone).isoformat(timespec="minutes")
    except (KeyError, ValueError, TypeError, OSError) as error:
        result = f"error: {error}"
    return {"role": "tool", "tool_call_id": call["id"], "name": call["function"]["name"], "content": result}


def main() -> None:
    """Answer each line of standard input."""
    parser = argparse.ArgumentParser(description="An agent that holds conversations and calls a tool.")
    parser.add_argument(
        "--server", required=True, help="the address of the model server, such as http://127.0.0.1:8080/v1"
    )
    parser.add_argument("--model", default="default", help="the name by which the server knows the model")
    parser.add_argument("--adapter", default="", help="the adapter that the server has loaded: cycle_007, or its path")
    parser.add_argument("--buffer", type=Path, default=Path("experiences.jsonl"), help="where experiences are appended")
    parser.add_argument("--system-prompt", default="")
    options = parser.parse_args()
    log = ExperienceLog(options.buffer)
    agent = Agent(options.server.rstrip("/"), options.model, log, options.adapter, options.system_prompt)
    for line in sys.stdin:
        text = line.strip()
        if text:
            print(agent.answer(text), flush=True)
        else:
            agent.begin()


if __name__ == "__main__":
    main()
