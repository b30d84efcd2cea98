"""Import tokens: the private half of a wrapping key, sealed and handed to the caller, so that nothing is kept
(FORMAT.md 9.6).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from envfs.crypto.aead import TAG_SIZE
from envfs.crypto.kdf import Label, derive
from envfs.crypto.secret import Secret
from envfs.errors import FormatError, IntegrityError, Truncated, UnsupportedVersion
from envfs.kms.material.wrapping import WRAPPING_ALGORITHMS, WRAPPING_KEY_SPECS
from envfs.kms.schema import encode_fields

MAGIC: Final = b"EI"
TOKEN_VERSION: Final = 1
LIFETIME: Final = 24 * 3600
SALT_SIZE: Final = 32
MAX_TOKEN_SIZE: Final = 6144

_HEADER: Final = struct.Struct(">2sBBB16sQ32s")
_ZERO_NONCE: Final = bytes(12)


@dataclass(frozen=True, slots=True)
class ImportToken:
    """`key_id`: the key that it is for; `valid_to` in seconds since 1970; `wrapping_key` as PKCS #8 in DER."""

    key_id: bytes
    algorithm: str
    wrapping_key_spec: str
    valid_to: int
    wrapping_key: Secret


def seal_token(root_key: Secret | bytes, store_id: bytes, token: ImportToken, salt: bytes) -> bytes:
    """The token as its caller gets it. `salt` is 32 fresh random bytes for every call: the key depends on it and serves
    this one encryption.
    """
    algorithm = WRAPPING_ALGORITHMS.index(token.algorithm) + 1
    spec = WRAPPING_KEY_SPECS.index(token.wrapping_key_spec) + 1
    header = _HEADER.pack(MAGIC, TOKEN_VERSION, algorithm, spec, token.key_id, token.valid_to, salt)
    # A fixed nonce is unique here: 256 random bits of salt make a key that encrypts nothing else.
    sealed = _cipher(root_key, salt).encrypt(_ZERO_NONCE, token.wrapping_key.expose(), _associated(store_id, header))
    return header + sealed


def open_token(root_key: Secret | bytes, store_id: bytes, raw: bytes) -> ImportToken:
    """What `seal_token` sealed. Truncated, UnsupportedVersion, FormatError or IntegrityError for everything else;
    whether it is still valid is not looked at.
    """
    if len(raw) < 3:
        raise Truncated(f"import token: {len(raw)} bytes do not even hold its start")
    if raw[:2] != MAGIC:
        raise FormatError("not an import token: it does not begin with EI")
    if raw[2] != TOKEN_VERSION:
        raise UnsupportedVersion(f"import token of version {raw[2]}; this release reads version {TOKEN_VERSION}")
    if len(raw) <= _HEADER.size + TAG_SIZE:
        raise Truncated(f"import token: {len(raw)} bytes, more than {_HEADER.size + TAG_SIZE} are needed")
    if len(raw) > MAX_TOKEN_SIZE:
        raise FormatError(f"import token: {len(raw)} bytes, at most {MAX_TOKEN_SIZE} are possible")
    header = bytes(raw[: _HEADER.size])
    _, _, algorithm, spec, key_id, valid_to, salt = _HEADER.unpack(header)
    if not 1 <= algorithm <= len(WRAPPING_ALGORITHMS) or not 1 <= spec <= len(WRAPPING_KEY_SPECS):
        raise FormatError(f"import token: wrapping algorithm {algorithm} or wrapping key spec {spec} is none")
    try:
        plain = _cipher(root_key, salt).decrypt(_ZERO_NONCE, raw[_HEADER.size :], _associated(store_id, header))
    except InvalidTag:
        raise IntegrityError("the import token is not authentic") from None
    return ImportToken(
        key_id, WRAPPING_ALGORITHMS[algorithm - 1], WRAPPING_KEY_SPECS[spec - 1], valid_to, Secret(plain)
    )


def _cipher(root_key: Secret | bytes, salt: bytes) -> AESGCM:
    return AESGCM(derive(root_key, Label.IMPORT_TOKEN, salt))


def _associated(store_id: bytes, header: bytes) -> bytes:
    return encode_fields(("import token", store_id, header))
