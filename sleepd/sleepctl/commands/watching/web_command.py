"""``sleepctl web``: where the page is; its token; and the page itself where nobody serves it."""

from __future__ import annotations

import http.client
import os
import sys
from pathlib import Path
from urllib.parse import unquote

from sleepd.errors import NotFound, PermissionDenied, SleepdError, UsageError
from sleepd.protocol.status import SCHEMA
from sleepd.sleepctl.exit_codes import ExitCode
from sleepd.sleepctl.pages.decision_page import line
from sleepd.sleepctl.places import instance_socket
from sleepd.sleepctl.session import Session
from sleepd.text.shell import command_line
from sleepd.web.web_places import SOCKET_HEADER, service_token

_ANSWER_SECONDS = 10.0
"""The first request starts the service, which takes a second."""


def show_web(session: Session) -> ExitCode:
    """The address, the token, or the page until Ctrl-C."""
    arguments = session.arguments
    address, instance = arguments.address, arguments.instance
    wanted = instance_socket(instance) if instance else session.places.socket
    shown = shown_socket(address)  # the first request starts the service, which makes its token
    if arguments.token:
        token = read_token([Path(service_token(instance)), own_token_file()])
        session.console.show({"schema": SCHEMA, "address": f"http://{address}/", "token": token}, [line(token)])
        return ExitCode.OK
    if shown is None:
        return _serve(session, wanted)
    _require_same(address, shown, wanted)
    session.console.show(
        {"schema": SCHEMA, "address": f"http://{address}/", "token": None}, [line(f"http://{address}/")]
    )
    if arguments.open:
        import webbrowser

        if not webbrowser.open(f"http://{address}/"):
            raise NotFound("no browser can be started here", hint=f"open http://{address}/ yourself")
    else:
        option = ["--instance", instance] if instance else []
        command = command_line("sudo", "sleepctl", "web", *option, "--token")
        session.console.note(f"the page asks for its token: {command}")
    return ExitCode.OK


def _require_same(address: str, shown: str, wanted: str) -> None:
    """Another daemon's page says nothing about this one."""
    if os.path.realpath(shown) != os.path.realpath(wanted):
        raise UsageError(
            f"the page at {address} shows another daemon, that of {shown} and not of {wanted}",
            hint="name another address, such as --address 127.0.0.1:7534, and the page of yours is served there",
        )


def shown_socket(address: str) -> str | None:
    """The control socket of the daemon whose page answers there; None: no page answers.

    Raises:
        UsageError: it is no address.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise UsageError(f"--address: expected IP:PORT, found {address!r}", hint="sleepctl web --help")
    connection = http.client.HTTPConnection(host, int(port), timeout=_ANSWER_SECONDS)
    try:
        connection.request("GET", "/health")
        answer = connection.getresponse()
        return unquote(answer.headers.get(SOCKET_HEADER, "")) if answer.read(16) == b"ok\n" else None
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def own_token_file() -> Path:
    """Of a page that this user serves without systemd."""
    state = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(state) / "sage-sleep-web" / "token"


def read_token(files: list[Path]) -> str:
    """The token of the first of these files that there is.

    Raises:
        PermissionDenied: this user may not read it.
        NotFound: there is none.
    """
    denied = None
    for path in files:
        try:
            return path.read_text(encoding="ascii", errors="replace").strip()
        except PermissionError:
            denied = path
        except OSError:
            continue
    if denied is not None:
        raise PermissionDenied(f"{denied}: only root may read the token", hint="sudo sleepctl web --token")
    raise NotFound(
        "there is no token: the page was never started",
        hint="sudo systemctl enable --now sage-sleep-web.socket (without systemd: sleepctl web)",
    )


def without_web(missing: ModuleNotFoundError) -> SleepdError:
    """What to say where a library of the page is missing."""
    return NotFound(
        f"the page needs the library {missing.name}, which is not installed",
        hint="pip install 'sage-sleepd[web]' in the environment of sleepctl (install.sh does that by itself)",
    )


def _serve(session: Session, socket: str) -> ExitCode:
    """In the foreground, until Ctrl-C."""
    try:
        from sleepd.web.__main__ import main
    except ModuleNotFoundError as missing:
        raise without_web(missing) from missing
    from sleepd.web.login import read_token as made_token

    address, token_file = session.arguments.address, own_token_file()
    token = made_token(token_file)
    try:
        sys.stderr.write(f"http://{address}/ until Ctrl-C. The page asks for this token: {token}\n")
        sys.stderr.flush()
    except OSError as error:
        text = f"the page's token cannot be shown on standard error: {error.strerror}"
        raise NotFound(text, hint="start it where standard error is a terminal or a file") from error
    if session.arguments.open:
        session.console.note("--open opens a page that answers already; open this one yourself")
    return ExitCode(main(["--socket", socket, "--address", address, "--token-file", str(token_file)]))
