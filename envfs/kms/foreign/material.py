"""The key material of a foreign key (FORMAT.md 9.4): 32 random bytes of our own, then where the key is."""

from __future__ import annotations

from typing import Final

from envfs.crypto.secret import Secret
from envfs.kms.foreign.configuration import ForeignKey

OWN_SIZE: Final = 32


def new_material(place: ForeignKey) -> Secret:
    """Fresh material for the key at `place`, whose ARN it names."""
    with Secret.random(OWN_SIZE) as own:
        return Secret(bytes(own.expose()) + place.serialise())


def read_material(material: Secret) -> tuple[Secret, ForeignKey]:
    """The two parts; the caller wipes the first. FormatError."""
    raw = material.expose()
    return Secret(bytes(raw[:OWN_SIZE])), ForeignKey.parse(bytes(raw[OWN_SIZE:]))
