from __future__ import annotations

import pytest

from envfs.crypto.mac import Mac, mac, verify

#: RFC 4231, test cases 1, 2 and 6: key, data, HMAC-SHA256.
PUBLISHED = [
    (b"\x0b" * 20, b"Hi There", "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"),
    (b"Jefe", b"what do ya want for nothing?", "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"),
    (
        b"\xaa" * 131,
        b"Test Using Larger Than Block-Size Key - Hash Key First",
        "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
    ),
]


@pytest.mark.parametrize(("key", "data", "tag"), PUBLISHED)
def test_it_is_hmac_sha256(key: bytes, data: bytes, tag: str) -> None:
    assert mac(key, data).hex() == tag
    assert Mac(key).tag(data).hex() == tag


def test_a_keyed_one_serves_many_times() -> None:
    keyed = Mac(b"key")
    assert [keyed.tag(data) for data in (b"a", b"b", b"a")] == [mac(b"key", data) for data in (b"a", b"b", b"a")]


@pytest.mark.parametrize("tag", [b"", mac(b"key", b"data")[:31], mac(b"key", b"other"), bytes(32)])
def test_a_wrong_tag_is_refused(tag: bytes) -> None:
    assert not verify(b"key", b"data", tag)
    assert not Mac(b"key").verify(b"data", tag)


def test_the_right_tag_is_accepted_from_every_buffer() -> None:
    tag = mac(b"key", b"data")
    assert verify(bytearray(b"key"), memoryview(b"data"), memoryview(tag))
    assert Mac(b"key").verify(b"data", bytearray(tag))
