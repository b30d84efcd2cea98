from __future__ import annotations

import os
from dataclasses import replace

import pytest

from envfs.crypto.secret import Secret
from envfs.errors import FormatError, IntegrityError
from envfs.kms.material.token import ImportToken, open_token, seal_token
from envfs.kms.material.wrapping import WRAPPING_ALGORITHMS, WRAPPING_KEY_SPECS

STORE = bytes(range(16))


@pytest.fixture
def root_key() -> Secret:
    return Secret.random()


SALT = bytes(range(32))


def a_token() -> ImportToken:
    return ImportToken(os.urandom(16), "RSAES_OAEP_SHA_256", "RSA_2048", 1_700_000_000, Secret(b"a private key"))


@pytest.mark.parametrize("algorithm", WRAPPING_ALGORITHMS)
@pytest.mark.parametrize("spec", WRAPPING_KEY_SPECS)
def test_a_token_opens(root_key: Secret, algorithm: str, spec: str) -> None:
    token = replace(a_token(), algorithm=algorithm, wrapping_key_spec=spec)
    raw = seal_token(root_key, STORE, token, SALT)
    assert open_token(root_key, STORE, raw) == token
    assert b"private" not in raw
    assert seal_token(root_key, STORE, token, bytes(32)) != raw


def test_the_longest_fits_into_what_aws_allows(root_key: Secret) -> None:
    """RSA_4096 in PKCS #8 has 2,376 bytes at most."""
    assert len(seal_token(root_key, STORE, replace(a_token(), wrapping_key=Secret(bytes(2376))), SALT)) <= 6144


def test_every_bit_counts(root_key: Secret) -> None:
    raw = seal_token(root_key, STORE, a_token(), SALT)
    for position in range(len(raw)):
        changed = raw[:position] + bytes([raw[position] ^ 0x80]) + raw[position + 1 :]
        with pytest.raises((FormatError, IntegrityError)):
            open_token(root_key, STORE, changed)


@pytest.mark.parametrize("length", [0, 1, 61, 62, 77, 6145])
def test_other_lengths_are_refused(root_key: Secret, length: int) -> None:
    raw = seal_token(root_key, STORE, a_token(), SALT)
    with pytest.raises((FormatError, IntegrityError)):
        open_token(root_key, STORE, (raw + bytes(6145))[:length])


def test_another_kms_does_not_open_it(root_key: Secret) -> None:
    raw = seal_token(root_key, STORE, a_token(), SALT)
    with pytest.raises((FormatError, IntegrityError)):
        open_token(Secret.random(), STORE, raw)
    with pytest.raises((FormatError, IntegrityError)):
        open_token(root_key, bytes(16), raw)
