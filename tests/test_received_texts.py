"""The policy ``merge``: experiences of another machine become experiences here, marked, screened, and split here."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import msgspec
import pytest

import sleepd.bundles.exporting as exporting
from sleepd.buffer.experience import Experience
from sleepd.bundles.bundle_sync import BundleSync
from sleepd.bundles.exporting import gather, write_bundle
from sleepd.bundles.foreign import import_bundle
from sleepd.bundles.received_texts import marked
from sleepd.config.bundle_config import BundleConfig, SyncConfig
from sleepd.cycles.running.planning import Order
from sleepd.protocol.chat_example import Message, ToolCall
from sleepd.sleepctl.offline_cycle import cycle_directory
from sleepd.store.reservoir import encode_reservoir
from sleepd.store.sqlite.ledger_rows import SplitAssignment
from tests.agents import changed, experiences
from tests.bundle_makers import allow, make_cycle, make_key
from tests.stages import OpenSleeper, Stage

SECRET = "AKIAQ4PSZ7XN2LRT6WBE"
OWN = 30
"""Experiences of this machine."""


def learned(records: list[dict[str, object]], ids: str) -> list[Experience]:
    """These records as another machine has learned them, under ids of its own."""
    return [
        Experience(id=f"{ids}{one['id']}", prompt=str(one["prompt"]), response=str(one["response"]), salience=0.8)
        for one in records
    ]


class Merging:
    """A machine that merges what thor sends."""

    def __init__(self, directory: Path) -> None:
        self.stage = Stage(directory / "here")
        self.received = directory / "received"
        self.received.mkdir()
        self.stage.config = changed(self.stage.config, "buffer", path=[str(self.stage.buffer), str(self.received)])
        self.stage.write(OWN)
        self.directory, self.key, self.notes = directory, directory / "key", list[str]()
        self.signers = allow(directory / "signers", thor=make_key(self.key))
        self.sync = BundleSync(
            self.stage.state,
            SyncConfig(directory=str(directory), policy="merge", merge_directory=str(self.received)),
            BundleConfig(allowed_signers=self.signers),
            find=partial(cycle_directory, self.stage.state),
            note=self.notes.append,
        )

    def come(self, texts: list[Experience] | bytes, cycle: int = 7, *, with_texts: bool = True) -> list[Path]:
        """Thor's bundle with these texts comes and is merged; the files that were written."""
        there = self.directory / f"there{cycle}"
        content = texts if isinstance(texts, bytes) else encode_reservoir(texts)
        (make_cycle(there, cycle) / "reservoir.jsonl").write_bytes(content)
        outgoing = gather(cycle, partial(cycle_directory, there), with_texts=with_texts)
        write_bundle(outgoing, there / "bundle", key=str(self.key))
        import_bundle(there / "bundle", self.stage.state, self.signers, at=self.stage.clock.now())
        return self.sync.merge()

    def splits(self, cycle: int = 1) -> dict[str, SplitAssignment]:
        """By id, what the experiences of a cycle were in it."""

        async def scene(sleeper: OpenSleeper) -> dict[str, SplitAssignment]:
            return {each.id: each for each in sleeper.parts.ledger.assignments(cycle)}

        found: dict[str, SplitAssignment] = self.stage.play(scene)
        return found


@pytest.fixture
def merging(tmp_path: Path) -> Merging:
    return Merging(tmp_path)


def test_received_ones_are_trained_and_marked(merging: Merging) -> None:
    """Texts of thor are learned here under ids that begin with from:thor:, each bundle once."""
    (file,) = merging.come(learned(experiences(12, start=100), ""))
    assert file.name.startswith("from-thor-")
    assert merging.sync.merge() == []
    merging.stage.sleep(Order(force=True))
    roles = {id_: each.role for id_, each in merging.splits().items() if id_.startswith("from:thor:")}
    assert len(roles) == 12
    assert set(roles.values()) == {"train", "holdout"}
    file.unlink()
    assert merging.sync.merge() == []


def test_copies_stay_on_the_side_of_the_own_ones(merging: Merging) -> None:
    """Of an experience that both machines have, the copy is never trained where the own one is held out, nor reverse.

    The own ones are split by a first cycle; the copies come before the second.
    """
    merging.stage.sleep(Order(force=True))
    first = {each.group for each in merging.splits().values() if each.role == "holdout"}
    assert first
    merging.come(learned(experiences(OWN), "copy-"))
    merging.stage.write(OWN + 12)
    merging.stage.clock.advance(7 * 3600)
    merging.stage.sleep(Order(force=True))
    second = merging.splits(2).values()
    held_out = {each.group for each in second if each.role == "holdout"}
    assert held_out.isdisjoint(each.group for each in second if each.role != "holdout")
    copies = [each.role for each in second if each.id.startswith("from:thor:") and each.group in first]
    assert "train" not in copies


def test_secret_that_came_is_kept_out(merging: Merging, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sender that does not search for secrets sends one: the screening here keeps it from every cycle."""
    monkeypatch.setattr(exporting, "without_secrets", lambda content: (content, 0))
    secret = Experience(id="s", prompt="Which key?", response=f"The key is {SECRET}.", salience=0.9)
    merging.come([*learned(experiences(12, start=100), ""), secret])
    merging.stage.sleep(Order(force=True))
    found = merging.splits()
    assert marked("thor", "s") not in found
    assert any(id_.startswith("from:thor:") for id_ in found)


def test_adapter_of_the_sender_is_none_of_here(merging: Merging) -> None:
    """Which of its cycles the sender's agent spoke under says nothing here; conversation, calls and tools stay."""
    call = ToolCall(name="look", arguments='{"at":"it"}')
    tools = '[{"type":"function","function":{"name":"look"}}]'
    context = (Message(role="system", text="Be brief."), Message(role="user", text="Look!"))
    one = Experience(
        id="t", prompt="Look!", response="", calls=(call,), context=context, tools=tools, salience=0.5,
        said_under=3, said_at=1767000000, conversation="00000000000000ab",
    )  # fmt: skip
    merging.come([one])

    async def scene(sleeper: OpenSleeper) -> Experience:
        await sleeper.refresh()
        view = sleeper.parts.intake.view
        key = next(key for key, conversation in zip(view.keys, view.conversations, strict=True) if conversation == 0xAB)
        return (await sleeper.parts.intake.buffer.extract([key]))[0]

    found: Experience = merging.stage.play(scene)
    assert found.id == "from:thor:t"
    assert (found.said_under, found.said_at, found.salience) == (None, None, 0.5)
    assert (found.context, found.calls[0].name, found.conversation) == (context, "look", one.conversation)


def test_bundle_without_texts_merges_nothing(merging: Merging) -> None:
    """A bundle as sync sends it by default has no texts, and one with damaged texts is noted once."""
    assert merging.come(learned(experiences(3), ""), with_texts=False) == []
    assert merging.come(b'{"id": 1}\n', 8) == []
    assert [note.split(":")[0] for note in merging.notes] == ["not merged"]
    assert merging.sync.merge() == []
    assert list(merging.received.iterdir()) == []


def test_long_ids_stay_apart() -> None:
    """An id that would become too long is cut, and told apart by a hash."""
    one, other = (marked("thor", "x" * 256 + end) for end in "ab")
    assert one != other
    assert max(len(one), len(other)) <= 256


def test_texts_go_up_only_if_asked(tmp_path: Path) -> None:
    """What sync sends holds the texts of its lineage where ``sync.with_texts`` says so, and else none."""
    state = tmp_path / "thor"
    (make_cycle(state) / "reservoir.jsonl").write_bytes(encode_reservoir(learned(experiences(3), "")))
    key = tmp_path / "key"
    make_key(key)
    for with_texts in (False, True):
        config = SyncConfig(directory=str(tmp_path), with_texts=with_texts)
        sync = BundleSync(state, config, BundleConfig(key=str(key)), find=partial(cycle_directory, state), note=print)
        outgoing = sync.outgoing(7)
        assert outgoing is not None
        assert outgoing.header.has_texts == with_texts


def test_memory_of_an_older_version_is_read() -> None:
    """A memory that knows nothing of merging is taken as one that has merged nothing."""
    from sleepd.bundles.bundle_sync import SyncMemory

    assert msgspec.json.decode(b'{"sent":{}}', type=SyncMemory).merged == ()
