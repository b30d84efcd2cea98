"""Key material that is awkward to leak: no repr, no pickle, no copy, and one explicit way to the raw bytes."""

from __future__ import annotations

import hmac
import os
from typing import NoReturn, Self


class Secret:
    """Owns `len(self)` secret bytes in a buffer of its own, which `wipe` overwrites.

    There is no `__del__` that wipes: `derive(Secret.random().expose(), ...)` would then compute with a buffer of zeros.
    CPython and OpenSSL make copies that cannot be wiped; docs/THREAT_MODEL.md says so.
    """

    __slots__ = ("_buffer", "_wiped")

    def __init__(self, data: bytes | bytearray | memoryview) -> None:
        self._buffer = bytearray(data)
        self._wiped = False

    @classmethod
    def random(cls, length: int = 32) -> Self:
        """`length` bytes of the kernel's random generator, getrandom(2)."""
        return cls.adopt(bytearray(os.urandom(length)))

    @classmethod
    def adopt(cls, buffer: bytearray) -> Self:
        """Takes `buffer` over without a copy: the caller must not use it any more."""
        secret = cls(b"")
        secret._buffer = buffer
        return secret

    def expose(self) -> bytearray:
        """The raw bytes themselves, not a copy: they become zeros when the secret is wiped. ValueError after `wipe`."""
        if self._wiped:
            raise ValueError("the secret has been wiped")
        return self._buffer

    def wipe(self) -> None:
        """Overwrites the bytes with zeros. Harmless when repeated."""
        self._wiped = True
        self._buffer[:] = bytes(len(self._buffer))

    @property
    def is_wiped(self) -> bool:
        return self._wiped

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.wipe()

    def __len__(self) -> int:
        return len(self._buffer)

    def __repr__(self) -> str:
        return f"<Secret of {len(self._buffer)} bytes{', wiped' if self._wiped else ''}>"

    def __eq__(self, other: object) -> bool:
        """Constant-time in the content. A wiped secret equals nothing but itself."""
        if self is other:
            return True
        if not isinstance(other, Secret):
            return NotImplemented
        if self._wiped or other._wiped:
            return False
        return hmac.compare_digest(self._buffer, other._buffer)

    __hash__ = None  # type: ignore[assignment]  # a hash of the content would leak it into tables

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not pickled or copied")

    def __getstate__(self) -> NoReturn:
        raise TypeError("a secret is not pickled or copied")
