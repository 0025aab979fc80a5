"""A week of two agents, each with a daemon: one calls tools, the other is a chat front end with ratings.

    python tests/bench/agents_week.py DIRECTORY [--days 7] [--turns 24] [--only tools|chats] [--base DIRECTORY]

The first agent holds conversations, calls a tool, and writes with ``ExperienceLog``, whose file is rotated. The second
is a chat front end in the manner of Open WebUI: its export is written anew each day, replies are regenerated and rated
with the thumb, and a thumb goes down for a reply that was trained the day before. Both daemons run with default
settings but for the hours between two sleeps. Without ``--base`` a tiny random model with a template for tools is made:
then the walk is what is shown, and the figures mean nothing. Printed are a line for each day and agent, then the last
report of each and what the buffer holds.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[2]))

from sleepd import ExperienceLog
from sleepd.config.schema import Config
from sleepd.worker.programs.tiny_model import make_tiny_model
from tests.agents import changed, config_for
from tests.bench.week import await_cycle
from tests.processes import DaemonProcess
from tests.worker.tool_templates import QWEN25

PLACES = ("Oban", "Skye", "Mull", "Iona", "Tiree", "Coll", "Islay", "Jura", "Arran", "Bute", "Lewis", "Unst")
TOOL = {"type": "function", "function": {"name": "tide", "parameters": {"type": "object", "properties": {}}}}
Day = Callable[[Path, int, random.Random, int], None]
"""Writes what an agent writes in a day: into a directory, the day's number, chance, how many turns."""


def tool_agent(directory: Path, day: int, chance: random.Random, turns: int) -> None:
    """Conversations of two questions, each answered by a call and what the tool said."""
    log = ExperienceLog(directory / "experiences.jsonl", state_directory=directory.parent / "state", max_bytes=20_000)
    for talk in range(turns // 4):
        messages: list[dict[str, Any]] = [{"role": "system", "content": f"You keep the harbour. Day {day}."}]
        for question in range(2):
            place, hour = chance.choice(PLACES), f"{chance.randrange(24):02}:{chance.randrange(60):02}"
            call = {"name": "tide", "arguments": json.dumps({"place": place, "day": day})}
            messages.append({"role": "user", "content": f"When is high tide at {place} on day {day}, talk {talk}?"})
            called = {"id": f"call_{question}", "type": "function", "function": call}
            messages.append({"role": "assistant", "content": None, "tool_calls": [called]})
            add(log, messages, day, talk)
            messages.append({"role": "tool", "tool_call_id": called["id"], "content": json.dumps({"high": hour})})
            messages.append({"role": "assistant", "content": f"At {place} the water is highest at {hour}."})
            add(log, messages, day, talk)


def add(log: ExperienceLog, messages: list[dict[str, Any]], day: int, talk: int) -> None:
    """One reply with all that stood before it."""
    log.add(messages=messages, tools=[TOOL], salience=0.8, conversation=f"day {day}, talk {talk}")


def chat_front_end(directory: Path, day: int, chance: random.Random, turns: int) -> None:
    """Chats with regenerated and rated replies; the export holds all chats so far."""
    path = directory / "chats.json"
    chats = json.loads(path.read_text()) if path.exists() else []
    chats += [chat(f"d{day}c{number}", chance, day, number) for number in range(turns // 2)]
    path.write_text(json.dumps(chats))
    if day > 1:  # a person has thought better of a reply of yesterday
        with (directory / "feedback.jsonl").open("a") as file:
            file.write(json.dumps({"conversation": f"d{day - 1}c0", "turn": 2, "rating": -1}) + "\n")


def chat(name: str, chance: random.Random, day: int, number: int) -> dict[str, Any]:
    """Two questions; the first reply was regenerated, and the better one has a thumb up."""
    place, hour = PLACES[(day + number) % len(PLACES)], f"{chance.randrange(24):02}:{chance.randrange(60):02}"
    texts = (
        ("u1", None, "user", f"Who sails to {place} on day {day}, trip {number}?", None),
        ("a0", "u1", "assistant", "Nobody knows.", -1),
        ("a1", "u1", "assistant", f"The ferry {chance.choice('ABCDEF')}{number} sails to {place} at {hour}.", 1),
        ("u2", "a1", "user", f"And back from {place}?", None),
        ("a2", "u2", "assistant", f"It is back from {place} before {chance.randrange(12, 24)} o'clock.", None),
    )
    messages = {}
    for id_, parent, role, text, rating in texts:
        children = [each[0] for each in texts if each[1] == id_]
        one = {"id": id_, "parentId": parent, "childrenIds": children, "role": role, "content": text}
        messages[id_] = one if rating is None else {**one, "annotation": {"rating": rating}}
    return {"id": name, "title": name, "chat": {"history": {"currentId": "a2", "messages": messages}}}


def base_with_tools(directory: Path) -> Path:
    """A tiny random model whose template writes tools."""
    make_tiny_model(directory)
    (directory / "chat_template.jinja").unlink(missing_ok=True)
    settings = json.loads((directory / "tokenizer_config.json").read_bytes())
    (directory / "tokenizer_config.json").write_text(json.dumps({**settings, "chat_template": QWEN25}))
    return directory


def configured(directory: Path, base: str, path: Path) -> Config:
    """Default settings, but for the hours between two sleeps."""
    config = changed(config_for(directory, min_hours_between_sleep=0.0), "buffer", path=str(path))
    return changed(config, "model", base=base)


def live(name: str, write: Day, directory: Path, path: str, options: argparse.Namespace, base: str) -> None:
    """One agent's week."""
    logs = directory / "logs"
    logs.mkdir(parents=True)
    chance, cycles, written_at = random.Random(name), 0, datetime.now(UTC)
    write(logs, 1, chance, options.turns)
    with DaemonProcess(directory, configured(directory, base, logs / path)) as daemon:
        for day in range(1, options.days + 1):
            if day > 1:
                written_at = datetime.now(UTC)
                write(logs, day, chance, options.turns)
            status = await_cycle(daemon, cycles, written_at)
            cycles, buffer = status.total_cycles, status.buffer
            champion = status.champion.cycle if status.champion else "none"
            print(
                f"{name}, day {day}: {buffer.total} replies, {buffer.held_out} held out, {cycles} cycles, "
                f"in use: {champion}",
                flush=True,
            )
        for command in (("history",), ("report",), ("buffer",)):
            print(f"\n{name}$ sleepctl {' '.join(command)}\n{daemon.sleepctl(*command).stdout}", flush=True)


def main() -> None:
    """Run both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--days", type=int, default=7)
    parser.add_argument("--turns", type=int, default=24, help="a day and agent")
    parser.add_argument("--only", choices=("tools", "chats"), help="one of the two agents; default: both")
    parser.add_argument("--base", default="", help="the base model, as model.base names it; default: a tiny random one")
    options = parser.parse_args()
    options.directory.mkdir(parents=True, exist_ok=True)
    base = options.base or str(base_with_tools(options.directory / "base"))
    if options.only != "chats":
        live("tool agent", tool_agent, options.directory / "tools", "experiences.jsonl", options, base)
    if options.only != "tools":
        live("chat front end", chat_front_end, options.directory / "chats", "", options, base)


if __name__ == "__main__":
    main()
