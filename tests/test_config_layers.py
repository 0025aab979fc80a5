"""Tests of where the configuration comes from: file, drop-ins, environment."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from sleepd.config.layers import MAX_DROP_INS, MAX_FILE_BYTES, OTHER_VARIABLES, VARIABLES, Layered, load
from sleepd.config.render import fields, render
from sleepd.config.schema import Config
from sleepd.errors import ConfigError

FILE = """
[buffer]
path = "/srv/agent/b.json"
[triggers]
min_experiences = 7
min_new_experiences = 3
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A configuration file with an empty folder of drop-ins beside it."""
    path = tmp_path / "config.toml"
    path.write_text(FILE)
    (tmp_path / "conf.d").mkdir()
    return path


def drop_in(path: Path, name: str, text: str) -> Path:
    """A drop-in beside the configuration file ``path``."""
    file = path.parent / "conf.d" / name
    file.write_text(text)
    return file


def refusal(path: Path | None, **environment: str) -> ConfigError:
    """What is said of a configuration that is wrong."""
    with pytest.raises(ConfigError) as caught:
        load(path, environment=environment)
    assert caught.value.hint
    return caught.value


def names(error: ConfigError, place: object, what: str) -> bool:
    """Whether the message begins with that place, and has this in it."""
    return error.message.startswith(f"{place}: ") and what in error.message


def triggers(layered: Layered) -> tuple[int, int, float]:
    part = layered.config.triggers
    return part.min_experiences, part.min_new_experiences, part.min_hours_between_sleep


# --- precedence ---


def test_each_layer_overrides_earlier_keys(path: Path) -> None:
    """Default < file < drop-ins in lexical order < environment, key by key, and each key's origin is known."""
    second = drop_in(path, "20-b.toml", "[triggers]\nmin_new_experiences = 5\n")
    first = drop_in(path, "10-a.toml", "[triggers]\nmin_new_experiences = 4\nmin_hours_between_sleep = 1.5\n")
    layered = load(path, environment={"SLEEPD_TRIGGERS_MIN_HOURS_BETWEEN_SLEEP": "2"})
    assert triggers(layered) == (7, 5, 2.0)
    assert layered.config.triggers.cooldown_seconds == Config().triggers.cooldown_seconds
    assert layered.files == [str(path), str(first), str(second)]
    assert layered.origins == {
        "buffer.path": str(path),
        "triggers.min_experiences": str(path),
        "triggers.min_new_experiences": str(second),
        "triggers.min_hours_between_sleep": "$SLEEPD_TRIGGERS_MIN_HOURS_BETWEEN_SLEEP",
    }


def test_drop_ins_apply_by_name(path: Path) -> None:
    """Lexical, whatever the folder's own order is: ``10`` stands before ``9``, as ``ls`` shows them."""
    for number in (9, 30, 1, 10, 2, 20, 3, 100, 8, 7, 15, 12):
        drop_in(path, f"{number}.toml", f"[triggers]\nmin_experiences = {number}\n")
    layered = load(path, environment={})
    assert layered.config.triggers.min_experiences == 9
    names = [Path(file).name for file in layered.files[1:]]
    assert names == [f"{number}.toml" for number in (1, 10, 100, 12, 15, 2, 20, 3, 30, 7, 8, 9)]


def test_systemd_directories_fill_gaps_only(path: Path) -> None:
    """$STATE_DIRECTORY and $RUNTIME_DIRECTORY yield to every other layer."""
    systemd = {"STATE_DIRECTORY": "/s:/other", "RUNTIME_DIRECTORY": "/r"}
    layered = load(path, environment=systemd)
    assert (layered.config.state.directory, layered.config.control.socket) == ("/s", "/r/sleepd.sock")
    assert layered.origins["state.directory"] == "$STATE_DIRECTORY"
    drop_in(path, "10.toml", '[state]\ndirectory = "/mine"\n')
    layered = load(path, environment={**systemd, "SLEEPD_CONTROL_SOCKET": "/mine.sock"})
    assert (layered.config.state.directory, layered.config.control.socket) == ("/mine", "/mine.sock")


def test_environment_applies_without_file(tmp_path: Path) -> None:
    """No file is no error here; the variables count, and no drop-ins are looked for."""
    layered = load(None, environment={"SLEEPD_TRAINING_STRATEGY": "gentle"})
    assert (layered.config.training.strategy, layered.files) == ("gentle", [])


@pytest.mark.parametrize(
    "name", ["10-a.toml~", ".10-a.toml.swp", ".10-a.toml", "#10-a.toml#", "10-a.toml.bak", "README"]
)
def test_editor_leftovers_are_no_drop_ins(path: Path, name: str) -> None:
    """Only ``*.toml`` that is not hidden counts."""
    drop_in(path, name, "this is no TOML")
    assert load(path, environment={}).files == [str(path)]


def test_vanished_drop_in_loses_its_keys(path: Path) -> None:
    """Each reading is a reading of what is there."""
    file = drop_in(path, "10.toml", "[triggers]\nmin_experiences = 9\n")
    assert triggers(load(path, environment={}))[0] == 9
    file.unlink()
    assert triggers(load(path, environment={}))[0] == 7
    (path.parent / "conf.d").rmdir()
    assert triggers(load(path, environment={}))[0] == 7


# --- hostile drop-ins ---


def _directory(file: Path) -> None:
    file.mkdir()


def _dangling(file: Path) -> None:
    file.symlink_to("nowhere")


def _loop(file: Path) -> None:
    file.symlink_to(file.name)


def _pipe(file: Path) -> None:
    os.mkfifo(file)


def _device(file: Path) -> None:
    file.symlink_to("/dev/zero")


def _huge(file: Path) -> None:
    with file.open("wb") as out:
        out.truncate(100 * 10**6)


def _latin(file: Path) -> None:
    file.write_bytes('[model]\nsystem_prompt = "é"\n'.encode("latin-1"))


def _deep(file: Path) -> None:
    file.write_text("x = " + "[" * 10_000)


def _digits(file: Path) -> None:
    file.write_text("[triggers]\nmin_experiences = " + "9" * 10_000)


def _hex_digits(file: Path) -> None:
    file.write_text("[triggers]\nmin_experiences = 0x" + "f" * 10_000)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (_directory, "cannot be read: expected a regular file"),
        (_dangling, "cannot be read: it is a symbolic link to a missing file"),
        (_loop, "cannot be read: Too many levels of symbolic links"),
        (_pipe, "cannot be read: expected a regular file"),
        (_device, "cannot be read: expected a regular file"),
        (_huge, f"expected at most {MAX_FILE_BYTES} bytes, found more"),
        (_latin, "not TOML: 'utf-8' codec can't decode"),
        (_deep, "not TOML: maximum recursion depth"),
        (_digits, "not TOML: Exceeds the limit"),
        (_hex_digits, "triggers.min_experiences: expected `int` <= 1000000000, found a very large integer"),
    ],
)
@pytest.mark.parametrize("place", ["drop-in", "file"])
def test_other_file_kinds_are_refused(
    tmp_path: Path, path: Path, place: str, make: Callable[[Path], None], said: str
) -> None:
    """Whatever stands where a file should, the error names it and says why; nothing is waited for."""
    if place == "file":
        path.unlink()
    file = path if place == "file" else tmp_path / "conf.d" / "10.toml"
    make(file)
    assert refusal(path).message.startswith(f"{file}: {said}")


def test_unreadable_drop_in_is_refused(path: Path) -> None:
    """What cannot be opened is an error, not a drop-in that does not count."""
    file = drop_in(path, "10.toml", "")
    file.unlink()
    file.symlink_to(file)  # refused to root too
    assert refusal(path).message.startswith(f"{file}: ")


def test_false_drop_in_folder_is_refused(path: Path) -> None:
    """A file or a dangling link in the place of ``conf.d`` is not taken for its absence; nor are too many files."""
    folder = path.parent / "conf.d"
    for number in range(MAX_DROP_INS + 1):
        drop_in(path, f"{number:03d}.toml", "")
    assert refusal(path).message == f"{folder}: expected at most {MAX_DROP_INS} drop-ins, found {MAX_DROP_INS + 1}"
    folder.rename(path.parent / "elsewhere")
    folder.write_text("")
    assert names(refusal(path), folder, "Not a directory")
    folder.unlink()
    folder.symlink_to("nowhere")
    assert names(refusal(path), folder, "symbolic link")


def test_vanishing_drop_in_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Listed and then gone: the reading is given up, and not made of the rest."""
    drop_in(path, "20.toml", "[triggers]\nmin_experiences = 9\n")
    monkeypatch.setattr("os.listdir", lambda folder: ["10.toml", "20.toml"])
    assert names(refusal(path), path.parent / "conf.d" / "10.toml", "No such file")


def test_error_names_its_layer(path: Path) -> None:
    """A wrong key or value is found where it stands, even where a later layer would have overridden it."""
    file = drop_in(path, "10.toml", "[triggers]\nmin_experience = 9\n")
    error = refusal(path)
    assert names(error, f"{file}: triggers.min_experience", "found 'min_experience'")
    assert "'min_experiences'" in error.hint
    file.write_text('[training]\nstrategy = "hard"\n')
    drop_in(path, "20.toml", '[training]\nstrategy = "gentle"\n')
    assert names(refusal(path), f"{file}: training.strategy", "consolidate, careful")


def test_contradiction_names_its_layer(path: Path) -> None:
    """Two values that are right each by itself: the message names where they met."""
    file = drop_in(path, "10.toml", "[buffer]\npatience_seconds = 2.0\n")
    assert load(path, environment={}).config.buffer.patience_seconds == 2.0
    error = refusal(path, SLEEPD_BUFFER_SETTLE_SECONDS="3")
    assert names(error, "$SLEEPD_BUFFER_SETTLE_SECONDS: buffer.settle_seconds", "buffer.patience_seconds (2.0)")
    assert error.message.endswith("found 3.0")
    file.write_text("[buffer]\npatience_seconds = 1.0\n")
    assert names(refusal(path), f"{file}: buffer.settle_seconds", "less than")


def test_unprintable_name_is_escaped(path: Path) -> None:
    """A file name with a line feed and bytes that are no UTF-8 comes out as one printable line."""
    name = os.fsdecode(b"10\n\xff.toml")
    drop_in(path, name, "this is no TOML")
    message = refusal(path).message
    assert message.isprintable()
    assert r"10\n\udcff.toml" in message


# --- the environment ---


def test_every_key_has_its_variable(path: Path) -> None:
    """Written out as a variable, every default is read back as itself, and none is taken by another use."""
    defaults = {name: getattr(getattr(Config(), section), key) for name, (section, key) in VARIABLES.items()}
    environment = {
        name: json.dumps(value) if isinstance(value, tuple | bool) else str(value) for name, value in defaults.items()
    }
    assert len(VARIABLES) == len(list(fields(Config())))
    assert load(None, environment=environment).config == Config()
    assert set(OTHER_VARIABLES).isdisjoint(VARIABLES)


def test_text_is_taken_verbatim(path: Path) -> None:
    """Quotes, equals signs and line feeds in a variable of a text are part of the text."""
    text = 'Say "yes" = true\n# and no more\U0001f600'
    assert load(path, environment={"SLEEPD_MODEL_SYSTEM_PROMPT": text}).config.model.system_prompt == text


@pytest.mark.parametrize(
    ("name", "value", "message", "hint"),
    [
        ("TRIGGERS_MIN_EXPERIENCES", "ten", "triggers.min_experiences: expected `int`, found 'ten'", "fix"),
        ("TRIGGERS_MIN_EXPERIENCES", "", "triggers.min_experiences: expected `int`, found ''", "fix"),
        ("TRIGGERS_MIN_EXPERIENCES", "0", "triggers.min_experiences: expected `int` >= 1, found 0", "fix"),
        ("TRIGGERS_MIN_EXPERIENCES", "5\nvalue2 = 6", "triggers.min_experiences: expected `int`, found '5", "fix"),
        ("TRIGGERS_MIN_EXPERIENCES", "[" * 9999, "triggers.min_experiences: expected `int`, found '[[[", "fix"),
        ("WORKER_DEVICE", "gpu", "worker.device: expected one of auto, cpu, cuda, none, found 'gpu'", "fix"),
        ("BUFFER_PATH", "b.json", "buffer.path: expected an absolute path, found 'b.json'", "fix"),
        ("BUFFER_PATH", "/\udcff", r"expected UTF-8, found '/\udcff'", "unset SLEEPD_BUFFER_PATH"),
        (
            "TRIGGER_MIN_EXPERIENCES",
            "5",
            "expected SLEEPD_SECTION_KEY with a known key, found 'SLEEPD_TRIGGER_MIN_EXPERIENCES'",
            "did you mean SLEEPD_TRIGGERS_MIN_EXPERIENCES?",
        ),
        ("CONFG", "/x", "expected SLEEPD_SECTION_KEY with a known key", "did you mean SLEEPD_CONFIG?"),
    ],
)
def test_wrong_variable_is_refused(path: Path, name: str, value: str, message: str, hint: str) -> None:
    """The error names the variable, the key, what was expected and what was found."""
    error = refusal(path, **{f"SLEEPD_{name}": value})
    assert error.message.startswith(f"$SLEEPD_{name}: {message}")
    assert hint in error.hint


def test_foreign_variables_are_ignored(path: Path) -> None:
    """What names the file, the socket and the build of torch is no key."""
    assert load(path, environment=dict.fromkeys(OTHER_VARIABLES, "x")).config == load(path, environment={}).config


# --- shown ---


def test_shown_origins_read_back(path: Path) -> None:
    """The shown document names each value's origin and is TOML with the same values, whatever text they hold."""
    prompt = 'a\U0001f600\x7f\u2028"\\\n\t\x01'
    layered = load(path, environment={"SLEEPD_MODEL_SYSTEM_PROMPT": prompt})
    text = render(layered.config, title="shown", origins=layered.origins)
    assert f"min_experiences = 7  # {path}\n" in text
    lines = text.splitlines()
    assert "min_hours_between_sleep = 6.0  # default" in lines
    assert f'# directory = "{Config().state.directory}"  # default' in lines
    assert tomllib.loads(text)["model"]["system_prompt"] == prompt
    path.write_text(text)
    assert load(path, environment={}).config == layered.config
