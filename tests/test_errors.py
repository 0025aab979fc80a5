"""Every error says whose fault it is, on both ends of the wire."""

from __future__ import annotations

import importlib
import pkgutil

import pytest

import sleepd
from sleepd.errors import RequestFailed, SleepdError, all_errors, from_wire

FAR_FROM_THE_DAEMON = ("sleepd.worker", "sleepd.demo", "sleepd.sleepctl", "sleepd.__main__")


def test_every_error_class_is_known() -> None:
    """No module defines an error that the table of the wire does not hold, however deep it stands below the base."""
    for module in pkgutil.walk_packages(sleepd.__path__, "sleepd."):
        if not module.name.startswith(FAR_FROM_THE_DAEMON):
            importlib.import_module(module.name)
    found, waiting = set(), [SleepdError]
    while waiting:
        below = waiting.pop().__subclasses__()
        found |= set(below)
        waiting += below
    assert set(all_errors()) == found
    assert {cls.__module__ for cls in found} == {"sleepd.errors"}


@pytest.mark.parametrize("cls", all_errors(), ids=lambda cls: cls.__name__)
def test_error_survives_the_wire(cls: type[SleepdError]) -> None:
    """Class, message, hint and exit code are the same behind the socket."""
    sent = cls("what came", hint="what to do")
    came = from_wire(sent.kind, sent.message, sent.hint)
    assert type(came) is cls
    assert (came.message, came.hint, came.exit_code) == ("what came", "what to do", cls.exit_code)


def test_unknown_error_is_a_failed_request() -> None:
    """What a newer daemon calls by a name of its own is still told, with its words."""
    came = from_wire("SomethingNewer", "what came", "what to do")
    assert (type(came), came.message) == (RequestFailed, "what came")


@pytest.mark.parametrize("cls", all_errors(), ids=lambda cls: cls.__name__)
def test_error_needs_a_next_step(cls: type[SleepdError]) -> None:
    """No error can be made without a hint: what is to be done now is thought of where it is raised."""
    with pytest.raises(TypeError, match="hint"):
        cls("what came")  # type: ignore[call-arg]
