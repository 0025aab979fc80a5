"""Another machine's adapter on trial: what is refused, what it is measured on, what its verdict does, what stays."""

from __future__ import annotations

import json
import os
import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from sleepd.buffer.experience import hash_text, id_hash
from sleepd.bundles.exporting import gather
from sleepd.bundles.foreign import ForeignBundle, foreign_bundles, import_bundle
from sleepd.cycles.running.planning import Order
from sleepd.daemon.control_socket import Peer
from sleepd.daemon.publisher import Life
from sleepd.daemon.requests import Requests
from sleepd.daemon.status_view import cycles, detail, overview
from sleepd.errors import BundleInvalid, Busy, NotFound, NothingToDo, ProtocolError
from sleepd.policy.judging.promotion import Gates
from sleepd.protocol.control import Judge, decode_request, encode
from sleepd.protocol.job import decode_examples, decode_job
from sleepd.protocol.status import RunResult
from sleepd.sleepctl.offline_cycle import cycle_directory
from sleepd.sleepctl.pages.cycle_table import history_page
from sleepd.sleepctl.pages.show_page import show_page
from sleepd.sleepctl.pages.status_page import status_page
from sleepd.sleepctl.pages.terminal import render
from sleepd.sleepctl.pages.wording import gain
from sleepd.store.sqlite.ledger_rows import CycleRecord
from tests.agents import changed
from tests.bundle_makers import allow, make_bundle, make_cycle, make_key
from tests.stages import OpenSleeper, Stage, refresh

WHENCE = re.compile(r"from (\w+), cycle (\d+) there; gain there (\S+) \((.*?)\), here (\S+) \((.*?)\)")
"""Where an adapter came from, and what it gained there and here."""
FAKE_BASE = "base-1"
"""What the fake worker calls its base."""


class Trial:
    """A machine with a champion, and thor, who sends adapters to it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.stage = Stage(directory / "here")
        self.stage.write(30)
        self.key = directory / "key"
        self.signers = allow(directory / "signers", thor=make_key(self.key))
        self.sent = 0

    def receive(self, **changes: Any) -> ForeignBundle:
        """Thor's next cycle, imported."""
        self.sent += 1
        there = self.directory / f"there{self.sent}"
        make_cycle(there, 40 + self.sent, **({"base": FAKE_BASE} | changes))
        make_bundle(there, there / "bundle", self.key, 40 + self.sent)
        now = self.stage.clock.now()
        self.stage.state.mkdir(exist_ok=True)
        return import_bundle(there / "bundle", self.stage.state, self.signers, at=now)

    def judge(self, bundle: ForeignBundle, *, behaviour: str = "promote") -> CycleRecord:
        """A cycle on it, to its end."""

        async def scene(sleeper: OpenSleeper) -> CycleRecord:
            await sleeper.begin_judging(bundle.id[:12])
            summary = await sleeper.finished()
            assert summary is not None
            return summary

        found: CycleRecord = self.stage.play(scene, behaviour=behaviour)
        return found


@pytest.fixture
def trial(tmp_path: Path) -> Trial:
    return Trial(tmp_path)


def test_better_one_goes_in_use(trial: Trial) -> None:
    """A foreign adapter that passes the gates here is promoted, and its checkpoint says where it came from."""
    bundle = trial.receive()
    summary = trial.judge(bundle)
    assert (summary.state, summary.strategy, summary.trained) == ("promoted", "from:thor", 0)
    assert summary.held_out > 0
    origin = trial.stage.read("current/origin.json")
    assert (origin["signer"], origin["cycle"], origin["bundle"]) == ("thor", 41, bundle.id)


def test_worse_one_is_rejected(trial: Trial) -> None:
    """The sender's verdict was promoted; here the loss rose, and the champion stays."""
    trial.stage.make_champions(30)
    bundle = trial.receive()
    assert bundle.evidence is not None
    assert bundle.evidence.outcome == "promoted"
    summary = trial.judge(bundle, behaviour="reject")
    assert (summary.state, summary.parent) == ("rejected", 1)
    assert (trial.stage.state / "current").readlink().name == "cycle_001"
    assert (trial.stage.state / "retired/cycle_002/origin.json").exists()


def test_it_is_shown_as_foreign(trial: Trial) -> None:
    """History calls it by its machine, and its page has what was measured there beside what was measured here."""
    summary = trial.judge(trial.receive())
    here = gain(summary.holdout_before, summary.holdout_after), f"{summary.held_out} experiences"

    async def scene(sleeper: OpenSleeper) -> None:
        (newest,) = cycles(sleeper.reader, limit=5)
        assert newest.tag == "from:thor"
        status, now = overview(sleeper.reader, next_check_at=None, config_path=""), trial.stage.clock.now()
        for page in (status_page(status, now=now, is_live=True), history_page([newest], now, is_live=True)):
            told = WHENCE.findall(render(page, width=200, is_coloured=False))
            assert set(told) == {("thor", "41", "+0.41", "23 experiences", *here)}
        found = detail(sleeper.reader, newest.cycle)
        assert found.origin is not None
        assert (found.origin.signer, found.origin.held_out) == ("thor", 23)
        assert found.report is not None
        assert found.report.held_out != found.origin.held_out
        shown = render(show_page(found, trial.stage.clock.now()), width=120, is_coloured=False)
        assert "thor, bundle " in shown
        assert "learning rate" not in shown
        assert "decided nothing" in " ".join(shown.split())

    trial.stage.play(scene)


def test_one_bundle_is_judged_once(trial: Trial) -> None:
    """A judged bundle keeps its record and not its weights; sent again, it is known and not judged again."""
    bundle = trial.receive()
    trial.judge(bundle, behaviour="reject")
    (kept,) = foreign_bundles(trial.stage.state)
    assert kept.judged is not None
    assert (kept.judged.cycle, kept.judged.outcome) == (1, "rejected")
    assert not (trial.stage.state / "foreign" / bundle.id / "adapter_model.safetensors").exists()
    with pytest.raises(NothingToDo, match="judged already"):
        trial.judge(bundle)


def test_it_is_no_sleep(trial: Trial) -> None:
    """A trial moves neither what is new nor the last sleep, and a failed one starts no cooldown."""
    trial.stage.make_champions(30)
    trial.stage.write(60)
    before = trial.stage.play(refresh)
    trial.judge(trial.receive(), behaviour="fail")
    trial.judge(trial.receive(), behaviour="reject")
    trial.judge(trial.receive())
    after = trial.stage.play(refresh)
    assert (before.should_sleep, after.reason) == (True, before.reason)
    assert json.loads((trial.stage.state / "scheduler_state.json").read_text())["total_sleep_cycles"] == 1
    assert trial.stage.sleep().cycle == 5


def test_what_it_has_seen_is_not_held_out(trial: Trial) -> None:
    """An experience that the adapter was trained on there judges nothing here, and counts as trained."""
    seen = tuple(f"{number:016x}" for number in range(15))
    bundle = trial.receive(ids=seen)

    async def scene(sleeper: OpenSleeper) -> None:
        cycle = await sleeper.begin_judging(bundle.id)
        work = trial.stage.state / f"staging/cycle_{cycle:03d}/work"
        job = decode_job((work / "job.json").read_bytes())
        examples = decode_examples((work / "experiences.jsonl").read_bytes())
        assert job.foreign.endswith(bundle.id)
        assert (job.expected_base, job.date) == (FAKE_BASE, trial.stage.clock.now().astimezone().date().isoformat())
        assert (job.strategy.name, job.strategy.kl_weight, job.strategy.drift_budget) == ("from:thor", 0.0, None)
        held_out, trained = ({one.id for one in examples if one.role == role} for role in ("holdout", "train"))
        assert held_out
        assert held_out.isdisjoint(seen)
        assert trained
        assert trained <= set(seen)
        await sleeper.finished()

    trial.stage.play(scene)


def test_nothing_unseen_is_nothing_to_do(trial: Trial) -> None:
    """Where everything here was trained there, nothing can measure it, and no cycle begins."""
    bundle = trial.receive(ids=tuple(f"{number:016x}" for number in range(30)))
    with pytest.raises(NothingToDo, match="has not seen"):
        trial.judge(bundle)
    assert not list((trial.stage.state / "staging").iterdir())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"base": "base-2"}, "another base"),
        ({"base": "base-1:nf4"}, "measured with model.quantization = nf4, cycle 1 with none"),
        ({"lora_shape": "r8:all-linear"}, "found r8:all-linear"),
        ({"rank": 8}, "found r8 with alpha 16"),
    ],
)
def test_misfits_are_refused(trial: Trial, changes: dict[str, Any], said: str) -> None:
    """Another base, another declared shape, and files of another rank than declared begin no cycle."""
    trial.stage.make_champions(30)
    with pytest.raises(BundleInvalid, match=said):
        trial.judge(trial.receive(**changes))


def test_changed_files_are_refused(trial: Trial) -> None:
    """Weights that were changed after the import are not those that were signed."""
    bundle = trial.receive()
    weights = trial.stage.state / "foreign" / bundle.id / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    with pytest.raises(BundleInvalid, match="not what was signed"):
        trial.judge(bundle)


def test_daemon_is_asked_for_it(trial: Trial) -> None:
    """The request starts the cycle and answers with its number and the command that cancels it; an odd id is none."""
    bundle = trial.receive()

    async def reload() -> list[str]:
        return []

    async def scene(sleeper: OpenSleeper) -> RunResult:
        requests = Requests(sleeper, sleeper.reader, Life(config_path=Path()), reload=reload)
        done = await requests.respond(Judge(bundle=bundle.id[:12]), Peer(pid=1, uid=os.getuid(), gid=os.getgid()))
        await sleeper.finished()
        assert isinstance(done, RunResult)
        return done

    done = trial.stage.play(scene)
    assert (done.is_started, done.cycle, done.undo) == (True, 1, "sleepctl cancel")
    with pytest.raises(ProtocolError):
        decode_request(encode(Judge(bundle="../../etc")))


def test_edge_box_judges_and_never_trains(trial: Trial) -> None:
    """With worker.device none a foreign adapter is judged on the CPU and goes in use; no training cycle begins."""
    trial.stage.config = changed(trial.stage.config, "worker", device="none")
    bundle = trial.receive()

    async def scene(sleeper: OpenSleeper) -> str:
        with pytest.raises(NothingToDo, match="trains nothing"):
            await sleeper.begin(Order(force=True))
        cycle = await sleeper.begin_judging(bundle.id)
        job = decode_job((trial.stage.state / f"staging/cycle_{cycle:03d}/work/job.json").read_bytes())
        await sleeper.finished()
        status = overview(sleeper.reader, next_check_at=None, config_path="")
        shown = render(status_page(status, now=trial.stage.clock.now(), is_live=True), width=200, is_coloured=False)
        assert "This machine trains nothing" in shown
        return job.device

    assert trial.stage.play(scene) == "cpu"
    assert (trial.stage.state / "current").readlink().name == "cycle_001"


def test_interrupted_trial_goes_on_there(trial: Trial) -> None:
    """A trial that a shutdown cut short is resumed on a machine that trains nothing; its own training is given up."""
    bundle = trial.receive()

    async def cut(sleeper: OpenSleeper, *, trains: bool = False) -> None:
        await sleeper.refresh()
        await (sleeper.begin(Order(force=True)) if trains else sleeper.begin_judging(bundle.id))
        await sleeper.end_cycle()

    trial.stage.play(partial(cut, trains=True), behaviour="wait")
    trial.stage.config = changed(trial.stage.config, "worker", device="none")
    decision = trial.stage.play(refresh)
    assert (decision.should_sleep, decision.vetoes[0].name) == (False, "trains_nothing")
    trial.stage.play(cut, behaviour="wait")
    assert trial.stage.sleep().strategy == "from:thor"


def test_pause_holds_it_back(trial: Trial) -> None:
    """A paused daemon judges nothing, and an unknown id is not found."""
    bundle = trial.receive()

    async def scene(sleeper: OpenSleeper) -> None:
        with pytest.raises(NotFound):
            await sleeper.begin_judging("ffffffff")
        sleeper.pause(is_paused=True)
        with pytest.raises(NothingToDo, match="Paused"):
            await sleeper.begin_judging(bundle.id)

    trial.stage.play(scene)


def test_interrupted_cycle_goes_first(trial: Trial) -> None:
    """A trial that a shutdown cut short is resumed before another begins."""
    bundle = trial.receive()

    async def cut(sleeper: OpenSleeper) -> None:
        await sleeper.begin_judging(bundle.id)
        await sleeper.end_cycle()
        with pytest.raises(Busy, match="resumed first"):
            await sleeper.begin_judging(bundle.id)

    trial.stage.play(cut, behaviour="wait")
    assert trial.stage.sleep().strategy == "from:thor"
    assert foreign_bundles(trial.stage.state)[0].judged is not None


def test_own_champion_can_be_sent(trial: Trial) -> None:
    """What the service itself has committed can be sent: its bundle names all that its two cycles trained."""
    trial.stage.make_champions(30, 60)
    outgoing = gather(2, partial(cycle_directory, trial.stage.state), with_texts=False)
    hashes = json.loads(outgoing.contents["lineage_hashes.json"])
    lineages = [trial.stage.read(f"cycle_{cycle:03d}/lineage.json") for cycle in (1, 2)]
    trained = {each["id"] for lineage in lineages for each in lineage["trained"]}
    assert hashes["cycles"] == [2, 1]
    assert len(trained) > 30
    assert {hash_text(id_hash(one)) for one in trained} <= set(hashes["ids"])


def test_forwarded_one_names_what_it_saw(trial: Trial) -> None:
    """A foreign adapter that is sent on names what it was trained on there, not only what of it is here."""
    trial.judge(trial.receive(ids=("only there",)))
    find = partial(cycle_directory, trial.stage.state)
    hashes = json.loads(gather(1, find, with_texts=False).contents["lineage_hashes.json"])
    assert hash_text(id_hash("only there")) in hashes["ids"]


def test_next_own_cycle_trains_everything(trial: Trial) -> None:
    """After a foreign champion the next cycle of this machine still trains all that its own lineage has learned."""
    trial.stage.make_champions(30)
    trial.judge(trial.receive())
    trial.stage.write(60)
    own = trial.stage.sleep()
    assert own.parent == 2
    assert own.replayed > 0


def test_supervision_is_asked_of_own_ones(trial: Trial) -> None:
    """Whether anything was supervised is asked of what was trained here; a foreign one has no such figure."""
    summary = trial.judge(trial.receive())
    verdict = trial.stage.read("current/evaluation.json")["verdict"]
    assert summary.state == "promoted"
    assert "supervised_tokens" not in [figure["name"] for figure in verdict["figures"]]
    assert Gates().is_foreign is False
