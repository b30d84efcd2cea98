"""Root-key slots that systemd opens: the key-encryption key is a credential that only this host (or its TPM) decrypts.

https://systemd.io/CREDENTIALS/ and systemd-creds(1). The key passes through pipes and never stands in a file.
"""

from __future__ import annotations

import base64
import binascii
import os
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Final

from envfs.crypto.kdf import KEY_SIZE
from envfs.crypto.secret import Secret
from envfs.errors import ConfigError, FormatError
from envfs.kms.rootkey import MAX_PARAMETERS

CREDENTIAL: Final = "envfs.root-key"  # its name is authenticated by systemd-creds
DIRECTORY_VARIABLE: Final = "CREDENTIALS_DIRECTORY"  # systemd.exec(5)
WITH_KEY: Final = ("auto", "host", "tpm2", "host+tpm2")
_PROGRAM: Final = "systemd-creds"
_TIMEOUT: Final = 60.0  # seconds; some TPMs take several


def encrypt_credential(key: Secret, with_key: str) -> bytes:
    """The parameters of a new slot with this key-encryption key, bound to what `with_key` names. ConfigError."""
    raw = _run(["encrypt", f"--name={CREDENTIAL}", f"--with-key={with_key}", "-", "-"], bytes(key.expose()))
    parameters = b"".join(raw.split())
    if not parameters or len(parameters) > MAX_PARAMETERS:
        raise ConfigError(f"{_PROGRAM} gave a credential of {len(parameters)} bytes")
    return parameters


def decrypt_credential(parameters: bytes) -> Secret:
    """The key-encryption key of a slot. ConfigError if this host cannot decrypt it, FormatError if it is no key."""
    try:
        base64.b64decode(parameters, validate=True)
    except binascii.Error:
        raise FormatError("the parameters of a systemd-creds slot are not base64") from None
    return _key(_run(["decrypt", f"--name={CREDENTIAL}", "-", "-"], parameters))


def passed_credential() -> Secret | None:
    """The key-encryption key that the service manager has decrypted for this service (LoadCredentialEncrypted=); None
    if it has not.
    """
    directory = os.environ.get(DIRECTORY_VARIABLE, "")
    if not directory.startswith("/"):
        return None
    try:
        descriptor = os.open(Path(directory, CREDENTIAL), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        return _key(os.read(descriptor, KEY_SIZE + 1)) if stat.S_ISREG(os.fstat(descriptor).st_mode) else None
    finally:
        os.close(descriptor)


def _key(raw: bytes) -> Secret:
    if len(raw) != KEY_SIZE:
        raise FormatError(f"the credential {CREDENTIAL} has {len(raw)} bytes, not {KEY_SIZE}: it is no key of envfs")
    return Secret(raw)


def _run(arguments: list[str], given: bytes) -> bytes:
    program = shutil.which(_PROGRAM)
    if program is None:
        raise ConfigError(
            f"{_PROGRAM} is not installed", hint="it is part of systemd 250 and later; or use another kind of slot"
        )
    try:
        done = subprocess.run([program, *arguments], input=given, capture_output=True, timeout=_TIMEOUT, check=False)
    except subprocess.TimeoutExpired:
        raise ConfigError(
            f"{_PROGRAM} {arguments[0]} did not end within {_TIMEOUT:.0f} s", hint="is the TPM reachable? try again"
        ) from None
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise ConfigError(
            f"{_PROGRAM} {arguments[0]} failed: {said[-1] if said else f'exit code {done.returncode}'}",
            hint="it needs the host and the user (mostly root) that the slot was made with",
        )
    return done.stdout
