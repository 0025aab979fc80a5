"""``config``: check a configuration and what it names, or show what is in effect."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from sleepd.errors import ConfigError, NotFound
from sleepd.protocol.status import SCHEMA
from sleepd.sleepctl.exit_codes import ExitCode
from sleepd.sleepctl.pages.decision_page import line
from sleepd.sleepctl.pages.wording import count
from sleepd.sleepctl.session import Session

if TYPE_CHECKING:
    from sleepd.config.schema import Config

MOST_TRIED: Final = 10


def check(session: Session) -> ExitCode:
    """Whether a configuration file is correct, with its drop-ins and the environment."""
    path = session.places.config_file
    if path is None:
        raise NotFound("there is no configuration file", hint="sleepctl config check FILE")
    layered = session.places.load_config()
    if not layered.config.buffer.paths:
        raise ConfigError(
            f"{path}: buffer.path: expected the path of the agent's buffer, found ''", hint=f"set buffer.path in {path}"
        )
    found = _tried(layered.config)
    data = {"schema": SCHEMA, "path": str(path), "drop_ins": layered.files[1:], "is_valid": True, "buffer": found}
    page = [line(f"{file}: correct") for file in layered.files]
    session.console.show(data, [*page, *(line(each["text"], each["style"]) for each in found)])
    return ExitCode.OK


def _tried(config: Config) -> list[dict[str, str]]:
    """What stands in the buffer's files now, as far as the caller may read them: a line for each, ten at most."""
    from sleepd.buffer.digest import Digest
    from sleepd.buffer.learnables import read_settings
    from sleepd.buffer.reading.buffer_paths import find_files
    from sleepd.buffer.reading.direct_reading import RATINGS, read_directly

    files, settings = find_files(config.buffer.paths), read_settings(config.buffer)
    if not files:
        return [{"text": f"{config.buffer.path_text}: no file yet", "style": "yellow"}]
    found: list[dict[str, str]] = []
    for file in files[:MOST_TRIED]:
        digest = Digest("").indexed()
        try:
            for piece in read_directly([str(file)], settings):
                if piece.position == RATINGS:  # they count for each file of the directory, and are told once
                    told = {"text": f"{piece.file}: {piece.found}", "style": "yellow"}
                    found += [told] if told not in found else []
                elif piece.file == file:  # not what a rotation left of it, which has a line of its own
                    digest.add(piece.position, piece.found)
        except OSError as error:
            found.append({"text": f"{file}: {error.strerror or error}", "style": "yellow"})
            continue
        good, bad = len(digest.keys), digest.skipped[:1]
        place = f"{bad[0].position}: " if bad and bad[0].position else ""
        first = f"; {digest.skipped_total} skipped, the first: {place}{bad[0].reason}" if bad else ""
        text = f"{file}: {count(good, 'experience')}{first}" if file.exists() else f"{file}: does not exist yet"
        found.append({"text": text, "style": "" if good else "yellow"})
    if len(files) > MOST_TRIED:
        found.append({"text": f"and {len(files) - MOST_TRIED} more files", "style": "dim"})
    return found


def show(session: Session) -> ExitCode:
    """The configuration in effect, and where each value came from."""
    from sleepd.config.render import fields, render

    layered = session.places.load_config()
    path = session.places.config_file
    source = ", then ".join(layered.files) or "built-in defaults; there is no configuration file"
    origins = {f"{s}.{k}": layered.origins.get(f"{s}.{k}", "default") for s, k, _, _ in fields(layered.config)}
    data = {
        "schema": SCHEMA,
        "path": str(path) if path else None,
        "drop_ins": layered.files[1:],
        "config": msgspec.to_builtins(layered.config),
        "origins": origins,
    }
    title = f"in effect: {source}, then the environment of this command (a service has its own)"
    session.console.show_text(data, render(layered.config, title=title, origins=layered.origins))
    return ExitCode.OK
