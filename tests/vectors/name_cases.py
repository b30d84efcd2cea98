"""Vectors of sections 6 and 7: names, symlinks, extended attributes."""

from __future__ import annotations

import hashlib

from envfs.crypto.b64 import encode_bytes
from envfs.crypto.kdf import Label, derive
from envfs.crypto.secret import Secret
from envfs.crypto.siv import Siv
from envfs.format.place import ANYWHERE, Where
from envfs.format.symlink import link_file_for, to_text
from envfs.format.volume_keys import VolumeKeys
from tests.vectors.material import (
    FORMAT_ERROR,
    INTEGRITY_ERROR,
    TRUNCATED,
    Given,
    VectorFile,
    fails,
    fixed,
    flip,
    gives,
    identifier,
)

VOLUME_KEY = fixed("volume key")
KEYS = VolumeKeys(Secret(VOLUME_KEY))
PARENT, OTHER_PARENT = identifier("parent"), identifier("another parent")
OBJECT = identifier("object")


def _name() -> VectorFile:
    siv = Siv(derive(VOLUME_KEY, Label.NAMES, length=64))

    def given(cipher_name: bytes, directory: bytes = PARENT) -> Given:
        return {"volume_key": VOLUME_KEY.hex(), "directory_id": directory.hex(), "cipher_name": cipher_name.decode()}

    def sealed(name: bytes) -> bytes:
        return encode_bytes(siv.encrypt(name, PARENT))

    names = [b"a", b"hello.txt", "Grüße".encode(), b"\xff not UTF-8", b"envfs.dir", b"...", b"x" * 175, b"x" * 176]
    names.append(b"y" * 255)
    cases = []
    for name in names:
        cipher = KEYS.names.encrypt(PARENT, name)
        title = name.decode(errors="replace") if len(name) < 20 else f"{len(name)} bytes"
        cases.append(gives(title, given(cipher.full), {"name": name.hex(), "lower_name": cipher.lower.decode()}))
    for title, name in {
        "empty": b"",
        "dot": b".",
        "dot dot": b"..",
        "slash": b"../etc/passwd",
        "zero byte": b"a\0b",
        "256 bytes": b"x" * 256,
    }.items():
        cases.append(fails(f"authentic, but no name: {title}", FORMAT_ERROR, given(sealed(name))))
    good = sealed(b"hello.txt")
    cases += [
        fails("not base64url", FORMAT_ERROR, given(b"hello.txt")),
        fails("with padding", FORMAT_ERROR, given(sealed(b"a") + b"=")),
        fails("shorter than a SIV", INTEGRITY_ERROR, given(good[:8])),
        fails("nothing", INTEGRITY_ERROR, given(b"")),
        fails("changed", INTEGRITY_ERROR, given(b"A" + good[1:] if good[:1] != b"A" else b"B" + good[1:])),
        fails("of another directory", INTEGRITY_ERROR, given(good, OTHER_PARENT)),
    ]
    return VectorFile("name", "6", "from a cipher name in its full length to the name", cases)


def _name_file() -> VectorFile:
    cipher = KEYS.names.encrypt(PARENT, b"x" * 176)
    longest = KEYS.names.encrypt(PARENT, b"x" * 255)
    other = KEYS.names.encrypt(PARENT, b"z" * 176)
    short = KEYS.names.encrypt(PARENT, b"x" * 175)

    def given(lower: bytes, content: bytes) -> Given:
        return {"lower_name": lower.decode(), "content": content.hex()}

    def file_name(lower: bytes) -> str:
        return "envfs.name." + lower.decode().removeprefix("envfs.long.")

    cases = [
        gives(
            f"{len(entry.full)} characters",
            given(entry.lower, entry.full),
            {"cipher_name": entry.full.decode(), "name_file": file_name(entry.lower)},
        )
        for entry in (cipher, longest)
    ]
    cases += [
        fails("another entry's", INTEGRITY_ERROR, given(cipher.lower, other.full)),
        fails("line feed behind it", INTEGRITY_ERROR, given(cipher.lower, cipher.full + b"\n")),
        fails("empty", FORMAT_ERROR, given(cipher.lower, b"")),
        fails("a name that is not long", FORMAT_ERROR, given(cipher.lower, short.full)),
        fails("too long for any name", FORMAT_ERROR, given(cipher.lower, b"A" * 363)),
    ]
    return VectorFile("name_file", "6", "the content of a name file beside the entry `lower_name`", cases)


def _symlink() -> VectorFile:
    link_id = identifier("link")
    here, before, elsewhere = Where(PARENT, b"name"), Where(OTHER_PARENT, b"old"), Where(PARENT, b"other")

    def text_of(payload: bytes) -> bytes:
        text = to_text(payload)
        assert text is not None
        return text

    def given(text: bytes, where: Where = here) -> Given:
        return {
            "volume_key": VOLUME_KEY.hex(),
            "text": text.decode(),
            "parent_id": where.parent_id.hex(),
            "cipher_name": where.cipher_name.decode(),
        }

    def result(target: bytes) -> Given:
        return {"link_id": link_id.hex(), "target": target.hex()}

    seal = KEYS.symlinks.seal
    payload = seal(link_id, b"../target", here)
    renamed = text_of(seal(link_id, b"../target", here, before))
    siv = Siv(derive(VOLUME_KEY, Label.SYMLINK, length=64))
    cases = [
        gives("relative", given(text_of(payload)), result(b"../target")),
        gives("absolute, not UTF-8", given(text_of(seal(link_id, b"/\xff", here))), result(b"/\xff")),
        gives("3,007 bytes", given(text_of(seal(link_id, b"x" * 3007, here))), result(b"x" * 3007)),
        gives("during a rename, at the new place", given(renamed), result(b"../target")),
        gives("during a rename, at the old place", given(renamed, before), result(b"../target")),
        gives(
            "several hard links",
            given(text_of(seal(link_id, b"t", ANYWHERE, before)), elsewhere),
            result(b"t"),
        ),
        fails("elsewhere", INTEGRITY_ERROR, given(renamed, elsewhere)),
        fails("link id changed", INTEGRITY_ERROR, given(text_of(flip(payload, 0)))),
        fails("tag changed", INTEGRITY_ERROR, given(text_of(flip(payload, 16)))),
        fails("SIV changed", INTEGRITY_ERROR, given(text_of(flip(payload, 48)))),
        fails("target changed", INTEGRITY_ERROR, given(text_of(flip(payload, -1)))),
        fails("link id of another symlink", INTEGRITY_ERROR, given(text_of(identifier("x") + payload[16:]))),
        fails("nothing", TRUNCATED, given(b"")),
        fails("no target", TRUNCATED, given(text_of(payload[:48] + siv.encrypt(b"", link_id)))),
        fails("a plain target", FORMAT_ERROR, given(b"../target")),
        fails("padding", FORMAT_ERROR, given(text_of(seal(link_id, b"t", here)) + b"=")),
        fails("4,096 characters", FORMAT_ERROR, given(encode_bytes(seal(link_id, b"x" * 3008, here)))),
        fails(
            "authentic, with a zero byte",
            FORMAT_ERROR,
            given(text_of(payload[:48] + siv.encrypt(b"a\0b", link_id))),
        ),
    ]
    return VectorFile("symlink", "7", "the target of a lower symlink that was found at a place", cases)


def _link_file() -> VectorFile:
    link_id = identifier("link")
    here = Where(PARENT, b"name")
    long_one = KEYS.symlinks.seal(link_id, b"x" * 3008, here)
    longest = KEYS.symlinks.seal(link_id, b"y" * 4095, here)
    short = KEYS.symlinks.seal(link_id, b"x" * 3007, here)
    name = link_file_for(link_id)

    def given(file_name: bytes, content: bytes) -> Given:
        return {"name": file_name.decode(), "content": content.hex()}

    cases = [
        gives("target of 3,008 bytes", given(name, long_one), {"link_id": link_id.hex()}),
        gives("target of 4,095 bytes", given(name, longest), {"link_id": link_id.hex()}),
        fails("empty", TRUNCATED, given(name, b"")),
        fails("64 bytes", TRUNCATED, given(name, long_one[:64])),
        fails("one byte too long", FORMAT_ERROR, given(name, longest + b"x")),
        fails("a target that is not long", FORMAT_ERROR, given(name, short)),
        fails("another symlink's", INTEGRITY_ERROR, given(link_file_for(identifier("other")), long_one)),
        fails("name in capitals", INTEGRITY_ERROR, given(name.upper().replace(b"ENVFS.LINK", b"envfs.link"), long_one)),
    ]
    return VectorFile("link_file", "7", "the content of a link file; what it holds is opened as in symlink.json", cases)


def _xattr() -> VectorFile:
    seal, lower_name = KEYS.xattrs.seal, KEYS.xattrs.name

    def given(lower: bytes, sealed: bytes, object_id: bytes = OBJECT) -> Given:
        return {
            "volume_key": VOLUME_KEY.hex(),
            "object_id": object_id.hex(),
            "lower_name": lower.decode(),
            "lower_value": sealed.hex(),
        }

    name = b"user.comment"
    lower, sealed = lower_name(OBJECT, name), seal(OBJECT, name, b"value")
    other = lower_name(OBJECT, b"user.other")
    longest, long = b"user." + b"n" * 162, b"user." + b"n" * 250
    shortest_long = longest + b"n"
    lower_long, sealed_long = lower_name(OBJECT, long), seal(OBJECT, long, b"value")
    siv = Siv(derive(VOLUME_KEY, Label.XATTR, length=64))
    sealed_short = siv.encrypt(name, OBJECT, b"name")
    by_hash = b"user.envfs.long." + encode_bytes(hashlib.sha256(encode_bytes(sealed_short)).digest())
    no_name = b"user.envfs." + encode_bytes(siv.encrypt(b"", OBJECT, b"name"))
    foreign: Given = {"foreign": True}
    cases = [
        gives("text", given(lower, sealed), {"name": name.hex(), "value": b"value".hex()}),
        gives("empty value", given(lower, seal(OBJECT, name, b"")), {"name": name.hex(), "value": ""}),
        gives(
            "name that is not UTF-8",
            given(lower_name(OBJECT, b"user.\xff"), seal(OBJECT, b"user.\xff", b"v")),
            {"name": b"user.\xff".hex(), "value": b"v".hex()},
        ),
        gives("another prefix", given(b"user.comment", sealed), foreign),
        gives("another object's", given(lower, sealed, PARENT), foreign),
        gives("not base64url", given(b"user.envfs.*", sealed), foreign),
        gives("prefix alone", given(b"user.envfs.", sealed), foreign),
        gives("authentic, but no name", given(no_name, seal(OBJECT, b"", b"v")), foreign),
        gives(
            "longest name that fits",
            given(lower_name(OBJECT, longest), seal(OBJECT, longest, b"v")),
            {"name": longest.hex(), "value": b"v".hex()},
        ),
        gives(
            "shortest name stored by hash",
            given(lower_name(OBJECT, shortest_long), seal(OBJECT, shortest_long, b"")),
            {"name": shortest_long.hex(), "value": ""},
        ),
        gives("long name", given(lower_long, sealed_long), {"name": long.hex(), "value": b"value".hex()}),
        gives("long name, another object's", given(lower_long, sealed_long, PARENT), foreign),
        gives("long name, another hash", given(lower_name(OBJECT, shortest_long), sealed_long), foreign),
        gives("long name, its length cut off", given(lower_long, sealed_long[:1]), foreign),
        gives("long name, cut off", given(lower_long, sealed_long[:100]), foreign),
        gives("long name, damaged", given(lower_long, flip(sealed_long, 20)), foreign),
        gives("short name stored by hash", given(by_hash, b"\0\x1c" + sealed_short + sealed), foreign),
        fails("long name, value changed", INTEGRITY_ERROR, given(lower_long, flip(sealed_long, -1))),
        fails("long name, no value", INTEGRITY_ERROR, given(lower_long, sealed_long[: 2 + 16 + 255])),
        fails("value of another attribute", INTEGRITY_ERROR, given(other, sealed)),
        fails("value changed", INTEGRITY_ERROR, given(lower, flip(sealed, -1))),
        fails("value shorter than a SIV", INTEGRITY_ERROR, given(lower, sealed[:15])),
        fails("no value", INTEGRITY_ERROR, given(lower, b"")),
        fails(
            "a name as the value",
            INTEGRITY_ERROR,
            given(lower, siv.encrypt(b"user.comment", OBJECT, b"name")),
        ),
    ]
    return VectorFile("xattr", "7", "a lower attribute; foreign: not part of the volume", cases)


def vector_files() -> list[VectorFile]:
    return [_name(), _name_file(), _symlink(), _link_file(), _xattr()]
