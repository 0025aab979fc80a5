"""What is fuzzed: each target with its valid documents, how they are changed, and what must hold.

A check returns if its input is accepted, raises a ``SleepdError`` if it is refused, and fails by any other exception;
``assert`` is for what must hold of the accepted.
"""

from __future__ import annotations

import asyncio
import io
import json
import math
import shutil
import socket
from array import array
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from sleepd.buffer.experience import content_hash, group_of, id_hash
from sleepd.buffer.formats.known_formats import FORMATS
from sleepd.buffer.learnables import ReadSettings
from sleepd.buffer.rating.rating_names import REJECTED
from sleepd.buffer.rating.ratings import Ratings, read_ratings
from sleepd.buffer.reading.experience_buffer import ExperienceBuffer
from sleepd.buffer.reading.reader_process import Reading, ReadRequest, packed, read_digest, read_texts, unpacked
from sleepd.buffer.reading.view import View
from sleepd.client import Client
from sleepd.clock import SystemClock
from sleepd.config.layers import VARIABLES, load
from sleepd.config.render import render
from sleepd.config.schema import Config
from sleepd.config.strategies import STRATEGIES
from sleepd.cycles.history import PastCycles
from sleepd.cycles.running.planning import Order
from sleepd.daemon.control_socket import Peer
from sleepd.daemon.publisher import Life
from sleepd.daemon.requests import Requests
from sleepd.errors import BufferUnreadable, DaemonNotRunning, NothingToDo, UsageError
from sleepd.protocol import control, job
from sleepd.protocol.decision_view import DecisionView
from sleepd.protocol.experience_record import MAX_LINE_BYTES
from sleepd.protocol.status import BufferDetail, CycleDetail, RunResult, Status
from sleepd.sleepctl.console import Console
from sleepd.sleepctl.offline import read_status
from sleepd.sleepctl.pages.show_page import show_page
from sleepd.sleepctl.pages.status_page import status_page
from sleepd.store.adapter_file import read_adapter_file
from sleepd.store.checkpoints import Checkpoints, read_manifest, verify
from sleepd.store.legacy_formats import read_scheduler_state, read_training_state, write_scheduler_state
from sleepd.store.sqlite.ledger import Ledger
from sleepd.store.sqlite.notes import IMPORTED_SEEN, IMPORTED_STATE
from sleepd.store.sqlite.rebuild_ledger import open_ledger
from sleepd.store.state_lock import read_holder
from tests.agents import config_for, experiences, write_buffer
from tests.fakes import FakeClock, fake_worker
from tests.faults import mutations
from tests.format_samples import CHATML, SAMPLES
from tests.older_trainer import adapter_weights, write_older_cycle
from tests.sleepctl import sleepctl_scenes as scenes
from tests.stages import OpenSleeper, open_sleeper


@dataclass(frozen=True)
class Target:
    name: str
    documents: list[bytes]
    mutate: mutations.Mutation
    check: Callable[[bytes, Random], None]


Maker = Callable[[Path, ExitStack], Target]
TARGETS: dict[str, Maker] = {}


def target(make: Maker) -> Maker:
    """Enter a target under the name of its function."""
    TARGETS[make.__name__.replace("_", "-")] = make
    return make


def refuse(text: str) -> None:
    """Count the input as refused."""
    raise BufferUnreadable(text, hint="")


# --- the buffer ---

RICH = [
    {**experiences(1)[0], "metadata": {"tags": ["a", {"b": None}], "n": 1.5}, "phase": "wake"},
    {"prompt": "naïve \U0001f600?", "response": "Ja — «oui».", "salience": 0.25},
    {"id": 7, "prompt": "", "response": "x", "salience": {"total": 1}},
    *experiences(2, start=5),
]
ARRAY = json.dumps(RICH, ensure_ascii=False).encode()
OBJECT = json.dumps({"version": 2, "experiences": RICH, "note": [1, None]}, indent=1).encode()
LINES = b"".join(json.dumps(record).encode() + b"\n" for record in RICH)


def mutated_buffer(random: Random, document: bytes) -> bytes:
    lines = document.startswith(b"{") and b'"experiences"' not in document
    return mutations.mutated_lines(random, document) if lines else mutations.mutated_json(random, document)


def digest_of(data: bytes, before: Reading | None = None) -> Reading:
    return read_digest(io.BytesIO(data), before)


def keys_of(reading: Reading) -> array[int]:
    return reading.columns.keys


def goes_on(data: bytes, cut: int) -> bool:
    """Whether JSON lines are cut behind a whole record that more follows on the same line: no reader can know that."""
    return bool(
        cut and digest_of(data[:cut]).consumed == cut and data[cut - 1 : cut] != b"\n" and data[cut : cut + 1] != b"\n"
    )


@target
def digest(directory: Path, stack: ExitStack) -> Target:
    def check(data: bytes, random: Random) -> None:
        reading = digest_of(data)
        assert unpacked(packed([reading]), Reading) == [reading]
        assert msgspec.json.encode(reading.skipped)
        if reading.half_written:
            refuse(reading.half_written)
        keys, groups, saliences = keys_of(reading), reading.columns.groups, reading.columns.saliences
        assert len(set(keys)) == len(keys) == len(groups) == len(saliences)
        assert all(0 <= salience <= 1 for salience in saliences)
        # Whatever was counted can be fetched, and is the text that was counted.
        found = read_texts(io.BytesIO(data), ReadRequest(wanted=array("Q", keys).tobytes())).texts
        assert [id_hash(each.id) for each in found] == list(keys)
        assert [content_hash(each.prompt, each.response) for each in found] == list(groups)

    return Target("digest", [ARRAY, OBJECT, LINES], mutated_buffer, check)


@target
def formats(directory: Path, stack: ExitStack) -> Target:
    """A file of each format that is read, by its content or as the format that is named."""

    def check(data: bytes, random: Random) -> None:
        named = random.choice(["own", *(one.name for one in FORMATS)])
        settings = ReadSettings(format="auto" if random.random() < 0.7 else named)
        reading = read_digest(io.BytesIO(data), None, settings)
        if reading.half_written:
            assert reading.half_written.isprintable()
            refuse(reading.half_written)
        assert all(each.reason.isprintable() and len(each.reason) < 250 for each in reading.skipped)
        keys, groups, saliences = keys_of(reading), reading.columns.groups, reading.columns.saliences
        assert (
            len(set(keys))
            == len(keys)
            == len(groups)
            == len(saliences)
            == len(array("Q", reading.columns.conversations))
        )
        assert all(0 <= salience <= 1 or salience == REJECTED for salience in saliences)
        # Whatever was counted can be fetched, and is the text that was counted.
        found = read_texts(io.BytesIO(data), ReadRequest(wanted=array("Q", keys).tobytes(), settings=settings)).texts
        assert [id_hash(each.id) for each in found] == list(keys)
        assert [group_of(each) for each in found] == list(groups)

    lines = [b"".join(json.dumps(record).encode() + b"\n" for record in sample) for sample in SAMPLES.values()]
    arrays = [json.dumps(sample).encode() for sample in SAMPLES.values()]
    return Target("formats", [*lines, *arrays, CHATML.encode() * 2], mutated_buffer, check)


@target
def feedback(directory: Path, stack: ExitStack) -> Target:
    """Ratings and scores, with the key and the salience that each must have."""

    def check(data: bytes, random: Random) -> None:
        found = read_ratings([("feedback.jsonl", io.BytesIO(data))])
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(found), type=Ratings) == found
        assert all(0 <= each <= 1 or each == REJECTED for each in found.by_key.values())
        assert all(each.reason.isprintable() and len(each.reason) < 250 for each in found.skipped)
        if not found.by_key:
            refuse("no rating")

    rated = [{"id": "a", "rating": 1}, {"conversation": "c", "turn": 2, "rating": "down"}, {"id": 7, "salience": 0.5}]
    scored = {"trace_id": "t", "observation_id": "o", "name": "n", "data_type": "NUMERIC", "value": 1}
    lines = [b"".join(json.dumps(each).encode() + b"\n" for each in (*rated, scored))]
    return Target("feedback", lines, mutations.mutated_lines, check)


@target
def in_two_pieces(directory: Path, stack: ExitStack) -> Target:
    """JSON lines, cut anywhere: the first piece, and then the whole with what is known of the first."""

    def check(data: bytes, random: Random) -> None:
        whole = digest_of(data)
        cut = random.randrange(len(data) + 1)
        first = digest_of(data[:cut])
        if whole.half_written or (whole.form, first.form) != ("lines", "lines") or first.half_written:
            refuse("not read as JSON lines, both times")
        if goes_on(data, cut):
            refuse("cut behind a record that goes on")
        continued = digest_of(data, first)
        assert continued == whole

    return Target("in-two-pieces", [LINES, LINES.rstrip(b"\n")], mutated_buffer, check)


@target
def beside_a_bad_one(directory: Path, stack: ExitStack) -> Target:
    """A record that may be anything, among complete good ones: none of these may be lost."""
    good = experiences(6, start=100)
    wanted = {id_hash(record["id"]) for record in good}

    def check(bad: bytes, random: Random) -> None:
        place = random.randrange(1, len(good))
        texts = [json.dumps(record).encode() for record in good]
        if random.random() < 0.5:
            bad = bad.replace(b"\n", b"")
            data = b"\n".join([*texts[:place], bad, *texts[place:]]) + b"\n"
        else:
            # An array with what is no JSON in it, or is nested too deep for the parser, is unreadable as a whole: the
            # last good view holds, and the status says so.
            try:
                json.loads(bad.decode("utf-8", "surrogateescape"))
            except (ValueError, RecursionError):
                refuse("not a JSON value")
            data = b"[" + b",".join([*texts[:place], bad, *texts[place:]]) + b"]"
        reading = digest_of(data)
        assert not reading.half_written, reading.half_written
        assert wanted <= set(keys_of(reading))
        # NUL bytes before a line are told beside what becomes of the line.
        assert len(bad) > MAX_LINE_BYTES or reading.skipped_total <= 1 + bad.startswith(b"\0")

    documents = [json.dumps(record, ensure_ascii=False).encode() for record in RICH]
    return Target("beside-a-bad-one", documents, mutations.mutated_json, check)


@target
def buffer_file(directory: Path, stack: ExitStack) -> Target:
    """A real file, appended to or rewritten, read by one that knows it and by one that does not."""
    runner = stack.enter_context(asyncio.Runner())
    path = directory / "buffer.json"

    async def life(data: bytes, random: Random) -> None:
        clock = FakeClock()

        def reader() -> ExperienceBuffer:
            return ExperienceBuffer(path, patience_seconds=30.0, clock=clock)

        known = reader()
        cut = random.randrange(len(data) + 1)
        path.write_bytes(data[:cut])
        await known.read()
        path.write_bytes(data)
        await known.read()
        clock.advance(60)
        after, fresh = await known.read(), reader()
        await fresh.read()
        clock.advance(60)
        anew = await fresh.read()
        assert bool(after.problem) == bool(anew.problem)
        if anew.problem:
            refuse(anew.problem)
        if after.form == "lines" and goes_on(data, cut):
            refuse("cut behind a record that goes on")
        assert (after.form, after.keys, after.groups, after.saliences) == (
            *(anew.form, anew.keys, anew.groups, anew.saliences),
        )
        assert (after.skipped, after.skipped_total) == (anew.skipped, anew.skipped_total)
        assert [id_hash(each.id) for each in await fresh.extract(anew.keys)] == list(anew.keys)

    return Target("buffer-file", [ARRAY, OBJECT, LINES], mutated_buffer, lambda data, rng: runner.run(life(data, rng)))


# --- the wires ---

REQUESTS = [
    control.GetStatus(),
    control.Check(thresholds=control.GivenThresholds(min_experiences=3, min_salience=0.2)),
    control.Run(force=True, wait=True, epochs=2, learning_rate=1e-4, max_experiences=9, strategy="gentle"),
    control.Cancel(),
    control.Pause(),
    control.Resume(),
    control.History(limit=5),
    control.Show(cycle=1),
    control.Why(limit=3),
    control.Buffer(),
    control.Rollback(cycle=1),
    control.Rollback(),
    control.GetVersion(),
]


@target
def request(directory: Path, stack: ExitStack) -> Target:
    def check(line: bytes, random: Random) -> None:
        understood = control.decode_request(line)
        again = control.encode(understood)
        assert again.count(b"\n") == 1
        assert _same(control.decode_request(again), understood)

    return Target("request", [control.encode(each) for each in REQUESTS], mutations.mutated_json, check)


@target
def answered(directory: Path, stack: ExitStack) -> Target:
    """Requests that a sleeper with two cycles behind it answers; a cycle is begun by none."""
    runner = stack.enter_context(asyncio.Runner())
    sleeper = slept(directory, runner)
    stack.callback(sleeper.close)

    async def reload() -> list[str]:
        return []

    requests = Requests(sleeper, sleeper.reader, Life(config_path=Path("config.toml")), reload=reload)

    def check(line: bytes, random: Random) -> None:
        understood = control.decode_request(line)
        if isinstance(understood, control.Run):
            if understood.strategy is not None and understood.strategy not in STRATEGIES:
                raise UsageError("strategy", hint="")
            raise NothingToDo("a cycle is begun by none", hint="")
        data = runner.run(requests.respond(understood, Peer(pid=1, uid=0, gid=0)))
        control.decode_answer(control.answer(data), dict[str, Any])

    return Target("answered", [control.encode(each) for each in REQUESTS], mutations.mutated_json, check)


def _same(one: object, other: object) -> bool:
    """Equality in which NaN equals itself."""
    return msgspec.json.encode(one) == msgspec.json.encode(other)


@target
def answer(directory: Path, stack: ExitStack) -> Target:
    kinds: dict[bytes, type] = {
        control.answer(scenes.MORNING): Status,
        control.answer(scenes.decision()): DecisionView,
        control.answer(RunResult(is_started=True, reason="Cycle 1 started", cycle=1)): RunResult,
        control.answer(scenes.BUFFER_DETAIL): BufferDetail,
        control.answer(scenes.DETAIL): CycleDetail,
        control.answer({"schema": 1, "cycles": []}): dict,
        control.answer_error(UsageError("no", hint="yes")): dict,
    }

    def check(line: bytes, random: Random) -> None:
        kind = random.choice(list(kinds.values()))
        data: Any = control.decode_answer(line, kind)
        assert _same(control.decode_answer(control.answer(data), kind), data)

    def mutate(random: Random, document: bytes) -> bytes:
        return mutations.mutated_json(random, document)

    return Target("answer", list(kinds), mutate, check)


@target
def announcement(directory: Path, stack: ExitStack) -> Target:
    """What a subscriber hears, through the client and a socket."""
    heard = [
        control.Announcement(event="progress", at=scenes.NOW, fields=msgspec.to_builtins(scenes.PROGRESS)),
        control.Announcement(event="cycle_ended", at=scenes.NOW, fields={"cycle": 3, "state": "promoted"}),
    ]

    def check(lines: bytes, random: Random) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            theirs.sendall(lines)
            theirs.shutdown(socket.SHUT_WR)
            client = Client.__new__(Client)  # connected already
            client._path, client._timeout, client._socket, client._received = "pair", 1.0, ours, bytearray()
            understood = list(client._announcements())
        assert all(_same(msgspec.json.decode(control.encode(each), type=type(each)), each) for each in understood)

    return Target("announcement", [b"".join(map(control.encode, heard))], mutations.mutated_lines, check)


@target
def offline_copy(directory: Path, stack: ExitStack) -> Target:
    """``status.json`` and the lock file, which are read while the daemon is down."""
    absent = DaemonNotRunning("it is not running", hint="start it")

    def check(text: bytes, random: Random) -> None:
        for name in ("status.json", "lock"):
            (directory / name).write_bytes(text)
        read_holder(directory)
        assert read_status(directory, absent).schema == 1

    holder = msgspec.json.encode({"pid": 5, "socket": "/run/sleepd.sock"})
    return Target("offline-copy", [msgspec.json.encode(scenes.MORNING), holder], mutations.mutated_json, check)


@target
def screen(directory: Path, stack: ExitStack) -> Target:
    """What sleepctl shows of an answer that it understood, whoever gave it."""
    status, cycle = control.answer(scenes.MORNING), control.answer(scenes.DETAIL)

    def check(line: bytes, random: Random) -> None:
        page: Any
        if b'"summary"' in line:
            page = show_page(control.decode_answer(line, CycleDetail), scenes.NOW)
        else:
            page = status_page(control.decode_answer(line, Status), now=scenes.NOW, is_live=True)
        shown = io.StringIO()
        Console(shown, shown, {}, is_json=False).show({}, page)
        assert "\x1b" not in shown.getvalue()

    return Target("screen", [status, cycle], mutations.mutated_json, check)


@target
def worker_message(directory: Path, stack: ExitStack) -> Target:
    messages = [
        job.Hello(version="1", pid=3),
        scenes.PROGRESS,
        job.Notice(event="micro_batch_halved", text="x", level="warning"),
        job.Failure(kind="error", message="m", hint="h", traceback="t\nu"),
        scenes.REPORT,
    ]

    def check(line: bytes, random: Random) -> None:
        message = job.decode_message(line)
        again = job.encode(message)
        assert again.count(b"\n") == 1
        assert _same(job.decode_message(again), message)

    return Target("worker-message", [job.encode(each) for each in messages], mutations.mutated_json, check)


@target
def job_file(directory: Path, stack: ExitStack) -> Target:
    order = job.Job(
        cycle=3, base="embedded", models_directory="/m", staging="/s", strategy=STRATEGIES["consolidate"], parent="/p"
    )

    def check(text: bytes, random: Random) -> None:
        understood = job.decode_job(text)
        assert _same(job.decode_job(job.encode(understood)), understood)

    return Target("job-file", [job.encode(order)], mutations.mutated_json, check)


@target
def examples(directory: Path, stack: ExitStack) -> Target:
    given = [
        job.TrainingExample(id=record["id"], prompt=record["prompt"], response="ä\n\u2028", salience=0.5, role="train")
        for record in experiences(3)
    ]

    def check(text: bytes, random: Random) -> None:
        understood = job.decode_examples(text)
        assert _same(job.decode_examples(b"".join(map(job.encode, understood))), understood)

    return Target("examples", [b"".join(map(job.encode, given))], mutations.mutated_lines, check)


# --- the configuration ---

FULL = render(Config(), title="all keys").replace("\n# directory", "\ndirectory").encode()
SHORT = (
    b'[buffer]\npath = "/srv/b.json"\n[triggers]\nmin_experiences = 7\n[model]\nsystem_prompt = "a\\u00e4\\n\\u007f"\n'
)


def _comes_back(config: Config, path: Path) -> None:
    path.write_text(render(config, title="again"))
    assert load(path, environment={}).config == config


@target
def config_file(directory: Path, stack: ExitStack) -> Target:
    path, other = directory / "config.toml", directory / "other"
    other.mkdir()

    def check(text: bytes, random: Random) -> None:
        path.write_bytes(text)
        _comes_back(load(path, environment={}).config, other / "config.toml")

    return Target("config-file", [FULL, SHORT], mutations.mutated_toml, check)


@target
def drop_in(directory: Path, stack: ExitStack) -> Target:
    """A drop-in between a file and another drop-in, both right."""
    path = directory / "config.toml"
    path.write_bytes(SHORT)
    folder = directory / "conf.d"
    folder.mkdir()
    (folder / "20.toml").write_text("[triggers]\nmin_hours_between_sleep = 3.5\n")
    other = directory / "other"
    other.mkdir()

    def check(text: bytes, random: Random) -> None:
        (folder / "10.toml").write_bytes(text)
        layered = load(path, environment={})
        assert layered.config.triggers.min_hours_between_sleep == 3.5
        for key, origin in layered.origins.items():
            assert origin.startswith(str(directory))
            assert key == "triggers.min_hours_between_sleep" or not origin.endswith("20.toml")
        _comes_back(layered.config, other / "config.toml")

    return Target("drop-in", [FULL, SHORT], mutations.mutated_toml, check)


@target
def environment(directory: Path, stack: ExitStack) -> Target:
    """Variables, ``NAME=value`` and a zero byte each, as a process is given them."""
    every = "\0".join(f"{name}={value}" for name, value in _defaults().items()).encode()

    def mutate(random: Random, document: bytes) -> bytes:
        variables = dict(item.split("=", 1) for item in document.decode().split("\0"))
        chosen = {name: variables[name] for name in random.sample(sorted(variables), random.randrange(4))}
        for _ in range(random.randrange(1, 3)):
            name = random.choice([*variables, "STATE_DIRECTORY", "RUNTIME_DIRECTORY", "SLEEPD_CONFIG"])
            if random.random() < 0.1:
                name = name[: random.randrange(len(name))] + random.choice(["", "X", "_", "ä", "\n"])
            chosen[name] = mutations.toml_value(random)
        text = "\0".join(f"{name}={value}" for name, value in chosen.items()).encode()
        return mutations.mutated_bytes(random, text) if random.random() < 0.2 else text

    def check(text: bytes, random: Random) -> None:
        items = text.decode("utf-8", "surrogateescape").split("\0")
        variables = dict(item.split("=", 1) for item in items if "=" in item[1:])
        layered = load(None, environment=variables)
        for name, (section, key) in VARIABLES.items():
            assert (name in variables) == (layered.origins.get(f"{section}.{key}") == f"${name}")
        _comes_back(layered.config, directory / "config.toml")

    return Target("environment", [every], mutate, check)


def _defaults() -> dict[str, str]:
    return {name: str(getattr(getattr(Config(), section), key)) for name, (section, key) in VARIABLES.items()}


# --- what is in a state directory ---


def slept(directory: Path, runner: asyncio.Runner) -> OpenSleeper:
    """A sleeper with a promoted and a rejected cycle."""
    config = config_for(directory, min_hours_between_sleep=0.0, cooldown_seconds=0.0)

    async def sleep(behaviour: str, count: int) -> OpenSleeper:
        write_buffer(directory / "buffer.json", experiences(count))
        sleeper = open_sleeper(config, clock=SystemClock(), worker=fake_worker(behaviour))
        await sleeper.refresh()
        while sleeper.parts.intake.counts.unscreened:  # a slow machine takes longer than one look waits
            await sleeper.refresh()
        await sleeper.begin(Order(force=True))
        await sleeper.finished()
        return sleeper

    runner.run(sleep("promote", 12)).close()
    return runner.run(sleep("reject", 20))


OLDER = json.dumps(
    {
        "last_sleep_time": "2026-01-18T17:38:32.159790",
        "last_sleep_cycle": 2,
        "experiences_at_last_sleep": 6,
        "total_sleep_cycles": 2,
        "sleep_history": [
            {"cycle": 1, "timestamp": "2026-01-10T02:00:00", "num_experiences": 4, "final_loss": 3.25},
            {"cycle": 2, "timestamp": "2026-01-18T17:38:32.159790", "num_experiences": 6, "final_loss": None},
        ],
    },
    indent=2,
).encode()


@target
def older_state(directory: Path, stack: ExitStack) -> Target:
    """``scheduler_state.json``: read, written again, and taken over into a ledger."""
    ledger = Ledger(directory / "state.db")
    stack.callback(ledger.close)
    state = directory / "state"
    checkpoints = Checkpoints(state)

    def check(text: bytes, random: Random) -> None:
        (state / "scheduler_state.json").write_bytes(text)
        understood = read_scheduler_state(state)
        assert understood is not None
        write_scheduler_state(state, understood)
        assert _same(read_scheduler_state(state), understood)
        ledger.set_note(IMPORTED_STATE, None)
        ledger.set_note(IMPORTED_SEEN, None)
        history = PastCycles(state, ledger, checkpoints)
        history.take_first_poll(View(form="array", keys=array("Q", range(20)), groups=array("Q", range(20))))
        assert history.next_cycle() > max([0, *(entry.cycle for entry in understood.sleep_history)])
        assert (
            math.isfinite((SystemClock().now() - history.last_sleep_at).total_seconds()) if history.last_sleep_at else 1
        )
        assert history.known() is not None

    return Target("older-state", [OLDER], mutations.mutated_json, check)


TRAINED = json.dumps(
    {
        "sleep_cycle_count": 2,
        "total_experiences_trained": 10,
        "training_history": [
            {"sleep_cycle": 1, "timestamp": "2026-01-10T02:00:00", "num_experiences": 4, "final_loss": 3.25},
            {"sleep_cycle": 2, "timestamp": "2026-01-18T17:38:32.159790", "num_experiences": 6},
        ],
        "last_updated": "2026-01-18T17:38:32.159790",
    }
).encode()


@target
def training_state(directory: Path, stack: ExitStack) -> Target:
    def check(text: bytes, random: Random) -> None:
        (directory / "training_state.json").write_bytes(text)
        understood = read_training_state(directory)
        assert understood is not None
        assert understood.experiences_at_last_sleep is None

    return Target("training-state", [TRAINED], mutations.mutated_json, check)


@target
def adapter(directory: Path, stack: ExitStack) -> Target:
    path = write_older_cycle(directory, 7)

    def check(text: bytes, random: Random) -> None:
        (path / "adapter_model.safetensors").write_bytes(text)
        assert read_adapter_file(path).lora_shape.startswith("r4")

    return Target("adapter", [adapter_weights()], mutations.mutated_bytes, check)


@target
def manifest(directory: Path, stack: ExitStack) -> Target:
    with asyncio.Runner() as runner:
        slept(directory, runner).close()
    path = directory / "state" / "cycle_001"

    def check(text: bytes, random: Random) -> None:
        (path / "manifest.json").write_bytes(text)
        understood = read_manifest(path)
        assert _same(verify(path), understood)
        (path / "manifest.json").write_bytes(msgspec.json.encode(understood))
        assert _same(read_manifest(path), understood)

    return Target("manifest", [(path / "manifest.json").read_bytes()], mutations.mutated_json, check)


def _documents_of_a_cycle(name: str) -> Maker:
    def make(directory: Path, stack: ExitStack) -> Target:
        """The ledger rebuilt from a cycle's documents, one of which may be anything."""
        runner = stack.enter_context(asyncio.Runner())
        slept(directory, runner).close()
        state = directory / "state"
        shutil.rmtree(state / "retired" / "cycle_002")
        older = state / "scheduler_state.json"
        checkpoints = Checkpoints(state)
        path = state / "cycle_001" / name
        document = path.read_bytes()

        def check(text: bytes, random: Random) -> None:
            path.write_bytes(text)
            for left in [*state.glob("state.db*"), *state.glob(older.name)]:
                left.unlink()
            ledger, _troubles = open_ledger(state, checkpoints, SystemClock())
            try:
                found = ledger.summaries()
                if not found:
                    refuse("the cycle was not restored")
                assert found[0].cycle == 1
                assert found[0].trained == sum(each.role == "train" for each in ledger.assignments(1))
                assert ledger.report(1) is not None
                assert ledger.last_judged() == found[0]
                assert ledger.seen(1) is not None
                history = PastCycles(state, ledger, checkpoints)
                history.write()
                assert history.last_sleep_at is not None
                assert math.isfinite((SystemClock().now() - history.last_sleep_at).total_seconds())
                assert history.known().splits
                assert history.next_cycle() == 2
            finally:
                ledger.close()

        return Target(name.removesuffix(".json"), [document], mutations.mutated_json, check)

    return make


TARGETS["lineage"] = _documents_of_a_cycle("lineage.json")
TARGETS["evaluation"] = _documents_of_a_cycle("evaluation.json")
