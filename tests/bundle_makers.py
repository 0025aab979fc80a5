"""Keys, checkpoints and bundles for the tests of bundles."""

from __future__ import annotations

import json
import subprocess
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import msgspec

from sleepd.bundles.bundle_sync import BundleSync
from sleepd.bundles.exporting import BundleWritten, gather, write_bundle
from sleepd.config.bundle_config import BundleConfig, SyncConfig
from sleepd.protocol.checkpoint.checkpoint_files import AssignedExperience, Evaluation, Lineage
from sleepd.sleepctl.offline_cycle import cycle_directory
from sleepd.store.checkpoints import Manifest, file_record
from tests.older_trainer import adapter_weights
from tests.sleepctl import sleepctl_scenes as scenes

MADE_AT = datetime(2026, 11, 20, 3, tzinfo=UTC)
FAKE_RCLONE = Path(__file__).parent / "fake_rclone.sh"
BASE = f"{'a' * 64}+{'b' * 64}"


def make_key(path: Path) -> str:
    """An Ed25519 key without a passphrase; returns its public line."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", path], check=True)
    return path.with_name(f"{path.name}.pub").read_text().strip()


def allow(path: Path, **keys: str) -> str:
    """A file of allowed signers with these names; returns its path."""
    path.write_text("".join(f"{name} {key}\n" for name, key in keys.items()))
    return str(path)


def make_cycle(
    state: Path,
    cycle: int = 7,
    *,
    parent: int | None = None,
    ids: tuple[str, ...] = ("one", "two"),
    base: str = BASE,
    lora_shape: str = "r16:all-linear",
    rank: int = 16,
) -> Path:
    """A committed cycle with a small adapter, of whose lineage all is known."""
    directory = state / f"cycle_{cycle:03d}"
    directory.mkdir(parents=True)
    (directory / "adapter_model.safetensors").write_bytes(adapter_weights(rank=rank))
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": 2 * rank}
    (directory / "adapter_config.json").write_text(json.dumps(config))
    evaluation = Evaluation(verdict=scenes.FULL.verdict, report=scenes.FULL.report)
    lineage = Lineage(
        cycle=cycle,
        parent=parent,
        started_at=MADE_AT,
        judged_at=MADE_AT,
        is_forced=False,
        trained=[AssignedExperience(one, f"{number:016x}") for number, one in enumerate(ids)],
        replayed=[],
        held_out=[],
        seen=[],
    )
    for name, document in (("evaluation.json", evaluation), ("lineage.json", lineage)):
        (directory / name).write_bytes(msgspec.json.encode(document))
    manifest = Manifest(
        cycle=cycle,
        parent=parent,
        verdict="promoted",
        reason="better",
        base_fingerprint=base,
        lora_shape=lora_shape,
        strategy="default",
        created_at=MADE_AT.isoformat(),
        files={path.name: file_record(path) for path in directory.iterdir()},
    )
    (directory / "manifest.json").write_bytes(manifest.encoded())
    return directory


def make_bundle(state: Path, target: Path, key: Path, cycle: int = 7, *, with_texts: bool = False) -> BundleWritten:
    """The bundle of a cycle in that state directory."""
    outgoing = gather(cycle, partial(cycle_directory, state), with_texts=with_texts)
    return write_bundle(outgoing, target, key=str(key))


class Machine:
    """A state directory with a key, and its side of a directory or a remote."""

    def __init__(self, home: Path, name: str, shared: Path, *, remote: str = "") -> None:
        self.state = home / name
        self.state.mkdir(parents=True)
        self.shared = shared
        self.remote = remote
        self.name = name
        self.public = make_key(home / f"{name}.key")
        self.signers = home / f"{name}.signers"
        self.key = str(home / f"{name}.key")
        self.notes: list[str] = []
        self.sync = self.restarted()

    def restarted(self, *, keep: int = 3, key: str | None = None) -> BundleSync:
        self.sync = BundleSync(
            self.state,
            SyncConfig(
                directory="" if self.remote else str(self.shared), remote=self.remote, name=self.name, keep=keep
            ),
            BundleConfig(key=self.key if key is None else key, allowed_signers=str(self.signers)),
            find=partial(cycle_directory, self.state),
            note=self.notes.append,
        )
        return self.sync

    def promote(self, cycle: int) -> Path:
        """A cycle that was trained here, sent up."""
        make_cycle(self.state, cycle, ids=(self.name,))
        outgoing = self.sync.outgoing(cycle)
        assert outgoing is not None
        path = Path(self.sync.send(outgoing))
        self.sync.remove_old()
        return path

    def receive(self) -> list[str]:
        """Who sent what came."""
        return [each.signer for each in self.sync.receive(at=MADE_AT)]
