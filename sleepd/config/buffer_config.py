"""The section ``[buffer]`` of the configuration."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta


class BufferConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the experiences come from."""

    path: Annotated[
        str | list[str],
        Meta(
            description="The experience buffer that the agent writes: a file, a directory, a pattern such as "
            "/home/you/sessions/*.jsonl, or a list of these. Must be set."
        ),
    ] = ""
    format: Annotated[
        str,
        Meta(description='"auto": each record is read as what it looks like; or a format of config/README.md.'),
    ] = "auto"
    default_salience: Annotated[
        float, Meta(ge=0.0, le=1.0, description="The salience of an experience that has none and that nobody rated.")
    ] = 0.7
    salience: Annotated[
        Literal["given", "surprise", "both"],
        Meta(
            description='"given": what the record or a rating says, else default_salience. "surprise": instead of '
            "these, how much the reply surprises the base, once a cycle has measured it (at most 24 new ones a cycle, "
            "and what is held out): its loss of L nats a token counts as L / (1 + L), so 1.5 is 0.6; until then "
            'default_salience. "both": what is given, and where nothing is, the surprise. What was rated down stays '
            "out. Of another base the surprise is measured anew."
        ),
    ] = "given"
    settle_seconds: Annotated[
        float,
        Meta(ge=0.0, le=60.0, description="A change is read once the file has not changed for this time."),
    ] = 1.0
    patience_seconds: Annotated[
        float,
        Meta(ge=1.0, le=3600.0, description="A half-written file is an error only after so long."),
    ] = 30.0

    @property
    def paths(self) -> tuple[str, ...]:
        """Each of its paths; none where it is not set."""
        return tuple(path for path in ([self.path] if isinstance(self.path, str) else self.path) if path)

    @property
    def path_text(self) -> str:
        """Its paths for people."""
        return ", ".join(self.paths)
