"""Tests of the configuration."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sleepd.buffer.formats.known_formats import FORMATS
from sleepd.config.checks import BUFFER_FORMATS, discover
from sleepd.config.layers import load
from sleepd.config.render import fields, reference, render
from sleepd.config.schema import Config
from sleepd.errors import ConfigError


def parsed(text: str | bytes, **environment: str) -> Config:
    """What a file with that text means."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "config.toml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return load(path, environment=environment).config


def test_an_empty_file_is_the_defaults() -> None:
    """Every section and key may be left out."""
    assert parsed("") == Config()


def test_rendered_text_parses_to_same() -> None:
    """The rendered defaults, and a rendered change, come back as they were."""
    assert parsed(render(Config(), title="all keys")) == Config()
    changed = parsed('[triggers]\nmin_experiences = 7\n[model]\nsystem_prompt = "Be \\"kind\\".\\n"')
    assert parsed(render(changed, title="changed", all_keys=False)) == changed


def test_every_field_is_documented() -> None:
    """Each field has a meaning, and the reference has a row for it."""
    table = reference()
    for section, key, _, meaning in fields(Config()):
        assert len(meaning) > 10
        assert f"`{section}.{key}`" in table


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ('[triggers]\nmin_experiences = "x"', "triggers.min_experiences: expected `int`, found 'x'", "fix"),
        ("[triggers]\nmin_experiences = 0", "triggers.min_experiences: expected `int` >= 1, found 0", "fix"),
        ("[triggers]\nmin_experiences = true", "triggers.min_experiences: expected `int`, found True", "fix"),
        ("[triggers]\nmin_hours_between_sleep = nan", "triggers.min_hours_between_sleep", "fix"),
        ("[training]\nmin_salience = 1.5", "training.min_salience: expected `float` <= 1.0, found 1.5", "fix"),
        ("[triggers]\nmin_experience = 5", "triggers.min_experience: expected a known key", "'min_experiences'"),
        ("[trigger]\nx = 5", "trigger: expected a known key", "'triggers'"),
        ("triggers = 5", "triggers: expected `object`, found 5", "fix"),
        ('[worker]\ndevice = "gpu"', "worker.device: expected one of auto, cpu, cuda, none, found 'gpu'", "fix"),
        ('[training]\nstrategy = "hard"', "training.strategy: expected one of consolidate, careful", "fix"),
        ('[buffer]\npath = "relative.json"', "buffer.path: expected an absolute path", "fix"),
        ('[buffer]\npath = "/a\\u0000b"', "buffer.path: expected an absolute path", "fix"),
        ('[evaluation]\nprobes = "probes.toml"', "evaluation.probes: expected an absolute path", "fix"),
        ('[evaluation]\ncommand = "run \'it"', "evaluation.command: expected a program with its arguments", "fix"),
        ('[evaluation]\ncommand = " "', "evaluation.command: expected a program with its arguments", "fix"),
        ('[control]\nsocket = "/' + "x" * 120 + '"', "control.socket: expected a path of at most 107 bytes", "fix"),
        ('[control]\nsocket_mode = "rw"', "control.socket_mode", "fix"),
        (
            '[buffer]\npath = "/b"\nsettle_seconds = 40.0',
            "buffer.settle_seconds: expected less than buffer.patience_seconds",
            "fix",
        ),
        (
            '[model]\nquantization = "nf4"\n[serve]\nkind = "llama-router"',
            'model.quantization: expected "none" with serve.kind = "llama-router"',
            "fix",
        ),
        ('[buffer]\npath = "/var/lib/sage-sleepd"', "buffer.path: expected files, not the state directory", "fix"),
        ('[worker]\nengine = "ssh"', 'worker.host: expected a machine, with worker.engine = "ssh"', "fix worker.host"),
        (
            '[worker]\nengine = "ssh"\nhost = "a"\ndevice = "none"',
            "worker.device: expected a device that trains",
            "fix",
        ),
        ('[worker]\nhost = "-oProxyCommand=x"', "worker.host", "fix worker.host"),
        ('[worker]\nssh_config = "config"', "worker.ssh_config: expected an absolute path", "fix"),
        ('[sync]\nremote = "dropbox"', "sync.remote", "fix sync.remote"),
        ('[sync]\nremote = "--config=/x:"', "sync.remote", "fix sync.remote"),
        ('[sync]\ndirectory = "/a"\nremote = "dropbox:a"', "sync.remote: expected either it or sync.directory", "fix"),
        ('[sync]\nrclone_config = "a"', "sync.rclone_config: expected an absolute path", "fix"),
        (
            '[sync]\npolicy = "merge"',
            "sync.merge_directory: expected a directory that buffer.path names too",
            "fix sync.merge_directory",
        ),
        ("[buffer", "config.toml: not TOML", "sleepctl config check"),
        ("a = 1\na = 2", "config.toml: not TOML", "sleepctl config check"),
    ],
)
def test_nonsense_is_refused_with_its_place(text: str, message: str, hint: str) -> None:
    """Each error names the file, the key, what was expected, what was found, and the next step."""
    with pytest.raises(ConfigError) as caught:
        parsed(text)
    assert "/config.toml: " in caught.value.message
    assert message in caught.value.message
    assert hint in caught.value.hint
    assert caught.value.exit_code == 9


def test_systemd_environment_fills_the_gaps() -> None:
    """$STATE_DIRECTORY and $RUNTIME_DIRECTORY count where the file says nothing, and only there."""
    environment = {"STATE_DIRECTORY": "/s:/other", "RUNTIME_DIRECTORY": "/r"}
    config = parsed("", **environment)
    assert (config.state.directory, config.control.socket) == ("/s", "/r/sleepd.sock")
    config = parsed('[state]\ndirectory = "/mine"\n[control]\nsocket = "/mine.sock"', **environment)
    assert (config.state.directory, config.control.socket) == ("/mine", "/mine.sock")


def test_the_file_that_counts_is_found(tmp_path: Path) -> None:
    """$SLEEPD_CONFIG outranks the user's own file; without any, nothing outside /etc is made up."""
    mine = tmp_path / "sage-sleepd" / "config.toml"
    mine.parent.mkdir()
    mine.write_text("")
    assert discover({"XDG_CONFIG_HOME": str(tmp_path)}) == mine
    assert discover({"HOME": str(tmp_path.parent), "XDG_CONFIG_HOME": str(tmp_path)}) == mine
    assert discover({"SLEEPD_CONFIG": "/x", "XDG_CONFIG_HOME": str(tmp_path)}) == Path("/x")


def test_unreadable_file_is_named(tmp_path: Path) -> None:
    """A missing file is a configuration error with its name."""
    with pytest.raises(ConfigError, match=r"none\.toml: .*: No such file"):
        load(tmp_path / "none.toml", environment={})


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_give_configuration_or_error(text: bytes) -> None:
    """Nothing but a ConfigError comes out of a hostile file."""
    try:
        parsed(text)
    except ConfigError as error:
        assert "/config.toml: " in error.message


_SECTIONS = st.sampled_from(["buffer", "triggers", "model", "training", "worker", "state", "control", "log", "x"])
_KEYS = st.sampled_from(["path", "min_experiences", "device", "strategy", "socket", "level", "directory", "y"])
_VALUES = st.sampled_from(["1", "-1", "nan", "inf", '"x"', "[]", "{}", "1979-05-27", "true", '"/a"', "1e400"])


@given(st.lists(st.tuples(_SECTIONS, _KEYS, _VALUES), max_size=6))
def test_any_toml_gives_configuration_or_error(entries: list[tuple[str, str, str]]) -> None:
    """Well-formed TOML with wrong keys and values ends in a ConfigError, never in another exception."""
    text = "\n".join(f"{section}.{key} = {value}" for section, key, value in dict.fromkeys(entries))
    try:
        parsed(text)
    except ConfigError as error:
        assert error.hint


def test_every_format_can_be_named() -> None:
    """``buffer.format`` takes the name of every format that is read."""
    assert {"auto", "own", *(one.name for one in FORMATS)} == set(BUFFER_FORMATS)
