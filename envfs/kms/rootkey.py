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
from typing import Final, Protocol, TypeAlias

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from envfs.crypto.kdf import KEY_SIZE, Label, derive
from envfs.crypto.secret import Secret
from envfs.errors import ConfigError, FormatError
from envfs.kms.recovery_key import decode_recovery_key, looks_like_recovery_key, recovery_kek
from envfs.kms.schema import RootSlotRow, encode_fields

KEY_FILE: Final = "keyfile"
PASSPHRASE: Final = "passphrase"  # noqa: S105 - the name of a kind of slot
RECOVERY: Final = "recovery"
SYSTEMD_CREDS: Final = "systemd-creds"
AWS_KMS: Final = "aws-kms"
KEY_FILE_NAME: Final = "root.key"
MAX_PARAMETERS: Final = 65_536  # bytes

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


class SlotKey(Protocol):
    """A way to the key-encryption key of one kind of slot."""

    @property
    def kind(self) -> str:
        """The kind of slot that it opens."""

    def key_encryption_key(self, parameters: bytes) -> Secret:
        """32 bytes. `parameters` are the slot's."""

    def wrong_key(self) -> ConfigError:
        """What to tell the user when no slot opens."""

    def wipe(self) -> None:
        """Forgets what it was given: it opens nothing any more that is not on this host."""


@dataclass(frozen=True, slots=True)
class FirstOf:
    """Several ways, of which the first counts that opens a slot."""

    ways: tuple[SlotKey, ...]

    def wipe(self) -> None:
        for way in self.ways:
            way.wipe()


Unlock: TypeAlias = SlotKey | FirstOf


class KeyFileUnlock:
    """By a file of 32 random bytes that its owner alone may read."""

    kind = KEY_FILE

    def __init__(self, path: Path) -> None:
        self._path = path

    def key_encryption_key(self, parameters: bytes) -> Secret:
        # Where a slot says that its key file is counts for whoever looks for it; a key file opens from any place.
        key_file_path(self._path.parent, parameters)
        return read_key_file(self._path)

    def wrong_key(self) -> ConfigError:
        return ConfigError(
            f"{self._path} is not the root key file of this KMS",
            hint="put the right key file in its place, or unlock the KMS by its passphrase",
        )

    def wipe(self) -> None:
        """It keeps nothing: the file is read when it is needed."""


class PassphraseUnlock:
    """By a passphrase, through Argon2id. The passphrase is used byte for byte."""

    kind = PASSPHRASE

    def __init__(self, passphrase: Secret, *, mistyped: str = "") -> None:
        """`mistyped`: what is wrong with it if it was meant to be the recovery key."""
        self._passphrase = passphrase
        self.mistyped = mistyped

    def key_encryption_key(self, parameters: bytes) -> Secret:
        cost = read_passphrase_cost(parameters)
        salt = _ARGON2.unpack(parameters)[3]
        function = Argon2id(
            salt=salt, length=KEY_SIZE, iterations=cost.iterations, lanes=cost.lanes, memory_cost=cost.memory_kib
        )
        return Secret(function.derive(bytes(self._passphrase.expose())))

    def wrong_key(self) -> ConfigError:
        hint = self.mistyped or "try again; after a typo nothing is changed"
        return ConfigError("the passphrase is wrong", hint=hint)

    def wipe(self) -> None:
        self._passphrase.wipe()


class RecoveryUnlock:
    """By the 20 bytes of a recovery key."""

    kind = RECOVERY

    def __init__(self, seed: Secret) -> None:
        self._seed = seed

    def key_encryption_key(self, parameters: bytes) -> Secret:
        if parameters:
            raise FormatError("a recovery slot has no parameters")
        return recovery_kek(self._seed)

    def wrong_key(self) -> ConfigError:
        return ConfigError(
            "this is a recovery key, but not of this KMS", hint="another KMS was made with it, or its slot was removed"
        )

    def wipe(self) -> None:
        self._seed.wipe()


class KekUnlock:
    """By the key-encryption key itself, which was got from elsewhere, for a slot of some kind."""

    def __init__(self, kind: str, key: Secret) -> None:
        self.kind = kind
        self._key = key

    def key_encryption_key(self, parameters: bytes) -> Secret:  # noqa: ARG002 - they were needed to get the key
        return Secret(self._key.expose())

    def wrong_key(self) -> ConfigError:
        return ConfigError(f"no slot of kind {self.kind} opens with the key that was given for it")

    def wipe(self) -> None:
        self._key.wipe()


def typed_unlock(typed: Secret) -> Unlock:
    """What somebody typed where a passphrase is asked for: a passphrase, or the recovery key."""
    text = bytes(typed.expose()).decode("utf-8", "replace")
    try:
        seed = decode_recovery_key(text)
    except FormatError as error:
        if looks_like_recovery_key(text):
            return PassphraseUnlock(typed, mistyped=f"if it is the recovery key: {error.message}")
        return PassphraseUnlock(typed)
    return FirstOf((RecoveryUnlock(seed), PassphraseUnlock(typed)))


def key_file_path(home: Path, parameters: bytes) -> Path:
    """Where the key file of a slot with these parameters is. FormatError if they are no path."""
    if not parameters:
        return home / KEY_FILE_NAME
    try:
        path = Path(parameters.decode("utf-8"))
    except UnicodeDecodeError:
        raise FormatError("the path of a key file slot is no UTF-8") from None
    if not path.is_absolute() or b"\0" in parameters:
        raise FormatError("the path of a key file slot is not absolute")
    return path


def passphrase_parameters(cost: Argon2Cost) -> bytes:
    """The parameters of a new passphrase slot, with a fresh salt."""
    return _ARGON2.pack(cost.memory_kib, cost.iterations, cost.lanes, os.urandom(16))


def read_passphrase_cost(parameters: bytes) -> Argon2Cost:
    """What a passphrase slot asks for. FormatError if it is more than any slot that envfs writes could need."""
    if len(parameters) != _ARGON2.size:
        raise FormatError(f"a passphrase slot has {_ARGON2.size} bytes of parameters, not {len(parameters)}")
    memory_kib, iterations, lanes, _ = _ARGON2.unpack(parameters)
    in_range = 8 * lanes <= memory_kib <= _MAX_MEMORY_KIB and 1 <= iterations <= _MAX_ITERATIONS
    if not (in_range and 1 <= lanes <= _MAX_LANES):
        raise FormatError(
            f"a passphrase slot asks for Argon2id with {memory_kib} KiB, {iterations} iterations and {lanes} lanes",
            hint="no envfs writes such a slot: the database is damaged, or not yours",
        )
    return Argon2Cost(memory_kib, iterations, lanes)


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


def new_slot_id() -> bytes:
    """16 random bytes."""
    return os.urandom(_SLOT_ID_SIZE)


def seal_slot(
    root_key: Secret, store_id: bytes, unlock: SlotKey, parameters: bytes, created: int, slot_id: bytes | None = None
) -> RootSlotRow:
    """A new slot that `unlock` opens. `slot_id`: one that `new_slot_id` has just made for it, where the
    key-encryption key depends on it.
    """
    slot_id = new_slot_id() if slot_id is None else slot_id
    with unlock.key_encryption_key(parameters) as key:
        cipher = AESGCM(derive(key, Label.ROOT_SLOT, slot_id))
    # A fixed nonce is unique here: the slot id has just been drawn, so this key encrypts nothing else.
    wrapped = cipher.encrypt(_ZERO_NONCE, root_key.expose(), _slot_fields(store_id, slot_id, unlock.kind, parameters))
    return RootSlotRow(slot_id, unlock.kind, parameters, wrapped, created)


def open_slots(slots: Sequence[RootSlotRow], store_id: bytes, unlock: Unlock) -> tuple[Secret, RootSlotRow]:
    """The root key, and the first slot that `unlock` opens. ConfigError if there is no slot of its kind, or none
    opens.
    """
    ways = unlock.ways if isinstance(unlock, FirstOf) else (unlock,)
    tried: SlotKey | None = None
    for way in ways:
        for slot in slots:
            if slot.kind != way.kind:
                continue
            tried = way
            root_key = open_slot(slot, store_id, way)
            if root_key is not None:
                return root_key, slot
    if tried is not None:
        raise tried.wrong_key()
    hint = f"it is unlocked by: {', '.join(sorted({slot.kind for slot in slots})) or 'nothing'}"
    if isinstance(unlock, PassphraseUnlock) and unlock.mistyped:
        hint = f"{hint}; {unlock.mistyped}"
    raise ConfigError(f"this KMS is not unlocked by a {ways[0].kind}", hint=hint)


def open_slot(slot: RootSlotRow, store_id: bytes, way: SlotKey) -> Secret | None:
    """The root key out of this slot; None if `way` has another key than it was sealed with."""
    if len(slot.parameters) > MAX_PARAMETERS:
        raise FormatError(f"a slot of the root key has {len(slot.parameters)} bytes of parameters")
    with way.key_encryption_key(slot.parameters) as key:
        cipher = AESGCM(derive(key, Label.ROOT_SLOT, slot.slot_id))
    associated = _slot_fields(store_id, slot.slot_id, slot.kind, slot.parameters)
    try:
        return Secret.adopt(bytearray(cipher.decrypt(_ZERO_NONCE, slot.wrapped, associated)))
    except InvalidTag:
        return None


def _slot_fields(store_id: bytes, slot_id: bytes, kind: str, parameters: bytes) -> bytes:
    return encode_fields(("root slot", store_id, slot_id, kind, parameters))
