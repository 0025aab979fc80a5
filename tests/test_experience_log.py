"""Tests of what an agent writes with ``ExperienceLog``, and of the JSON Schema: the daemon reads all of it."""

from __future__ import annotations

import asyncio
import io
import json
import os
import subprocess
import sys
from array import array
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sleepd import ExperienceLog
from sleepd.buffer.conversation import SECTION_REPLIES
from sleepd.buffer.experience import Experience
from sleepd.buffer.reading.experience_buffer import ExperienceBuffer
from sleepd.buffer.reading.reader_process import ReadRequest, read_digest, read_texts
from sleepd.clock import SystemClock
from sleepd.config.schema import StateConfig
from sleepd.errors import BufferUnwritable, SleepdError, UsageError
from sleepd.protocol.chat_example import ToolCall
from sleepd.protocol.experience_record import MAX_LINE_BYTES, RECORDS, json_schema
from tests.agents import changed, config_for
from tests.fakes import fake_interpreter
from tests.processes import DaemonProcess
from tests.test_disk_faults import fill

ROOT = Path(__file__).parents[1]
SCHEMA = ROOT / "config" / "experience.schema.json"
USER = {"role": "user", "content": "How is the tide?"}
CALL = {"id": "c1", "type": "function", "function": {"name": "tide", "arguments": '{"harbour": "Kirkwall"}'}}
TOOL = {"type": "function", "function": {"name": "tide", "description": "The tide.", "parameters": {"type": "object"}}}
CONVERSATION = [
    {"role": "system", "content": "You keep the lamp."},
    USER,
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "c1", "name": "tide", "content": "rising"},
    {"role": "assistant", "content": "It rises."},
]


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state directory without an adapter."""
    directory = tmp_path / "state"
    directory.mkdir()
    return directory


@pytest.fixture
def log(tmp_path: Path, state: Path) -> ExperienceLog:
    """A log that writes to a new file."""
    return ExperienceLog(tmp_path / "experiences.jsonl", state_directory=state)


def understood(content: bytes) -> list[Experience]:
    """What the daemon learns of a buffer, of which it skips nothing."""
    digest = read_digest(io.BytesIO(content), None)
    assert digest.half_written == ""
    assert digest.skipped == []
    keys = set(digest.columns.keys)
    return read_texts(io.BytesIO(content), ReadRequest(wanted=array("Q", keys).tobytes())).texts


def read(log: ExperienceLog) -> list[Experience]:
    """What the daemon learns of the file of a log."""
    return understood(log.path.read_bytes())


# --- what is written is read ---


def test_prompt_and_reply_are_read(log: ExperienceLog) -> None:
    """All that is given in the short form comes out of the reader."""
    log.add(prompt="Who are you?", response="Robin.", salience=0.9, id="a1", metadata={"session": 3})
    (found,) = read(log)
    assert (found.prompt, found.response, found.salience, found.id) == ("Who are you?", "Robin.", 0.9, "a1")
    written = json.loads(log.path.read_text())
    assert written["metadata"] == {"session": 3}
    assert written["timestamp"].endswith("+00:00")


def test_last_reply_is_learned(log: ExperienceLog) -> None:
    """Of a conversation the last reply is learned, with all before it as its context, and with the tools."""
    log.add(messages=CONVERSATION, tools=[TOOL], salience={"total": 0.8})
    (found,) = read(log)
    assert (found.prompt, found.response, found.salience) == ("How is the tide?", "It rises.", 0.8)
    assert [one.role for one in found.context] == ["system", "user", "assistant", "tool"]
    assert found.context[2].calls == (ToolCall(name="tide", arguments='{"harbour": "Kirkwall"}', id="c1"),)
    assert json.loads(found.tools) == [TOOL]


def test_all_replies_are_learned(log: ExperienceLog) -> None:
    """With ``supervised="all"`` each reply is learned, the call of a tool too; ``weight`` 0 leaves one out."""
    more = [*CONVERSATION, USER, {"role": "assistant", "content": "As before.", "weight": 0}]
    log.add(messages=[*more, USER, {"role": "assistant", "content": "It falls.", "salience": 0.4}], supervised="all")
    found = read(log)
    assert [one.whole_response for one in found] == ['tide({"harbour": "Kirkwall"})', "It rises.", "It falls."]
    assert [one.salience for one in found] == [0.7, 0.7, 0.4]


def test_growing_conversation_counts_once(log: ExperienceLog) -> None:
    """Records that repeat the history, or its end, give each reply once."""
    messages = list[dict[str, Any]]()
    for number in range(SECTION_REPLIES - 1):
        messages += [USER, {"role": "assistant", "content": f"Answer {number}."}]
        log.add(messages=messages[-6:], conversation="one")
        log.add(messages=messages[-6:], conversation="one")
    log.add(prompt="And now?", response="Answer at last.", conversation="one")
    found = read(log)
    assert [one.response for one in found] == [
        *(f"Answer {number}." for number in range(SECTION_REPLIES - 1)),
        "Answer at last.",
    ]


def test_other_keys_stay(log: ExperienceLog) -> None:
    """What a message holds besides stays in the file; a thought is read from it."""
    reply = {"role": "assistant", "content": "It rises.", "reasoning_content": "Spring tide.", "logprobs": [1, 2]}
    log.add(messages=[USER, reply])
    assert json.loads(log.path.read_text())["messages"][1] == reply
    assert read(log)[0].response == "<think>\nSpring tide.\n</think>\n\nIt rises."


class Dumped:
    """As the messages of OpenAI's client are: objects that say with ``model_dump`` what they hold."""

    def __init__(self, **fields: Any) -> None:
        self._fields = fields

    def model_dump(self, *, mode: str, exclude_none: bool) -> dict[str, Any]:
        assert mode == "json"
        return {name: value for name, value in self._fields.items() if value is not None or not exclude_none}


def test_message_objects_are_taken(log: ExperienceLog) -> None:
    """A client's own message object is written as what it holds."""
    log.add(messages=[USER, Dumped(role="assistant", content="It rises.", refusal=None, tool_calls=None)])
    assert json.loads(log.path.read_text())["messages"][1] == {"role": "assistant", "content": "It rises."}


# --- the adapter ---


def test_adapter_in_use_is_noted(log: ExperienceLog, state: Path) -> None:
    """The link ``current`` is read with each experience, in either form; without it the base model replied."""
    for number, target in enumerate(["", "cycle_007", str(state / "cycle_012"), "", "elsewhere"]):
        (state / "current").unlink(missing_ok=True)
        if target:
            (state / "current").symlink_to(target)
        log.add(prompt="Who?", response=f"Robin {number}.")
        log.add(messages=[USER, {"role": "assistant", "content": f"Robin {number}."}])
    cycles = [None, None, 7, 7, 12, 12, None, None, None, None]
    assert [one.said_under for one in read(log)] == cycles


def test_unreadable_state_is_left_out(log: ExperienceLog, state: Path) -> None:
    """Where ``current`` is no link, or lies where the agent cannot look, nothing is claimed."""
    (state / "current").mkdir()
    log.add(prompt="Who?", response="Robin.")
    assert "said_under" not in json.loads(log.path.read_text())


@pytest.mark.parametrize(
    ("given", "cycle"), [("cycle_003", 3), (Path("/var/lib/sage-sleepd/cycle_003"), 3), (3, 3), (None, None)]
)
def test_given_adapter_is_noted(log: ExperienceLog, state: Path, given: Any, cycle: int | None) -> None:
    """An agent that says which adapter it has loaded is believed, whatever is in use by now."""
    (state / "current").symlink_to("cycle_007")
    log.add(prompt="Who?", response="Robin.", said_under=given)
    assert [one.said_under for one in read(log)] == [cycle]
    assert json.loads(log.path.read_text()).get("said_under", "left out") != "left out"
    assert [one.said_at is None for one in read(log)] == [given is None]


def test_default_is_the_daemons(tmp_path: Path) -> None:
    """Without another one, the state directory is the default of the configuration."""
    log = ExperienceLog(tmp_path / "log")
    assert log._current == Path(StateConfig().directory) / "current"


# --- what is refused ---

REPLY = {"role": "assistant", "content": "It rises."}
BAD: list[tuple[dict[str, Any], str]] = [
    ({}, "expected either messages"),
    ({"prompt": "a"}, "expected either messages"),
    ({"prompt": "a", "response": "b", "messages": [USER, REPLY]}, "expected either messages"),
    ({"prompt": "a", "response": "b", "tools": [TOOL]}, "expected either messages"),
    ({"prompt": "a", "response": " \n"}, "response: expected text, found nothing but white space"),
    ({"prompt": "a", "response": 7}, r"Expected `str`, got `int` - at `\$.response`"),
    ({"prompt": "a", "response": "\ud800"}, "expected what JSON can hold: .*surrogates"),
    ({"prompt": "a", "response": "b", "salience": 1.5}, r"salience: expected a number from 0 to 1"),
    ({"prompt": "a", "response": "b", "salience": float("nan")}, "expected what JSON can hold"),
    ({"prompt": "a", "response": "b", "salience": {"total": -1}}, "salience.total: expected a number from 0 to 1"),
    ({"prompt": "a", "response": "b", "salience": {}}, "missing required field `total`"),
    ({"prompt": "a", "response": "b", "metadata": {"at": {1, 2}}}, "expected what JSON can hold: found set"),
    ({"prompt": "a", "response": "b", "id": "x" * 257}, r"length <= 256 - at `\$.id`"),
    ({"prompt": "a", "response": "b", "id": True}, r"got `bool` - at `\$.id`"),
    ({"prompt": "a", "response": "b", "said_under": "the new one"}, 'said_under: expected "cycle_007"'),
    ({"prompt": "a", "response": "b", "said_under": "cycle_007\n"}, 'said_under: expected "cycle_007"'),
    ({"prompt": "a", "response": "b" * MAX_LINE_BYTES}, f"expected a record of at most {MAX_LINE_BYTES} bytes"),
    ({"messages": []}, r"length >= 1 - at `\$.messages`"),
    ({"messages": "How is the tide?"}, r"Expected `array`, got `str` - at `\$.messages`"),
    ({"messages": [USER, {"role": "robot", "content": "a"}]}, r"messages\[1\].role: expected system, .*'robot'"),
    ({"messages": [USER, {"content": "a"}]}, "missing required field `role`"),
    ({"messages": [USER]}, r"messages\[0\]: expected the reply of the assistant as the last message.*'user'"),
    ({"messages": CONVERSATION[:4]}, r"messages\[3\]: expected the reply of the assistant.*'tool'"),
    ({"messages": [USER, {"role": "assistant"}]}, r"messages\[1\]: expected a reply with text or calls of tools"),
    ({"messages": [USER, {**REPLY, "content": " "}]}, r"messages\[1\]: expected a reply with text or calls of tools"),
    ({"messages": [USER, {**REPLY, "content": 3}]}, r"got `int` - at `\$.messages\[1\].content`"),
    ({"messages": [USER, {**REPLY, "weight": 2}]}, r"messages\[1\].weight"),
    ({"messages": [USER, {**REPLY, "tool_calls": [{"function": {}}]}]}, "missing required field `name`"),
    ({"messages": [CONVERSATION[0], REPLY]}, "expected a message of the user before the reply"),
    ({"messages": [USER, REPLY], "supervised": "none"}, r"\$.supervised"),
    ({"messages": [USER, REPLY], "tools": [{"name": "tide"}]}, "missing required field `function`"),
]


@pytest.mark.parametrize(("given", "words"), BAD, ids=[f"{number}" for number in range(len(BAD))])
def test_bad_record_is_refused(log: ExperienceLog, given: dict[str, Any], words: str) -> None:
    """What the daemon would not read raises with its place, and nothing is written."""
    with pytest.raises(UsageError, match=words) as refused:
        log.add(**given)
    assert refused.value.hint
    assert not log.path.exists()


def test_deep_record_is_refused(log: ExperienceLog) -> None:
    """Data that are nested beyond what any parser reads raise as other bad data do, and so do circles."""
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    circle: dict[str, Any] = {}
    circle["itself"] = circle
    for metadata in ({"deep": deep}, circle):
        with pytest.raises(UsageError, match="expected what JSON can hold"):
            log.add(prompt="a", response="b", metadata=metadata)
    assert not log.path.exists()


@pytest.mark.parametrize("limits", [{"max_bytes": -1}, {"backups": 0}, {"max_bytes": 100, "backups": 100}])
def test_bad_limits_are_refused(tmp_path: Path, limits: dict[str, int]) -> None:
    """A rotation that would lose what the daemon has not read is refused where it is asked for."""
    with pytest.raises(UsageError, match=r"max_bytes .* backups .* 99"):
        ExperienceLog(tmp_path / "log", **limits)


# --- what cannot be written ---


def test_full_disk_is_told(small_disk: Path, state: Path) -> None:
    """A full disk raises with the file and the next step; with space again the log goes on."""
    log = ExperienceLog(small_disk / "log", state_directory=state)
    log.add(prompt="a", response="one")
    filler = fill(small_disk)
    with pytest.raises(BufferUnwritable, match=r"/log: .*: No space left") as refused:
        log.add(prompt="b", response="two" * 10_000)
    assert refused.value.hint == f"free some space: df -h {small_disk}"
    filler.unlink()
    log.add(prompt="c", response="three")
    assert [one.response for one in read(log)] == ["one", "three"]


def test_missing_directory_is_told(tmp_path: Path) -> None:
    """A misspelled directory is not made in silence."""
    log = ExperienceLog(tmp_path / "typo" / "log")
    with pytest.raises(BufferUnwritable, match="No such file or directory") as refused:
        log.add(prompt="a", response="b")
    assert refused.value.hint == f"make its directory: mkdir -p {tmp_path}/typo"


def test_every_failure_has_a_step(tmp_path: Path) -> None:
    """Each kind of failure names what to do."""
    (tmp_path / "array").write_text("[]")
    (tmp_path / "link").symlink_to(tmp_path / "array")
    logs = [ExperienceLog(tmp_path / "array"), ExperienceLog(tmp_path / "link", max_bytes=9), ExperienceLog(tmp_path)]
    hints = []
    for log in logs:
        with pytest.raises(SleepdError) as refused:
            log.add(prompt="a", response="b")
        assert isinstance(refused.value, BufferUnwritable)
        hints.append(refused.value.hint)
    assert "JSON lines" in hints[0]
    assert hints[1].startswith("a link is not rotated")
    assert all(hints)


def test_daemon_follows_the_rotation(tmp_path: Path, state: Path) -> None:
    """While the log is written and rotated, each poll counts every experience once, wherever it stands by then."""
    log = ExperienceLog(tmp_path / "log", state_directory=state, max_bytes=1000, backups=50)
    buffer = ExperienceBuffer(log.path, patience_seconds=30.0, clock=SystemClock())

    async def poll() -> list[int]:
        counts = []
        for number in range(60):
            log.add(prompt="What comes?", response=f"Wave {number}.", salience=0.8)
            counts.append(len((await buffer.read()).keys))
        texts = await buffer.extract(set(buffer.view.keys))
        assert sorted(one.response for one in texts) == sorted(f"Wave {number}." for number in range(60))
        return counts

    assert asyncio.run(poll()) == list(range(1, 61))
    assert len(list(tmp_path.glob("log.*"))) > 5


AGENT = """
import sys
from sleepd import ExperienceLog

buffer, state, name = sys.argv[1:]
log = ExperienceLog(buffer, state_directory=state, max_bytes=5000)
for number in range(20):
    asked = {"role": "user", "content": f"Agent {name}: what is the square of {number}?"}
    said = {"role": "assistant", "content": f"Agent {name} says that {number} times {number} is {number * number}."}
    log.add(messages=[asked, said], salience=0.9, conversation=name)
"""


def test_daemon_learns_what_agents_log(tmp_path: Path) -> None:
    """Three agents write to one file that they rotate; a cycle learns all of it, and then its adapter is noted."""
    config = config_for(tmp_path, min_experiences=60, check_interval_seconds=1.0)
    config = changed(config, "worker", python=str(fake_interpreter(tmp_path / "python", "promote")))
    buffer, state = tmp_path / "buffer.json", tmp_path / "state"
    with DaemonProcess(tmp_path, config) as daemon:
        command = [sys.executable, "-c", AGENT, str(buffer), str(state)]
        agents = [subprocess.Popen([*command, name], cwd=ROOT) for name in ("Anna", "Bea", "Cleo")]
        assert [agent.wait() for agent in agents] == [0, 0, 0]
        daemon.await_event("candidate_promoted")
        status = daemon.status().buffer
        assert (status.total, status.set_aside, status.problem) == (60, 0, "")
        assert 0 < status.held_out < 60
    ExperienceLog(buffer, state_directory=state).add(prompt="Who?", response="Robin.")
    assert json.loads(buffer.read_text().splitlines()[-1])["said_under"] == "cycle_001"
    assert (tmp_path / "buffer.json.1").exists()


# --- what it costs an agent ---


SMALL = ("appended_file", "buffer", "config", "errors", "experience_log", "files", "protocol", "text", "version")
"""What ``ExperienceLog`` loads modules of."""


def test_agent_imports_next_to_nothing() -> None:
    """Beyond the standard library and msgspec, only some small modules of this package are loaded."""
    program = (
        "import sys; import msgspec; before = set(sys.modules); from sleepd import ExperienceLog; "
        "print(*sorted(name for name in set(sys.modules) - before if name.partition('.')[0] not in "
        "sys.stdlib_module_names))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = done.stdout.split()
    parts = {".".join(name.split(".")[:2]) for name in loaded}
    assert parts <= {"sleepd", *(f"sleepd.{name}" for name in SMALL)}
    assert len(loaded) < 25


def test_limits_reach_the_file(tmp_path: Path, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mode, rotation and durability are what the log was made with."""
    synced = list[int]()
    monkeypatch.setattr(os, "fsync", synced.append)
    log = ExperienceLog(tmp_path / "log", state_directory=state, mode=0o600, max_bytes=120, backups=2, durable=True)
    for number in range(6):
        log.add(prompt="a", response=f"reply {number}")
    assert sorted(path.name for path in tmp_path.glob("log*")) == ["log", "log.1", "log.2"]
    assert {path.stat().st_mode & 0o777 for path in tmp_path.glob("log*")} == {0o600}
    assert len(synced) >= 6


# --- the schema ---


def test_shipped_schema_is_current() -> None:
    """The schema that is shipped is that of the structures (write it anew: python -m sleepd.sleepctl.generated)."""
    assert json.loads(SCHEMA.read_text()) == json_schema()


def from_schema(schema: dict[str, Any], parts: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Whatever a JSON Schema allows, of the keywords that msgspec writes."""
    if "$ref" in schema:
        return st.deferred(lambda: from_schema(parts[schema["$ref"].rpartition("/")[2]], parts))
    if "anyOf" in schema:
        return st.one_of([from_schema(each, parts) for each in schema["anyOf"]])
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if schema.keys() == {"description", "default"}:
        return st.none() | st.integers() | st.text(max_size=5) | st.lists(st.text(max_size=5), max_size=2)
    match schema.get("type"):
        case "null":
            return st.none()
        case "string" if "pattern" in schema:
            return st.from_regex(schema["pattern"]).filter(str.isprintable)
        case "string":
            return st.text(max_size=20, min_size=schema.get("minLength", 0))
        case "integer":
            return st.integers(schema["minimum"], schema.get("maximum", schema.get("exclusiveMaximum", 1) - 1))
        case "number":
            return st.floats(schema.get("minimum"), schema.get("maximum"), allow_nan=False, allow_infinity=False)
        case "array":
            return st.lists(from_schema(schema["items"], parts), min_size=schema.get("minItems", 0), max_size=5)
        case "object" if "properties" in schema:
            of_keys = {key: from_schema(value, parts) for key, value in schema["properties"].items()}
            needed = {key: of_keys.pop(key) for key in schema["required"]}
            return st.fixed_dictionaries(needed, optional={**of_keys, "x-unknown": st.integers()})
        case "object":
            return st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5), max_size=2)
    raise AssertionError(f"no keyword is known here: {schema}")


RECORD = from_schema(json_schema(), json_schema()["$defs"])


def replies_of(record: dict[str, Any]) -> int:
    """How many replies of a record are trained, by the words of its documentation."""
    if "messages" not in record:
        return 1
    found, is_asked, is_text = list[bool](), False, False
    for message in record["messages"]:
        content = message.get("content")
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content or []
        if message["role"] == "user":
            is_asked, is_text = True, all(part["type"] == "text" for part in parts)
        else:
            is_text = is_text and all(part["type"] == "text" for part in parts)
        if message["role"] == "assistant":
            thought = (message.get("reasoning_content") or "").strip()
            said = thought or message.get("tool_calls") or any(part.get("text", "").strip() for part in parts)
            found.append(bool(said) and is_asked and is_text and message.get("weight") != 0)
    return sum(found if record.get("supervised", "all") == "all" else found[-1:])


UNASKED = "expected a message of the user before the reply, found none"
EMPTY = "expected a reply with text or a call of a tool, found an empty one"


@given(RECORD)
def test_allowed_record_is_read(record: dict[str, Any]) -> None:
    """What the schema allows is read by the daemon: every reply that is to be trained; replies to images and results of
    no call are skipped, and a record with nothing to train says why.

    A conversation needs a reply, which no keyword of the schema says.
    """
    if not any(message["role"] == "assistant" for message in record.get("messages", [{"role": "assistant"}])):
        record["messages"].append(REPLY)
    content = json.dumps(record).encode() + b"\n"
    digest = read_digest(io.BytesIO(content), None)
    assert digest.half_written == ""
    told = {each.reason for each in digest.skipped}
    reasons = {each for each in told if "not there as text" not in each and "no call before it" not in each}
    assert reasons <= (set() if replies_of(record) else {UNASKED, EMPTY})
    assert len(digest.columns.keys) <= replies_of(record)
    if replies_of(record):
        assert digest.columns.keys


JSON_VALUE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)


def is_allowed(record: Any) -> bool:
    """Whether one of the structures, of which the schema is made, takes the record."""
    for kind in RECORDS:
        try:
            msgspec.json.decode(json.dumps(record), type=kind)
        except msgspec.ValidationError:
            continue
        return True
    return False


@given(RECORD)
def test_structures_take_what_the_schema_allows(record: dict[str, Any]) -> None:
    """The schema allows nothing that ``ExperienceLog`` would refuse by the structures."""
    assert is_allowed(record)


@given(
    record=RECORD, key=st.sampled_from(("prompt", "response", "completion", "messages", "salience")), value=JSON_VALUE
)
def test_refused_record_harms_no_other(record: dict[str, Any], key: str, value: Any) -> None:
    """What the schema refuses is read all the same or skipped with a reason; the records beside it are read."""
    record[key] = value
    if is_allowed(record):
        return
    good = {"prompt": "Who are you?", "response": "Robin."}
    content = b"".join(json.dumps(each).encode() + b"\n" for each in (good, record, {**good, "response": "Rob."}))
    digest = read_digest(io.BytesIO(content), None)
    assert digest.half_written == ""
    assert len(digest.columns.keys) >= 2
    assert digest.skipped_total <= 1
