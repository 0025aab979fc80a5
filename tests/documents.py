"""``python -m tests.documents``: write the generated parts of the documents anew, from the code.

A generated part stands between ``<!-- generated: NAME -->`` and ``<!-- end -->``. ``test_documents.py`` compares each
with what the code says now.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, get_args, get_type_hints

import msgspec

from sleepd import cycle
from sleepd.buffer.formats.known_formats import FORMATS
from sleepd.config import render
from sleepd.protocol import answers, experience_record
from sleepd.protocol.answers import MetricResult, PruneResult
from sleepd.protocol.capability import SeenTokens
from sleepd.protocol.deployment.live_request import LiveAnswer
from sleepd.protocol.status import (
    BufferDetail,
    CycleDetail,
    QuarantineDetail,
    QuarantineList,
    RunResult,
    Status,
)
from sleepd.sleepctl.exit_codes import MEANINGS
from sleepd.sleepctl.pages.strategy_page import Compared
from sleepd.sleepctl.parser.command_texts import GROUPS

ROOT: Final = Path(__file__).parents[1]
_PART: Final = re.compile(r"(?s)(<!-- generated: ([a-z-]+) -->\n).*?(<!-- end -->)")

JSON_KEYS: Final[dict[str, tuple[str, ...]]] = {
    "status": (*Status.__struct_fields__, "is_live"),
    "check": ("schema", "decision", "run"),
    "why": answers.Reasons.__struct_fields__,
    "when": answers.ExpectedSleep.__struct_fields__,
    "simulate": answers.SimulatedTriggers.__struct_fields__,
    "decisions": ("schema", "changes"),
    "history": ("schema", "is_live", "cycles", "served"),
    "history --strategies": ("schema", "is_live", "cycles", *Compared.__struct_fields__),
    "report": ("schema", "is_live", "cycle", "learned", "buffer", "quarantine", "set_aside"),
    "show": (*CycleDetail.__struct_fields__, "is_live"),
    "web": ("schema", "address", "token"),
    "digest": ("schema", "since", "status", "cycles"),
    "buffer": BufferDetail.__struct_fields__,
    "quarantine": QuarantineList.__struct_fields__,
    "quarantine show": QuarantineDetail.__struct_fields__,
    "quarantine release, drop, reset": answers.Decided.__struct_fields__,
    "doctor": ("schema", "is_usable", "findings"),
    "version": ("schema", "sleepctl", "sleepd", "problem"),
    "run": RunResult.__struct_fields__,
    "cancel": answers.Cancelled.__struct_fields__,
    "pause, resume": answers.Paused.__struct_fields__,
    "rollback, rebase": answers.RolledBack.__struct_fields__,
    "tokens": ("schema", "id", "kept_from_training", *SeenTokens.__struct_fields__),
    "live": LiveAnswer.__struct_fields__,
    "tag": answers.Tagged.__struct_fields__,
    "metric add, remove": MetricResult.__struct_fields__,
    "prune": PruneResult.__struct_fields__,
    "setup-buffer": ("schema", "written", "notes", "next"),
    "setup-serve": ("schema", "written", "next"),
    "reload": answers.Reloaded.__struct_fields__,
    "config check": ("schema", "path", "drop_ins", "is_valid"),
    "config show": ("schema", "path", "drop_ins", "config", "origins"),
}
"""The keys of the object that a command prints with ``--json``."""


def commands() -> str:
    """A Markdown table of every command of ``sleepctl``."""
    rows = [f"| `sleepctl {name}` | {text} |" for group in GROUPS.values() for name, text in group.items()]
    return "\n".join(["| command | what it does |", "|---|---|", *rows])


def exit_codes() -> str:
    """A Markdown table of the exit codes of ``sleepctl``."""
    rows = [f"| {code.value} | {meaning} |" for code, meaning in MEANINGS.items()]
    return "\n".join(["| exit code | meaning |", "|---|---|", *rows])


def json_keys() -> str:
    """A Markdown table of what each command prints with ``--json``."""
    rows = [f"| {name} | {', '.join(f'`{key}`' for key in keys)} |" for name, keys in JSON_KEYS.items()]
    return "\n".join(["| command | keys |", "|---|---|", *rows])


def formats() -> str:
    """A Markdown table of the formats that are read."""
    rows = [f"| `{one.name}` | {one.title} | {one.usual_place or '-'} | {one.feedback or '-'} |" for one in FORMATS]
    return "\n".join(["| name | format | usual place | what becomes the salience |", "|---|---|---|---|", *rows])


def states() -> str:
    """The table of a cycle's states, as a block of code."""
    return f"```\n{cycle.diagram()}\n```"


def record_keys() -> str:
    """A Markdown table of the keys of our own JSON lines."""
    common = experience_record.Record
    short, conversation = experience_record.ReplyRecord, experience_record.ConversationRecord
    rows = [
        *_described("short form", short, without=common),
        *_described("conversation", conversation, without=common),
        *_described("both", common),
    ]
    return "\n".join(["| in | key | meaning |", "|---|---|---|", *rows])


def message_keys() -> str:
    """A Markdown table of the keys of a message."""
    kinds = (experience_record.AssistantMessage, experience_record.ToolMessage)
    rows = [
        "| all | `role` | `system`, `developer`, `user`, `assistant` or `tool` |",
        '| all | `content` | a text, `null`, or a list of parts such as `{"type": "text", "text": "…"}`. '
        "A reply to a message with an image, a recording or a file is not trained |",
        *(row for kind in kinds for row in _described(str(kind.__struct_config__.tag), kind)),
    ]
    return "\n".join(["| role | key | meaning |", "|---|---|---|", *rows])


def _described(where: str, kind: type[msgspec.Struct], *, without: type[msgspec.Struct] = msgspec.Struct) -> list[str]:
    """A row for each field that has a description."""
    hints: dict[str, Any] = get_type_hints(kind, include_extras=True)
    described = {
        name: extra.description
        for name in kind.__struct_fields__
        if name not in getattr(without, "__struct_fields__", ())
        for extra in get_args(hints[name])[1:]
        if isinstance(extra, msgspec.Meta) and extra.description
    }
    return [f"| {where} | `{name}` | {text} |" for name, text in described.items()]


GENERATED: Final[dict[str, dict[str, Callable[[], str]]]] = {
    "config/README.md": {
        "configuration": render.reference,
        "record-keys": record_keys,
        "message-keys": message_keys,
        "formats": formats,
    },
    "sleepd/README.md": {"states": states},
    "sleepd/sleepctl/README.md": {"commands": commands, "exit-codes": exit_codes, "json": json_keys},
}
"""By document: the parts of it that the code says, and by which function."""


def as_generated(document: str) -> str:
    """The text of a document with its generated parts as the code says them now.

    Raises:
        KeyError: the document has a part that no function makes.
    """
    parts = GENERATED[document]
    text = (ROOT / document).read_text(encoding="utf-8")
    return _PART.sub(lambda found: f"{found[1]}{parts[found[2]]()}\n{found[3]}", text)


def main() -> None:
    """Write every document that has generated parts."""
    for document in GENERATED:
        (ROOT / document).write_text(as_generated(document), encoding="utf-8")


if __name__ == "__main__":
    main()
