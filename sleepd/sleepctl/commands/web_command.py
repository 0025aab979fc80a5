"""``sleepctl web``: where the page is; its token; and the page itself where nobody serves it."""

from __future__ import annotations

import http.client
import os
import sys
from pathlib import Path

from sleepd.errors import NotFound, PermissionDenied, SleepdError, UsageError
from sleepd.protocol.status import SCHEMA
from sleepd.sleepctl.exit_codes import ExitCode
from sleepd.sleepctl.pages.decision_page import line
from sleepd.sleepctl.session import Session
from sleepd.web.web_places import SERVICE_TOKEN

_ANSWER_SECONDS = 10.0
"""The first request starts the service, which takes a second."""


def show_web(session: Session) -> ExitCode:
    """The address, the token, or the page until Ctrl-C."""
    arguments = session.arguments
    address = arguments.address
    if arguments.token:
        answers(address)  # the first request starts the service, which makes its token
        token = read_token(_token_files())
        session.console.show({"schema": SCHEMA, "address": f"http://{address}/", "token": token}, [line(token)])
        return ExitCode.OK
    if not answers(address):
        return _serve(session)
    session.console.show(
        {"schema": SCHEMA, "address": f"http://{address}/", "token": None}, [line(f"http://{address}/")]
    )
    if arguments.open:
        import webbrowser

        if not webbrowser.open(f"http://{address}/"):
            raise NotFound("no browser can be started here", hint=f"open http://{address}/ yourself")
    else:
        session.console.note("the page asks for its token: sudo sleepctl web --token")
    return ExitCode.OK


def answers(address: str) -> bool:
    """Whether the page answers there.

    Raises:
        UsageError: it is no address.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise UsageError(f"--address: expected IP:PORT, found {address!r}", hint="sleepctl web --help")
    connection = http.client.HTTPConnection(host, int(port), timeout=_ANSWER_SECONDS)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().read(16) == b"ok\n"
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def own_token_file() -> Path:
    """Of a page that this user serves without systemd."""
    state = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(state) / "sage-sleep-web" / "token"


def _token_files() -> list[Path]:
    return [Path(SERVICE_TOKEN), own_token_file()]


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


def _serve(session: Session) -> ExitCode:
    """In the foreground, until Ctrl-C."""
    try:
        from sleepd.web.__main__ import main
    except ModuleNotFoundError as missing:
        raise without_web(missing) from missing
    from sleepd.web.login import read_token as made_token

    address, token_file = session.arguments.address, own_token_file()
    token = made_token(token_file)
    sys.stderr.write(f"http://{address}/ until Ctrl-C. The page asks for this token: {token}\n")
    if session.arguments.open:
        session.console.note("--open opens a page that answers already; open this one yourself")
    return ExitCode(main(["--socket", session.places.socket, "--address", address, "--token-file", str(token_file)]))
