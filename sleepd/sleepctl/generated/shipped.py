"""The files as they are shipped: what ``python -m sleepd.sleepctl.generated`` made."""

from __future__ import annotations

from pathlib import Path

SHARE = Path(__file__).parent / "share"
"""What belongs below ``PREFIX/share``."""
COMPLETIONS = {
    "bash": "bash-completion/completions/sleepctl",
    "zsh": "zsh/site-functions/_sleepctl",
    "fish": "fish/vendor_completions.d/sleepctl.fish",
}
"""By shell: the path of its script below ``SHARE``."""
SCHEMA = "sage-sleepd/experience.schema.json"
"""The path of the JSON Schema of our own lines below ``SHARE``."""


def shared_files() -> dict[str, bytes]:
    """Every file by its path below ``SHARE``."""
    return {str(path.relative_to(SHARE)): path.read_bytes() for path in sorted(SHARE.rglob("*")) if path.is_file()}
