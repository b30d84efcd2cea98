"""The root key and its slots: each slot holds the root key wrapped under a key of its own (FORMAT.md 9.3), as in LUKS.

The KMS opens with any one of them, and a slot can be added or dropped without touching any other key.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from envfs.crypto.kdf import KEY_SIZE, Label, derive
from envfs.crypto.secret import Secret
from envfs.errors import ConfigError, FormatError
from envfs.kms.schema import RootSlotRow, encode_fields

KEY_FILE: Final = "keyfile"
PASSPHRASE: Final = "passphrase"  # noqa: S105 - the name of a kind of slot
KEY_FILE_NAME: Final = "root.key"

_SLOT_ID_SIZE: Final = 16
_ZERO_NONCE: Final = bytes(12)
_ARGON2: Final = struct.Struct(">III16s")
# Parameters are read before anything is authenticated: a database from a stranger must not exhaust this machine.
_MAX_MEMORY_KIB: Final = 4 * 1024 * 1024
_MAX_ITERATIONS: Final = 100
_MAX_LANES: Final = 64


@dataclass(frozen=True, slots=True)
class Argon2Cost:
    """Argon2id's parameters (RFC 9106 section 3.1): memory in KiB, passes over it, lanes.

    The default takes 256 MiB and about 0.4 s on two cores; it lies between the two choices of RFC 9106 section 4.
    """

    memory_kib: int = 262_144
    iterations: int = 2
    lanes: int = 4


class Unlock(Protocol):
    """A way to the key-encryption key of some kind of slot."""

    @property
    def kind(self) -> str:
        """The kind of slot that it opens."""

    def key_encryption_key(self, parameters: bytes) -> Secret:
        """32 bytes. `parameters` are the slot's."""

    def wrong_key(self) -> ConfigError:
        """What to tell the user when no slot opens."""


class KeyFileUnlock:
    """By a file of 32 random bytes that its owner alone may read."""

    kind = KEY_FILE

    def __init__(self, path: Path) -> None:
        self._path = path

    def key_encryption_key(self, parameters: bytes) -> Secret:
        if parameters:
            raise FormatError("a key file slot has no parameters")
        return read_key_file(self._path)

    def wrong_key(self) -> ConfigError:
        return ConfigError(
            f"{self._path} is not the root key file of this KMS",
            hint="put the right key file in its place, or unlock the KMS by its passphrase",
        )


class PassphraseUnlock:
    """By a passphrase, through Argon2id. The passphrase is used byte for byte."""

    kind = PASSPHRASE

    def __init__(self, passphrase: Secret) -> None:
        self._passphrase = passphrase

    def key_encryption_key(self, parameters: bytes) -> Secret:
        if len(parameters) != _ARGON2.size:
            raise FormatError(f"a passphrase slot has {_ARGON2.size} bytes of parameters, not {len(parameters)}")
        memory_kib, iterations, lanes, salt = _ARGON2.unpack(parameters)
        in_range = 8 * lanes <= memory_kib <= _MAX_MEMORY_KIB and 1 <= iterations <= _MAX_ITERATIONS
        if not (in_range and 1 <= lanes <= _MAX_LANES):
            raise FormatError(
                f"a passphrase slot asks for Argon2id with {memory_kib} KiB, {iterations} iterations and {lanes} lanes",
                hint="no envfs writes such a slot: the database is damaged, or not yours",
            )
        function = Argon2id(salt=salt, length=KEY_SIZE, iterations=iterations, lanes=lanes, memory_cost=memory_kib)
        return Secret(function.derive(bytes(self._passphrase.expose())))

    def wrong_key(self) -> ConfigError:
        return ConfigError("the passphrase is wrong", hint="try again; after a typo nothing is changed")


def passphrase_parameters(cost: Argon2Cost) -> bytes:
    """The parameters of a new passphrase slot, with a fresh salt."""
    return _ARGON2.pack(cost.memory_kib, cost.iterations, cost.lanes, os.urandom(16))


def read_key_file(path: Path) -> Secret:
    """The 32 bytes of a key file. ConfigError if it cannot be read, is not such a file, or others may read it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise ConfigError(
            f"the root key file {path} is missing",
            hint="restore it from your backup, or unlock the KMS by its passphrase",
        ) from None
    except OSError as error:
        raise ConfigError(
            f"the root key file {path} cannot be read: {error.strerror}",
            hint="run this as the user who owns the KMS, or reach it through a running mount",
        ) from error
    try:
        _check_key_file(path, os.fstat(descriptor))
        raw = os.read(descriptor, KEY_SIZE)
    finally:
        os.close(descriptor)
    if len(raw) != KEY_SIZE:
        raise ConfigError(f"{path} could not be read whole")
    return Secret(raw)


def _check_key_file(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode) or status.st_size != KEY_SIZE:
        raise ConfigError(f"{path} is no root key file: it is not a file of {KEY_SIZE} bytes")
    if status.st_mode & 0o077:
        raise ConfigError(f"{path} can be read by others than its owner", hint=f"chmod 0400 {path}")
    if status.st_uid not in {0, os.geteuid()}:
        raise ConfigError(
            f"{path} belongs to another user (uid {status.st_uid})", hint=f"chown it to uid {os.geteuid()}"
        )


def seal_slot(root_key: Secret, store_id: bytes, unlock: Unlock, parameters: bytes, created: int) -> RootSlotRow:
    """A new slot that `unlock` opens."""
    slot_id = os.urandom(_SLOT_ID_SIZE)
    with unlock.key_encryption_key(parameters) as key:
        cipher = AESGCM(derive(key, Label.ROOT_SLOT, slot_id))
    # A fixed nonce is unique here: the slot id has just been drawn, so this key encrypts nothing else.
    wrapped = cipher.encrypt(_ZERO_NONCE, root_key.expose(), _slot_fields(store_id, slot_id, unlock.kind, parameters))
    return RootSlotRow(slot_id, unlock.kind, parameters, wrapped, created)


def open_slots(slots: Sequence[RootSlotRow], store_id: bytes, unlock: Unlock) -> Secret:
    """The root key out of the first slot that `unlock` opens. ConfigError if there is no slot of its kind, or none
    opens.
    """
    candidates = [slot for slot in slots if slot.kind == unlock.kind]
    if not candidates:
        kinds = ", ".join(sorted({slot.kind for slot in slots})) or "nothing"
        raise ConfigError(f"this KMS is not unlocked by a {unlock.kind}", hint=f"it is unlocked by: {kinds}")
    for slot in candidates:
        with unlock.key_encryption_key(slot.parameters) as key:
            cipher = AESGCM(derive(key, Label.ROOT_SLOT, slot.slot_id))
        associated = _slot_fields(store_id, slot.slot_id, slot.kind, slot.parameters)
        try:
            return Secret.adopt(bytearray(cipher.decrypt(_ZERO_NONCE, slot.wrapped, associated)))
        except InvalidTag:
            continue
    raise unlock.wrong_key()


def _slot_fields(store_id: bytes, slot_id: bytes, kind: str, parameters: bytes) -> bytes:
    return encode_fields(("root slot", store_id, slot_id, kind, parameters))
