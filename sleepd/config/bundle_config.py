"""The section ``[bundle]`` of the configuration: adapters that travel between machines."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta


class BundleConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Read by sleepctl bundle. Nothing leaves this machine, and nothing comes to it, without that command."""

    key: Annotated[
        str,
        Meta(
            description="The private SSH key that signs what is exported, readable by its owner only. "
            "ssh-keygen -t ed25519 -N '' -f FILE makes one. Empty: nothing can be exported."
        ),
    ] = ""
    allowed_signers: Annotated[
        str,
        Meta(
            description="Whose bundles may be imported: a file with a line NAME KEYTYPE KEY for each machine, as "
            "ssh-keygen(1) has it, which only root or the service's user may write. NAME is what its adapters are "
            "called here. Empty: nobody's."
        ),
    ] = ""
