"""A worker without torch: it speaks the real wire, and succeeds, hangs, crashes or lies as ``--behaviour`` says.

``promote`` a report that is promoted · ``reject`` one whose holdout loss rose · ``loop`` one with a looping reply ·
``hang`` says hello and then nothing · ``hang_loading`` loads first · ``stubborn`` begins, says no more, and ignores
SIGTERM · ``crash`` exits 3 · ``kill`` kills itself · ``fail`` gives up in words · ``base_changed``, ``line_lost``,
``not_resumable``, ``parent_unusable`` and ``shape_changed`` give up for that reason · ``garbage`` sends no message ·
``flood`` prints 5 MB without a newline, then promotes · ``wait`` trains until told to stop, or until the file ``go``
appears beside its job · ``die_resumably`` leaves a resume point and kills itself · ``other_version`` says hello as
another version · ``open`` a report that, on three held out, decides nothing · ``learn`` knows what it was told, and is
as before on the rest · ``worse`` finds the champion worse on later experiences, where there are enough, and else
promotes · ``liar`` says that the champion is worse, with figures that do not say it · ``better`` a report that is
promoted, with a smaller loss than ``promote``'s. Of two behaviours with a comma between them the first is that of a
pair's first cycle, the second that of its second one.

With ``--processes N`` it starts N - 1 more, which do nothing and end only when they are killed.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from sleepd.protocol.checkpoint.base_identity import in_quantization
from sleepd.protocol.evidence import (
    CappedLosses,
    Collapse,
    Drift,
    Evidence,
    LaterLoss,
    LossPair,
    Probation,
    Relevance,
    Speech,
    TrainedLoss,
)
from sleepd.protocol.job import (
    RESUME_POINT,
    Failure,
    Hello,
    Job,
    Progress,
    Reply,
    Report,
    TrainingCheck,
    TrainingExample,
    WorkerMessage,
    decode_examples,
    decode_job,
    encode,
)
from sleepd.version import VERSION

PAUSE_SECONDS = 0.02
FAILURES = {name: name for name in ("base_changed", "line_lost", "not_resumable", "parent_unusable", "shape_changed")}
FAILURES["fail"] = "error"
"""What it gives up for, by behaviour."""
NEEDS_PROCESS = frozenset(
    {
        *("crash", "kill", "garbage", "hang", "hang_loading", "stubborn"),
        *("flood", "die_resumably", "other_version"),
    }
)
"""Behaviours of the process itself; the others are told by the messages alone."""


class Pause(NamedTuple):
    """Nothing is sent for ``PAUSE_SECONDS``."""


def report(
    examples: list[TrainingExample],
    rate: float,
    before: float,
    after: float,
    *,
    is_loop: bool = False,
    spread: float = 0.0,
    known: float | None = None,
    job: Job | None = None,
) -> Report:
    trained = [example for example in examples if example.role == "train"]
    held = [example for example in examples if example.role == "holdout"]
    checks = [
        TrainingCheck(name=name, passed=True, figure=1.0, limit=0.0, detail="fine")
        for name in ("supervised_tokens", "adapter_changed", "losses_finite", "reload_matches")
    ]
    return Report(
        base_fingerprint=in_quantization("base-1", job.quantization if job else "none"),
        device="cpu",
        dtype="float32",
        trained=len(trained),
        replayed=sum(example.role == "replay" for example in examples),
        held_out=len(held),
        truncated=0,
        tokens=100,
        supervised_tokens=50,
        epochs=3,
        steps=6,
        learning_rate=rate,
        avg_salience=0.7,
        epoch_losses=[3.0, 2.5, 2.0],
        train_before=3.0,
        train_after=2.0,
        holdout_base=3.2,
        holdout_before=before,
        holdout_after=after,
        holdout=[pair(e.id, 5.0, before, after + spread * (-1) ** number) for number, e in enumerate(held)],
        checks=checks,
        replies=[
            Reply(id=e.id, prompt=e.prompt, text="so it is", is_loop=is_loop, repeated_share=0.9) for e in held[:8]
        ],
        notices=[],
        seconds={"training": 1.0},
        tokens_per_second=100.0,
        peak_memory_bytes=1,
        lora_shape="r16:q_proj",
        evidence=evidence(
            None if job is None else probation(job, champion=2.55 if job.later_margin else 2.0),
            [TrainedLoss(id=e.id, tokens=10, parent=2.1, candidate=known) for e in trained] if known else [],
            [pair(e.id, 2.1, 0.3, 0.3) for e in examples if e.role == "replay"][:24],
        ),
    )


def pair(id_: str, base: float, parent: float, candidate: float) -> LossPair:
    """The losses of one experience, whole and capped alike."""
    losses = {"base": base, "parent": parent, "candidate": candidate}
    return LossPair(id=id_, tokens=10, **losses, capped=CappedLosses(**losses))


def probation(job: Job, *, champion: float) -> Probation | None:
    """The champion's loss on each later experience, about as given, where its predecessor's is 2.5."""
    if job.predecessor is None or job.parent_cycle is None:
        return None
    losses = [
        LaterLoss(id=id_, tokens=10 + number, predecessor=2.5, champion=champion + number % 3 / 100)
        for number, id_ in enumerate(job.later)
    ]
    return Probation(
        champion=job.parent_cycle,
        predecessor=job.predecessor_cycle,
        losses=losses,
        margin=job.later_margin,
        is_capped=job.later_is_capped,
    )


def evidence(on_probation: Probation | None, newly_trained: list[TrainedLoss], repeated: list[LossPair]) -> Evidence:
    """Of a candidate that has damaged nothing."""
    speech = Speech(
        replies=8,
        mean_words=20.0,
        distinct_2=0.9,
        longest_repeat_words=2,
        similar_pairs_share=0.0,
        loops=0,
        question_floods=0,
    )
    return Evidence(
        noise_floor=1e-6,
        drift=Drift(prompts=8, tokens=200, parent=0.0, candidate=0.01),
        collapse=[
            Collapse(mode=mode, base=speech, parent=speech, candidate=speech) for mode in ("greedy", "sampled", "talk")
        ],
        relevance=Relevance(prompts=3, replies=3, losses=[]),
        probation=on_probation,
        newly_trained=newly_trained,
        repeated=repeated,
    )


def behaviour_of(behaviours: str, job: Job) -> str:
    """How the worker of that cycle behaves."""
    first, _, second = behaviours.partition(",")
    return second if second and job.rival is not None and job.rival < job.cycle else first


def read_job(staging: Path) -> tuple[Job, list[TrainingExample]]:
    """What the daemon staged for a worker."""
    work = staging / "work"
    return decode_job((work / "job.json").read_bytes()), decode_examples((work / "experiences.jsonl").read_bytes())


def messages(
    behaviour: str, job: Job, examples: list[TrainingExample], staging: Path
) -> Iterator[WorkerMessage | Pause]:
    """What it sends, to be sent one after the other; it leaves an adapter before the report."""
    behaviour = behaviour_of(behaviour, job)
    yield Hello(version="0.0.0" if behaviour == "other_version" else VERSION, pid=os.getpid())
    if behaviour in FAILURES:
        yield Failure(kind=FAILURES[behaviour], message="it cannot be done", hint="do something else")
        return
    measured = probation(job, champion=3.0 if behaviour == "worse" else 2.0)
    if behaviour == "liar" or (behaviour == "worse" and measured is not None and len(measured.losses) >= 4):
        yield Failure(kind="champion_worse", message="the champion is worse", probation=measured)
        return
    if behaviour == "flood":
        sys.stdout.write("x" * 5_000_000)
        sys.stdout.flush()
    training = Progress(phase="training", step=1, steps=2, loss=2.5, device="cpu")
    yield training
    if behaviour == "die_resumably":
        (staging / RESUME_POINT).write_bytes(b"half of it")
        os.kill(os.getpid(), signal.SIGKILL)
    while behaviour == "wait" and not (staging / "work" / "go").exists():
        yield Pause()
        yield training
    yield Progress(phase="evaluating", device="cpu")
    (staging / "adapter_model.safetensors").write_bytes(f"weights of cycle {job.cycle}".encode())
    (staging / "adapter_config.json").write_text("{}")
    after = {"reject": 3.5, "learn": 3.0, "better": 2.0}.get(behaviour, 2.5)
    known = 0.3 if behaviour == "learn" else None
    spread = 0.19 if behaviour == "open" else 0.0
    rate = job.strategy.learning_rate
    yield report(examples, rate, 3.0, after, is_loop=behaviour == "loop", spread=spread, known=known, job=job)


def break_off(behaviour: str, wire: socket.socket) -> None:
    """After its first message: end or hang, where it behaves so."""
    if behaviour == "crash":
        print("something broke", flush=True)
        sys.exit(3)
    if behaviour == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if behaviour == "garbage":
        wire.sendall(b"{}\n")
    if behaviour == "stubborn":
        wire.sendall(encode(Progress(phase="training", step=1, steps=2, device="cpu")))
    if behaviour == "hang_loading":
        wire.sendall(encode(Progress(phase="loading", doing="read the base's chat template")))
    while behaviour in ("hang", "hang_loading", "stubborn", "garbage"):
        time.sleep(60)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--behaviour", required=True)
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--silence", type=float)
    parser.add_argument("staging", type=Path)
    options = parser.parse_args()
    ranks = [subprocess.Popen(("sleep", "3600")) for _ in range(options.processes - 1)]
    (options.staging / "work" / "ranks").write_text(" ".join(str(rank.pid) for rank in ranks))
    wire = socket.socket(fileno=options.fd)
    job, examples = read_job(options.staging)
    behaviour = behaviour_of(options.behaviour, job)
    if behaviour == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for message in messages(behaviour, job, examples, options.staging):
        if isinstance(message, Pause):
            time.sleep(PAUSE_SECONDS)
            continue
        wire.sendall(encode(message))
        if isinstance(message, Hello):
            break_off(behaviour, wire)


if __name__ == "__main__":
    main()
