"""Tests of ``sleepctl setup-serve``: what it writes for each kind of engine, and what it refuses."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any

import pytest

from sleepd.config.schema import Config
from sleepd.config.serve_config import ServeConfig
from sleepd.errors import ConfigError
from sleepd.serving.engines.llama_router import with_adapter
from sleepd.sleepctl.commands.setup import setup_serve
from sleepd.sleepctl.commands.setup.setup_serve import start_command
from tests.agents import changed, config_for

UNIT = """# /etc/systemd/system/llama.service
[Service]
ExecStart=/usr/bin/llama-server \\
    -m /srv/base.gguf --port 8080
"""
OURS = """
# /etc/systemd/system/llama.service.d/50-sage-sleepd.conf
[Service]
ExecStart=
ExecStart=old $SAGE_SLEEPD_LORA
"""


class Said(types.SimpleNamespace):
    """As much of a session as the command uses."""

    def __init__(self, config: Config) -> None:
        super().__init__(arguments=types.SimpleNamespace(instance=""), shown=[])
        self.places = types.SimpleNamespace(load_config=lambda: types.SimpleNamespace(config=config))
        self.console = types.SimpleNamespace(show=lambda data, _page: self.shown.append(data))


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of its own, with one unit of llama-server."""
    monkeypatch.setattr(setup_serve, "UNITS", tmp_path / "units")
    monkeypatch.setattr(setup_serve, "POLKIT_RULE", tmp_path / "polkit" / "50.rules")
    monkeypatch.setattr(setup_serve, "answer_of", lambda *words: UNIT + OURS if "cat" in words else "")
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("shutil.chown", lambda *_: None)
    return tmp_path


def configured(directory: Path, **serve: Any) -> Said:
    return Said(changed(config_for(directory), "serve", **serve))


def test_unit_takes_the_adapter_from_a_file(places: Path) -> None:
    """The drop-in keeps the operator's command and adds the adapter; the rule names that one unit and three verbs."""
    session = configured(places, kind="llama-restart", unit="llama.service")
    setup_serve.setup_serve(session)

    drop_in = (places / "units/llama.service.d/50-sage-sleepd.conf").read_text()
    assert "ExecStart=\nExecStart=/usr/bin/llama-server  -m /srv/base.gguf --port 8080 $SAGE_SLEEPD_LORA\n" in drop_in
    assert f"EnvironmentFile=-{places}/state/serving/llama-server.env\n" in drop_in
    rule = (places / "polkit/50.rules").read_text()
    assert 'action.lookup("unit") == "llama.service"' in rule
    assert 'subject.user == "sage-sleepd"' in rule
    assert "systemctl enable --now sage-sleep-serve.socket" in session.shown[0]["next"]


def test_presets_are_written_once(places: Path) -> None:
    """The presets have the section that the engine's module changes; a file that is there is the operator's."""
    session = configured(places, kind="llama-router")
    setup_serve.setup_serve(session)
    (file,) = map(Path, session.shown[0]["written"])
    assert with_adapter(file.read_text(), "agent", Path("/a.gguf"), file).count("lora = /a.gguf") == 1

    file.write_text("mine")
    setup_serve.setup_serve(session)
    assert (file.read_text(), session.shown[1]["written"]) == ("mine", [])


def test_nothing_configured_is_refused(places: Path) -> None:
    """Without ``serve.kind`` there is nothing to set up, and the hint says what to set."""
    with pytest.raises(ConfigError, match=r"serve\.kind is not set"):
        setup_serve.setup_serve(configured(places))


@pytest.mark.parametrize(
    ("text", "problem"),
    [("[Service]\n", "found none"), ("ExecStart=llama-server --lora mine.gguf\n", "names an adapter itself")],
)
def test_unfit_units_are_refused(text: str, problem: str) -> None:
    """A unit without a command, or with an adapter of its own, is left as it is."""
    with pytest.raises(ConfigError, match=problem):
        start_command(text, "llama.service")


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"kind": "llama-restart"}, "serve.unit"),
        ({"kind": "command"}, "serve.command"),
        ({"kind": "llama-restart", "unit": "a.service", "directory": "/with space"}, "serve.directory"),
        ({"kind": "vllm", "model": "a]b"}, "serve.model"),
    ],
)
def test_incomplete_settings_are_named(settings: dict[str, Any], key: str) -> None:
    """What a kind needs and has not is refused with its key."""
    from sleepd.config.serve_config import incomplete

    assert [found for found, _, _ in incomplete(ServeConfig(**settings))] == [key]


@pytest.mark.parametrize(
    ("url", "is_one"),
    [
        ("http://127.0.0.1:8080", True),
        ("https://engine.lan/v1", True),
        ("http://[::1]:8080", True),
        ("http://me:secret@host", False),
        ("ftp://host", False),
        ("file:///etc/passwd", False),
        ("http://", False),
        ("http://host:99999", False),
        ("http://host/?a=b", False),
        ("http://ho st", False),
        ("http://host\n", False),
    ],
)
def test_addresses_are_checked(url: str, is_one: bool) -> None:
    """An address is a scheme and a host, without a name, a password or a query."""
    from sleepd.config.serve_config import is_url

    assert is_url(url) is is_one
