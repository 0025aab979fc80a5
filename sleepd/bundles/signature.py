"""Who sent a bundle: signatures of OpenSSH (``ssh-keygen -Y``), in a namespace of their own.

The operator's file of allowed signers (ssh-keygen(1), ALLOWED SIGNERS) gives each key a name. This name, and nothing
that the sender writes, is what a foreign adapter is called here. A signature of the same key for another purpose, an
e-mail or a commit, has another namespace and is refused.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from sleepd.errors import BundleInvalid, ConfigError
from sleepd.text.shell import quoted

NAMESPACE: Final = "sage-sleepd-bundle"
_SECONDS: Final = 30.0
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_NO_SIGNERS: Final = "bundle.allowed_signers names a file with one line for each machine: NAME ssh-ed25519 AAAA…"


def sign(content: bytes, key: str) -> bytes:
    """The signature over ``content`` by the private key in the file ``key``.

    With an Ed25519 key the same content has the same signature.

    Raises:
        ConfigError: no key is named, or it cannot sign.
    """
    make = "ssh-keygen -t ed25519 -N '' -f /etc/sage-sleepd/bundle_key, then bundle.key names it"
    if not key:
        raise ConfigError("bundle.key names no key to sign with", hint=make)
    done = _ssh_keygen(["-Y", "sign", "-f", key, "-n", NAMESPACE], content)
    if done.returncode or not done.stdout.startswith(b"-----BEGIN SSH SIGNATURE-----"):
        raise ConfigError(f"{key}: this key cannot sign: {_said(done)}", hint=make)
    return done.stdout


def signer_of(content: bytes, signature: bytes, allowed_signers: str, name: str) -> str:
    """What the operator calls the key that signed ``content``.

    Args:
        content: what was signed.
        signature: as it came.
        allowed_signers: the operator's file.
        name: of the bundle in messages.

    Raises:
        ConfigError: nobody is allowed, or the file can be changed by others.
        BundleInvalid: the signature is of another key, of another content, or none.
    """
    _refuse_open_file(allowed_signers)
    with tempfile.TemporaryDirectory(prefix="sage-sleepd-") as directory:
        file = Path(directory, "signature")
        file.write_bytes(signature)
        common = ["-f", allowed_signers, "-n", NAMESPACE, "-s", str(file)]
        found = _ssh_keygen(["-Y", "find-principals", *common], b"")
        names = found.stdout.decode("utf-8", "replace").split()
        if found.returncode or not names:
            hint = f"if you trust the machine that sent it, add its public key to {allowed_signers}"
            raise BundleInvalid(f"{name}: no allowed signer has signed it: {_said(found)}", hint=hint)
        signer = names[0]
        if not _NAME.fullmatch(signer):
            text = f"{allowed_signers}: expected a plain name for the key that signed {name}, found {signer[:80]!r}"
            raise ConfigError(text, hint="give each key one name of letters and digits, such as thor")
        done = _ssh_keygen(["-Y", "verify", "-I", signer, *common], content)
    if done.returncode:
        text = f"{name}: the signature is not that of {signer} over this content: {_said(done)}"
        raise BundleInvalid(text, hint="have it sent again; it may have been changed on its way")
    return signer


def _refuse_open_file(allowed_signers: str) -> None:
    if not allowed_signers:
        raise ConfigError("bundle.allowed_signers names no file: no sender is trusted", hint=_NO_SIGNERS)
    try:
        status = os.stat(allowed_signers)
    except OSError as error:
        raise ConfigError(f"{allowed_signers}: cannot be read: {error.strerror}", hint=_NO_SIGNERS) from error
    if not stat.S_ISREG(status.st_mode) or status.st_mode & 0o022 or status.st_uid not in (0, os.geteuid()):
        text = f"{allowed_signers}: expected a file that only root or this user may write, found one open to others"
        raise ConfigError(
            text, hint=f"sudo chown root {quoted(allowed_signers)}; sudo chmod go-w {quoted(allowed_signers)}"
        )


def _ssh_keygen(arguments: list[str], content: bytes) -> subprocess.CompletedProcess[bytes]:
    # No terminal and no agent: it may ask nobody for a passphrase.
    environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "SSH_ASKPASS_REQUIRE": "never"}
    program = shutil.which("ssh-keygen")
    if program is None:
        raise ConfigError("ssh-keygen is not installed: it signs bundles", hint="apt install openssh-client")
    try:
        return subprocess.run(
            [program, *arguments],
            input=content,
            capture_output=True,
            env=environment,
            start_new_session=True,
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ConfigError(
            f"ssh-keygen did not end within {_SECONDS:g} s", hint=f"ssh-keygen {' '.join(arguments)}"
        ) from error


def _said(done: subprocess.CompletedProcess[bytes]) -> str:
    lines = done.stderr.decode("utf-8", "replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), f"exit status {done.returncode}")
