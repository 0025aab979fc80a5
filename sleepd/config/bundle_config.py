"""The sections ``[bundle]`` and ``[sync]`` of the configuration: adapters that travel between machines."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta


class BundleConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Read by sleepctl bundle and sleepctl sync; without them nothing leaves this machine, and nothing comes to it."""

    key: Annotated[
        str,
        Meta(
            description="The private SSH key that signs what is exported, readable by its owner only. "
            "ssh-keygen -t ed25519 -N '' -f FILE makes one. Empty: nothing leaves."
        ),
    ] = ""
    allowed_signers: Annotated[
        str,
        Meta(
            description="Whose bundles may be imported: a file with a line NAME KEYTYPE KEY for each machine, as "
            "ssh-keygen(1) has it, which only root or the service's user may write. NAME is what its adapters are "
            "called here. Empty: nothing comes."
        ),
    ] = ""


class SyncConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Read by sleepctl sync, which sage-sleep-sync.service runs."""

    directory: Annotated[
        str,
        Meta(
            description="A directory that Syncthing, NFS or a like program shows to several machines. What was trained "
            "here goes up after its promotion, what others send comes down. The unit needs ReadWritePaths= for it. "
            "Empty: nothing goes, nothing comes."
        ),
    ] = ""
    remote: Annotated[
        str,
        Meta(
            pattern=r"^(?:[^\s\x00-\x1f-][^\x00-\x1f]*:[^\x00-\x1f]*)?\Z",
            description="In place of a directory: a folder of a remote of rclone (Dropbox, S3, WebDAV and others), as "
            "in dropbox:sage-sleepd. The unit needs the network for it: systemd/20-sync-remote.conf. Empty: none.",
        ),
    ] = ""
    rclone_config: Annotated[
        str,
        Meta(
            description="rclone's own configuration, with the remote and its keys, readable by its owner only. "
            "Empty: rclone.conf in the state directory."
        ),
    ] = ""
    mib_per_second: Annotated[
        float,
        Meta(ge=0.0, le=100000.0, description="How fast bundles may go to the remote and come from it. 0: no limit."),
    ] = 0.0
    name: Annotated[
        str,
        Meta(
            pattern=r"^(?:[A-Za-z0-9][A-Za-z0-9._-]{0,63})?\Z",
            description="How the names of this machine's files begin; they decide nothing. Empty: its host name.",
        ),
    ] = ""
    policy: Annotated[
        Literal["offer", "take", "merge"],
        Meta(
            description='What becomes of the newest bundle of each sender. "offer": it is listed, and you decide '
            '(sleepctl bundle judge). "take": it is judged as soon as no cycle is under way, and goes in use if it '
            'passes the same gates as a candidate that was trained here. "merge": as "offer", and the experiences that '
            "came with it are written into sync.merge_directory, to be trained here."
        ),
    ] = "offer"
    merge_directory: Annotated[
        str,
        Meta(
            description='With policy = "merge": where the experiences of others are written, one file for each bundle '
            "that has texts. It must be a directory that buffer.path names too. They are screened like any, their ids "
            'begin with "from:NAME:", and this machine decides which are held out. The unit sage-sleep-sync needs '
            "ReadWritePaths= for it."
        ),
    ] = ""
    with_texts: Annotated[
        bool,
        Meta(
            description="Whether what goes up holds the experiences of its lineage, without those that hold a secret. "
            "Whoever sees the directory or the remote can read them."
        ),
    ] = False
    keep: Annotated[
        int, Meta(ge=1, le=1000, description="So many of this machine's own bundles stay there, the newest.")
    ] = 3
    minutes: Annotated[float, Meta(ge=0.1, le=1440.0, description="How often bundles go and come.")] = 10.0
