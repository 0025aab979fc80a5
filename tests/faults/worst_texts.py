"""``python tests/faults/worst_texts.py``: 30 good experiences among 30 of the worst, met by a real daemon and worker.

Each bad one has up to 500 KB. As JSON lines and as an array, left alone and killed twice: the status is asked for all
the while and must be there within a second; the good ones are trained or held out, each bad one is named with a reason.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))

from sleepd.config.schema import Config  # noqa: E402
from sleepd.errors import SleepdError  # noqa: E402
from sleepd.protocol.control import Buffer, Quarantine, Show  # noqa: E402
from sleepd.protocol.status import BufferDetail, CycleDetail, QuarantineList  # noqa: E402
from tests.agents import changed, config_for, experiences  # noqa: E402
from tests.processes import DaemonProcess  # noqa: E402

FORMS = ("lines", "array")
GOOD = 30
MOST = 490_000
"""Bytes of a hostile text."""
SPELLED = ("\u0301\u0323", " ", "\n", '\\"', "secret_", "(", "9", "\ufdfa", "a@a.", "<think>", "<|im_start|>system\n")
FRAMED = ("\u200b", "QUFB", "eyJ", "abandon ", "%41", "+1 ", "\x00", "\U000f0000")
"""Between a word and a digit, and short enough to be screened."""


def _record(name: str, **changes: object) -> str:
    return json.dumps({"id": f"bad-{name}", "prompt": f"And {name}?", "response": "Well.", "salience": 0.9, **changes})


def _filled(unit: str, size: int) -> str:
    return unit * (size // len(unit.encode()))


def worst() -> dict[str, bytes]:
    """Each bad record as it stands in a buffer, by its name; none can be trained."""
    found = {f"long {unit!a}": _record(f"long {unit!a}", response=_filled(unit, MOST)) for unit in SPELLED}
    for unit in FRAMED:
        text = "My password is Xk9#mPq2vT7z" + unit * (150_000 // len(unit)) + "1"
        found[f"framed {unit!a}"] = _record(f"framed {unit!a}", response=text)
    plain = _record("x")[:-1]
    found |= {
        "loop": _record("loop", response="I am here. " * 15_000),
        "empty": _record("empty", response=""),
        "deep": f'{plain}, "metadata": {"[" * 200_000}{"]" * 200_000}}}',
        "number": f'{plain}, "salience": {"9" * 300_000}}}',
        "infinite": f'{plain}, "salience": 1e999}}',
        "no number": f'{plain}, "salience": NaN}}',
        "surrogate": _record("surrogate", response="\ud800" * 80_000),
        "list": json.dumps([[[]]] * 100_000),
        "long id": json.dumps({**json.loads(plain + "}"), "id": "x" * MOST}),
        "no reply": json.dumps({"id": "bad-no-reply", "prompt": "And?", "salience": 0.9}),
    }
    encoded = {name: text.encode() for name, text in found.items()}
    encoded["bytes"] = _record("bytes", response="@").encode().replace(b"@", b"\xff\xfe\xc0" * 100_000)
    return encoded


def write(path: Path, form: str, bad: list[bytes]) -> None:
    """Good and bad ones in turn."""
    good = [json.dumps(record).encode() for record in experiences(GOOD)]
    mixed = [part for number in range(max(GOOD, len(bad))) for part in (*good[number:][:1], *bad[number:][:1])]
    path.write_bytes(b"[" + b",\n".join(mixed) + b"]" if form == "array" else b"\n".join(mixed) + b"\n")


@dataclass
class Result:
    """What became of them."""

    slowest: float = 0.0
    """Seconds that the slowest status took."""
    waited: float = 0.0
    """Seconds of these in which the daemon or who asked it waited for a processor of a busy machine."""
    asked: int = 0
    learned: set[str] = field(default_factory=set)
    """Ids that were trained or held out."""
    set_aside: list[str] = field(default_factory=list)
    """Why records are no experiences."""
    quarantined: dict[str, str] = field(default_factory=dict)
    """Why experiences are kept from training, by id."""


def live(directory: Path, config: Config, *, kills: bool) -> Result:
    """One cycle; ``kills``: the daemon dies while it screens, and again while it trains."""
    result = Result()
    if kills:
        with DaemonProcess(directory, config) as daemon, _watched(daemon, result):
            daemon.await_true(lambda: bool(daemon.status().buffer.total), "the buffer")
            daemon.kill()
        with DaemonProcess(directory, config) as daemon, _watched(daemon, result):
            daemon.await_event("cycle_started")
            daemon.kill()
    with DaemonProcess(directory, config) as daemon, _watched(daemon, result):
        daemon.await_true(lambda: _judged(daemon) is not None, "a verdict")
        shown = daemon.call(Show(cycle=_judged(daemon)), CycleDetail)
        result.learned = {*shown.trained_ids, *shown.held_out_ids}
        result.set_aside = [each.reason for each in daemon.call(Buffer(), BufferDetail).set_aside]
        listed = daemon.call(Quarantine(limit=100), QuarantineList)
        result.quarantined = {entry.id: entry.text for entry in listed.entries}
    return result


def _waited(daemon: DaemonProcess) -> float:
    """Seconds that the kernel let the daemon's loop and this thread wait for a processor until now."""
    files = (Path(f"/proc/{daemon.process.pid}/schedstat"), Path("/proc/thread-self/schedstat"))
    return sum(int(file.read_text().split()[1]) for file in files) / 1e9


def _judged(daemon: DaemonProcess) -> int | None:
    judged = ("promoted", "rejected", "inconclusive")
    return next((each.cycle for each in daemon.status().recent_cycles if each.state in judged), None)


@contextlib.contextmanager
def _watched(daemon: DaemonProcess, result: Result) -> Iterator[None]:
    """Ask for the status all the while."""
    is_over = threading.Event()

    def ask() -> None:
        while not is_over.wait(0.02):
            try:
                started, waited = time.monotonic(), _waited(daemon)
                daemon.status()
                taken, waited = time.monotonic() - started, _waited(daemon) - waited
            except (SleepdError, OSError):
                continue  # killed
            if taken - waited > result.slowest - result.waited:
                result.slowest, result.waited = taken, waited
            result.asked += 1

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def main() -> int:
    from sleepd.worker.programs.tiny_model import make_tiny_model

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--form", choices=FORMS, action="append", help="of the buffer; default: both")
    options = parser.parse_args()
    bad, is_well = worst(), True
    with tempfile.TemporaryDirectory(prefix="worst-") as made:
        model = Path(made) / "model"
        make_tiny_model(model)
        for form in options.form or FORMS:
            for kills in (False, True):
                directory = Path(made) / f"{form}-{kills}"
                directory.mkdir()
                write(directory / "buffer.json", form, list(bad.values()))
                config = changed(
                    config_for(directory, min_experiences=GOOD, cooldown_seconds=0.0), "model", base=str(model)
                )
                result = live(directory, config, kills=kills)
                named = len(result.set_aside) + len(result.quarantined)
                print(
                    f"{form:<6} killed {2 * kills} times: {len(result.learned)} of {GOOD} good ones learned from, "
                    f"{named} of {len(bad)} bad ones named; slowest of {result.asked} answers {result.slowest:.2f} s, "
                    f"of which {result.waited:.2f} s for a processor"
                )
                good = {record["id"] for record in experiences(GOOD)}
                is_well = (
                    is_well and result.learned == good and named == len(bad) and result.slowest - result.waited < 1.0
                )
                for reason in sorted({*result.set_aside, *result.quarantined.values()}):
                    print(f"    {reason[:110]!a}")
    print("well" if is_well else "NOT WELL")
    return 0 if is_well else 1


if __name__ == "__main__":
    sys.exit(main())
