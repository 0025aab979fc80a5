"""Hostile buffers, met by a real daemon: each ends in a state that is named, and heals by itself."""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import os
import shutil
import threading
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sleepd.buffer.digest import digest_whole
from sleepd.buffer.reading import open_file
from sleepd.buffer.reading.experience_buffer import ExperienceBuffer
from sleepd.buffer.reading.reader_process import ReadRequest, read_texts
from sleepd.config.schema import Config
from sleepd.errors import BufferUnreadable
from tests.agents import changed, config_for, experiences, write_buffer
from tests.fakes import FakeClock
from tests.faults.rewriting_writer import rewrite_and_watch
from tests.processes import DaemonProcess


def wanting(*keys: int) -> ReadRequest:
    """A request for the texts of these."""
    return ReadRequest(wanted=array("Q", keys).tobytes())


def patient(directory: Path) -> Config:
    """A daemon that never has enough to sleep, and looks every second."""
    config = config_for(directory, min_experiences=1000, check_interval_seconds=1.0)
    return changed(config, "buffer", patience_seconds=1.0, settle_seconds=0.05)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """The patient daemon's, in the test's own directory."""
    return patient(tmp_path)


def as_pipe(path: Path) -> None:
    os.mkfifo(path)


def as_link_to(target: str) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(target)


def as_text(content: bytes) -> Callable[[Path], None]:
    def place(path: Path) -> None:
        path.write_bytes(content)

    return place


IN_ITS_PLACE = {
    "a pipe": (as_pipe, "expected a regular file"),
    "a link to a device": (as_link_to("/dev/zero"), "expected a regular file"),
    "a link to a loop": (as_link_to("buffer.json"), "symbolic link"),
    "half an array": (as_text(b'[{"id": "1", "prompt"'), "not whole"),
    "binary": (as_text(bytes(range(256)) * 40), "begins with"),
    "another program's object": (as_text(b'{"a": 1,\n "b": [2]}'), "expected a list of experiences"),
    "an endless nesting": (as_text(b"[" * 100_000), "not whole"),
}


def remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def test_anything_in_its_place_is_named(tmp_path: Path, config: Config) -> None:
    """One daemon meets all of them; each time status names the problem, and a buffer in its place is read again."""
    path = tmp_path / "buffer.json"
    with DaemonProcess(tmp_path, config) as daemon:
        for number, (what, (place, words)) in enumerate(IN_ITS_PLACE.items(), start=2):
            place(path)
            daemon.await_true(lambda words=words: daemon.names(words), f"{what}: {words}")
            remove(path)
            write_buffer(path, experiences(number))
            daemon.await_true(lambda number=number: daemon.counts(number), f"a buffer after {what}")
            remove(path)
        daemon.await_true(lambda: daemon.status().buffer.form == "absent", "its absence")
        assert "Traceback" not in daemon.log()


def test_links_are_followed_to_targets(tmp_path: Path, config: Config) -> None:
    """A chain whose middle leads elsewhere, a dangling end, a replaced directory: the periodic check sees them all."""
    for name, count in (("one", 3), ("two", 4)):
        (tmp_path / name).mkdir()
        write_buffer(tmp_path / name / "real.json", experiences(count))
    (tmp_path / "middle").symlink_to("one/real.json")
    (tmp_path / "buffer.json").symlink_to("middle")
    with DaemonProcess(tmp_path, config) as daemon:
        daemon.await_true(lambda: daemon.status().buffer.total == 3, "the end of the chain")
        (tmp_path / "other").symlink_to("two/real.json")
        (tmp_path / "other").rename(tmp_path / "middle")
        daemon.await_true(lambda: daemon.status().buffer.total == 4, "the chain's other end")
        (tmp_path / "two").rename(tmp_path / "gone")
        daemon.await_true(lambda: daemon.status().buffer.form == "absent", "the dangling link")
        (tmp_path / "two").mkdir()
        write_buffer(tmp_path / "two" / "real.json", experiences(7))
        daemon.await_true(lambda: daemon.status().buffer.total == 7, "the new directory")
        assert daemon.status().buffer.form == "array"


@pytest.mark.skipif(os.getuid() != 0, reason="NOT TESTED: another user's daemon needs root")
def test_forbidden_buffer_is_named_and_heals(open_directory: Path) -> None:
    """As an ordinary user the daemon says what to do, and reads once it is allowed to."""
    path = open_directory / "buffer.json"
    write_buffer(path, experiences(3))
    path.chmod(0o600)
    (open_directory / "state").mkdir(exist_ok=True)
    (open_directory / "run").mkdir()
    for name in ("state", "run"):
        os.chown(open_directory / name, 65534, 65534)
    config = changed(patient(open_directory), "control", socket=str(open_directory / "run/sleepd.sock"))
    with DaemonProcess(open_directory, config, user=65534) as daemon:
        daemon.await_true(lambda: daemon.names("Permission denied"), "the refusal")
        error = daemon.status().last_error
        assert error is not None
        assert error.hint.startswith("let this user read it")
        path.chmod(0o644)
        daemon.await_true(lambda: daemon.counts(3), "the buffer")


def test_restless_writer_is_not_corrupt(tmp_path: Path) -> None:
    """A sample of what ``tests/faults/rewriting_writer.py`` does for minutes: in place, in chunks, every 2 ms."""
    result = rewrite_and_watch(tmp_path, seconds=4.0)
    assert result.rewrites > 3
    assert result.looks > 10
    assert result.false_alarms == []
    assert result.last_total == result.written


def record(number: int, **changes: Any) -> dict[str, Any]:
    return {**experiences(1, start=number)[0], **changes}


def deep(number: int) -> str:
    return json.dumps(record(number))[:-1] + ', "metadata": ' + "[" * 100_000 + "]" * 100_000 + "}"


@pytest.mark.parametrize("form", ["array", "object", "lines"])
def test_too_deep_record_costs_itself(form: str) -> None:
    """The good ones before and after it are read, in every form; brackets and quotes inside strings do not count."""
    tricky = json.dumps(record(2, prompt='Is "]}," \\ an end?'))
    parts = [json.dumps(record(1)), deep(9), tricky, json.dumps(record(3))]
    content = {
        "array": f"[{', '.join(parts)}]",
        "object": '{"meta": [1, [2]], "experiences": [' + ",\n".join(parts) + '], "more": {}}',
        "lines": "\n".join(parts) + "\n",
    }[form].encode()
    if form == "lines":
        from sleepd.buffer.digest import Digest, digest_lines

        digest = Digest("lines")
        digest_lines(content.splitlines(), digest, first=1)
    else:
        digest = digest_whole(content)
    assert list(digest.keys) == [1, 2, 3]
    assert digest.skipped_total == 1
    assert [each.id for each in read_texts(io.BytesIO(content), wanting(1, 2, 3)).texts] == [
        f"{number:016x}" for number in (1, 2, 3)
    ]


BAD = {
    "no number": json.dumps(record(5))[:-1] + ', "salience": NaN}',
    "too deep": deep(6),
    "too many digits": json.dumps(record(7))[:-1] + f', "salience": {"9" * 5_000}}}',
    "half a character": json.dumps(record(8, prompt="\ud800")),
}


@pytest.mark.parametrize("form", ["array", "object"])
@pytest.mark.parametrize("names", list(itertools.permutations(BAD, 2)))
def test_two_bad_records_cost_themselves_alone(names: tuple[str, str], form: str) -> None:
    """Each needs another parser than the other; those around them are read all the same."""
    parts = [json.dumps(record(1)), *(BAD[name] for name in names), json.dumps(record(2))]
    listed = f"[{', '.join(parts)}]"
    digest = digest_whole((listed if form == "array" else f'{{"experiences": {listed}}}').encode())
    assert (list(digest.keys), digest.skipped_total) == ([1, 2], 2)


def test_rewritten_record_keeps_first_text() -> None:
    """Scored anew it counts with the new score; with other text it is set aside, and the first one is trained."""
    again = [record(1), record(2), record(1, salience=0.1), record(2, response="No."), record(1, salience=0.95)]
    content = json.dumps(again).encode()
    digest = digest_whole(content)
    assert list(digest.saliences) == [0.95, 0.8]
    assert [aside.reason for aside in digest.skipped] == [f"id: '{2:016x}' has another text above"]
    found = {each.id: each for each in read_texts(io.BytesIO(content), wanting(1, 2)).texts}
    assert found[f"{1:016x}"].salience == 0.95
    assert found[f"{2:016x}"].response != "No."


def test_silent_share_blocks_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While ``open`` hangs the loop turns, no second thread is begun, and the late descriptor is closed."""
    path = tmp_path / "buffer.json"
    write_buffer(path, experiences(3))
    answer, calls, real = threading.Event(), [], os.open

    def hanging(name: Any, *arguments: Any, **more: Any) -> int:
        if name == path:
            calls.append(name)
            answer.wait(60)
        return real(name, *arguments, **more)

    monkeypatch.setattr(open_file.os, "open", hanging)
    monkeypatch.setattr(open_file, "OPEN_SECONDS", 0.05)

    async def scene() -> int:
        buffer = ExperienceBuffer(path, patience_seconds=30.0, clock=FakeClock())
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(3):
            with pytest.raises(BufferUnreadable, match="has not answered"):
                await buffer.read()
        assert len(calls) == 1
        answer.set()
        while True:
            try:
                view = await buffer.read()
            except BufferUnreadable:
                await asyncio.sleep(0)
                continue
            break
        assert len(os.listdir("/proc/self/fd")) == before
        return len(view.keys)

    assert asyncio.run(scene()) == 3
