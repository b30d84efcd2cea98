"""Grant tokens: the proof that CreateGrant gave the caller this grant (FORMAT.md 9.7).

Stateless: what a token says stands in it, under a MAC. Two tokens of one grant differ, and are worth the same.
"""

from __future__ import annotations

import os
from typing import Final

from envfs.crypto import b64
from envfs.crypto.mac import MAC_SIZE, Mac
from envfs.errors import FormatError, InvalidGrantToken

_KEY_ID_SIZE: Final = 16
_GRANT_ID_SIZE: Final = 32
_NONCE_SIZE: Final = 16
_BODY_SIZE: Final = _KEY_ID_SIZE + _GRANT_ID_SIZE + _NONCE_SIZE


class GrantTokens:
    """Makes and opens the tokens of one KMS."""

    def __init__(self, mac: Mac) -> None:
        self._mac = mac

    def make(self, key_id: bytes, grant_id: str) -> str:
        """A token for a grant (its id is 64 hexadecimal digits), another one each time."""
        # The nonce keeps no secret; it only makes tokens differ, as AWS's do.
        body = key_id + bytes.fromhex(grant_id) + os.urandom(_NONCE_SIZE)
        return b64.encode(body + self._mac.tag(body))

    def open(self, token: str) -> tuple[bytes, str]:
        """The key id and the grant id. InvalidGrantToken if it is no token of this KMS; whether the grant is still
        there is for the caller to see.
        """
        try:
            raw = b64.decode(token)
        except FormatError:
            raw = b""
        body, tag = raw[:_BODY_SIZE], raw[_BODY_SIZE:]
        if len(raw) != _BODY_SIZE + MAC_SIZE or not self._mac.verify(body, tag):
            raise InvalidGrantToken(
                "a grant token is not valid", hint="use the one that CreateGrant answered, unchanged"
            )
        return body[:_KEY_ID_SIZE], body[_KEY_ID_SIZE:-_NONCE_SIZE].hex()
