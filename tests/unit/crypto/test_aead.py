from __future__ import annotations

import pytest
from cryptography.exceptions import InvalidTag

from envfs.crypto.aead import NONCE_SIZE, TAG_SIZE, Suite, new_cipher
from envfs.errors import ConfigError

#: From the specifications: key, nonce, associated data, plaintext, ciphertext and tag, all hex.
PUBLISHED = {
    # "The Galois/Counter Mode of Operation", test case 16
    Suite.AES_256_GCM: (
        "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308",
        "cafebabefacedbaddecaf888",
        "feedfacedeadbeeffeedfacedeadbeefabaddad2",
        (
            "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525"
            "b16aedf5aa0de657ba637b39"
        ),
        (
            "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838"
            "c5f61e6393ba7a0abcc9f66276fc6ece0f4e1768cddf8853bb2d551b"
        ),
    ),
    # RFC 8452 appendix C.2
    Suite.AES_256_GCM_SIV: (
        "0100000000000000000000000000000000000000000000000000000000000000",
        "030000000000000000000000",
        "01",
        "0200000000000000",
        "1de22967237a813291213f267e3b452f02d01ae33e4ec854",
    ),
    # RFC 8439 section 2.8.2
    Suite.CHACHA20_POLY1305: (
        "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f",
        "070000004041424344454647",
        "50515253c0c1c2c3c4c5c6c7",
        b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, "
        b"sunscreen would be it.".hex(),
        (
            "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d63dbea45e8ca9671282fafb69da92728b"
            "1a71de0a9e060b2905d6a5b67ecd3b3692ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc"
            "3ff4def08e4b7a9de576d26586cec64b61161ae10b594f09e26a7e902ecbd0600691"
        ),
    ),
}


@pytest.mark.parametrize("suite", list(Suite))
def test_it_is_the_published_algorithm(suite: Suite) -> None:
    key, nonce, associated, plain, sealed = (bytes.fromhex(part) for part in PUBLISHED[suite])
    cipher = new_cipher(suite, key)
    assert cipher.encrypt(nonce, plain, associated) == sealed
    assert cipher.decrypt(nonce, sealed, associated) == plain


@pytest.mark.parametrize("suite", list(Suite))
def test_into_a_buffer_it_is_the_same(suite: Suite) -> None:
    cipher = new_cipher(suite, bytes(32))
    nonce = bytes(NONCE_SIZE)
    sealed = bytearray(5 + TAG_SIZE)
    assert cipher.encrypt_into(nonce, b"plain", b"a", sealed) == len(sealed)
    assert sealed == cipher.encrypt(nonce, b"plain", b"a")
    plain = bytearray(5)
    assert cipher.decrypt_into(nonce, sealed, b"a", plain) == 5
    assert plain == b"plain"


@pytest.mark.parametrize("suite", list(Suite))
def test_a_changed_tag_is_noticed(suite: Suite) -> None:
    cipher = new_cipher(suite, bytes(32))
    sealed = bytearray(cipher.encrypt(bytes(NONCE_SIZE), b"plain", b""))
    sealed[-1] ^= 1
    with pytest.raises(InvalidTag):
        cipher.decrypt(bytes(NONCE_SIZE), sealed, b"")


def test_names() -> None:
    assert [suite.label for suite in Suite] == ["aes-256-gcm", "aes-256-gcm-siv", "chacha20-poly1305"]
    assert all(Suite.from_name(suite.label) is suite for suite in Suite)


@pytest.mark.parametrize("name", ["", "aes-128-gcm", "AES-256-GCM", "1"])
def test_an_unknown_name_says_which_there_are(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Suite.from_name(name)
    assert "chacha20-poly1305" in caught.value.hint


@pytest.mark.parametrize("suite", list(Suite))
def test_a_key_of_another_size_is_refused(suite: Suite) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        new_cipher(suite, bytes(16))
