"""Vectors of section 9: ciphertext blobs and import tokens."""

from __future__ import annotations

from envfs.crypto.kdf import Label, derive
from envfs.crypto.secret import Secret
from envfs.format.blob import seal_blob
from envfs.format.context import encode_context
from envfs.format.foreign_blob import seal_foreign_blob
from envfs.kms.material.token import ImportToken, seal_token
from tests.vectors.material import (
    FORMAT_ERROR,
    INTEGRITY_ERROR,
    TRUNCATED,
    UNSUPPORTED_VERSION,
    Given,
    VectorFile,
    fails,
    fixed,
    flip,
    gives,
    identifier,
    patch,
)

BACKING_KEY = fixed("backing key")
KEY_ID, BACKING_KEY_ID = identifier("key id"), identifier("backing key id")
SALT = fixed("salt")
DEK_CONTEXT = {"envfs:file": identifier("file id").hex(), "envfs:volume": identifier("volume id").hex()}


def _seal(plaintext: bytes, context: dict[str, str]) -> bytes:
    return seal_blob(BACKING_KEY, KEY_ID, BACKING_KEY_ID, plaintext, encode_context(context), SALT)


def _given(raw: bytes, context: dict[str, str], backing_key: bytes = BACKING_KEY) -> Given:
    return {"backing_key": backing_key.hex(), "context": context, "raw": raw.hex()}


def _blob() -> VectorFile:
    good: dict[str, tuple[bytes, dict[str, str]]] = {
        "wrapped DEK": (fixed("DEK"), DEK_CONTEXT),
        "wrapped DEK with labels": (fixed("DEK"), DEK_CONTEXT | {"project": "apollo"}),
        "one byte, no context": (b"x", {}),
        "4,096 bytes": (b"y" * 4096, {"purpose": "test"}),
    }
    cases = []
    for name, (plaintext, context) in good.items():
        result = {
            "key_id": KEY_ID.hex(),
            "backing_key_id": BACKING_KEY_ID.hex(),
            "salt": SALT.hex(),
            "plaintext": plaintext.hex(),
        }
        cases.append(gives(name, _given(_seal(plaintext, context), context), result))
    raw = _seal(fixed("DEK"), DEK_CONTEXT)
    refused = {
        "nothing": (TRUNCATED, b""),
        "two bytes": (TRUNCATED, raw[:2]),
        "header alone": (TRUNCATED, raw[:68]),
        "no ciphertext": (TRUNCATED, raw[:84]),
        "more than 4,096 bytes": (FORMAT_ERROR, raw + bytes(4096)),
        "another magic": (FORMAT_ERROR, patch(raw, 0, b"KE")),
        "version 2": (UNSUPPORTED_VERSION, patch(raw, 2, b"\2")),
        "version 2, short": (UNSUPPORTED_VERSION, patch(raw, 2, b"\2")[:3]),
        "algorithm 0": (FORMAT_ERROR, patch(raw, 3, b"\0")),
        "algorithm 2": (FORMAT_ERROR, patch(raw, 3, b"\2")),
        "key id changed": (INTEGRITY_ERROR, flip(raw, 4)),
        "backing key id changed": (INTEGRITY_ERROR, flip(raw, 20)),
        "salt changed": (INTEGRITY_ERROR, flip(raw, 36)),
        "ciphertext changed": (INTEGRITY_ERROR, flip(raw, 68)),
        "tag changed": (INTEGRITY_ERROR, flip(raw, -1)),
        "one byte missing": (INTEGRITY_ERROR, raw[:-1]),
        "one byte left over": (INTEGRITY_ERROR, raw + b"\0"),
    }
    cases += [fails(name, failure, _given(broken, DEK_CONTEXT)) for name, (failure, broken) in refused.items()]
    cases += [
        fails("no context", INTEGRITY_ERROR, _given(raw, {})),
        fails("a pair more", INTEGRITY_ERROR, _given(raw, DEK_CONTEXT | {"a": "b"})),
        fails("a value changed", INTEGRITY_ERROR, _given(raw, DEK_CONTEXT | {"envfs:file": "0" * 32})),
        fails("run-together context", INTEGRITY_ERROR, _given(_seal(b"x", {"a": "bc"}), {"ab": "c"})),
        fails("another backing key", INTEGRITY_ERROR, _given(raw, DEK_CONTEXT, fixed("another backing key"))),
        fails("backing key under another label", INTEGRITY_ERROR, _given(raw, DEK_CONTEXT, _mislabelled())),
    ]
    return VectorFile("blob", "9", "a ciphertext blob under an encryption context", cases)


OWN, FOREIGN_SECRET = fixed("own half"), fixed("foreign secret")
FOREIGN = fixed("foreign ciphertext", 184)


def _seal_foreign(plaintext: bytes, context: dict[str, str], foreign: bytes = FOREIGN) -> bytes:
    encoded = encode_context(context)
    return seal_foreign_blob(OWN, FOREIGN_SECRET, KEY_ID, BACKING_KEY_ID, foreign, plaintext, encoded)


def _given_foreign(raw: bytes, context: dict[str, str], own: bytes = OWN, secret: bytes = FOREIGN_SECRET) -> Given:
    return {"own": own.hex(), "foreign_secret": secret.hex(), "context": context, "raw": raw.hex()}


def _foreign_blob() -> VectorFile:
    good: dict[str, tuple[bytes, dict[str, str], bytes]] = {
        "wrapped DEK": (fixed("DEK"), DEK_CONTEXT, FOREIGN),
        "wrapped DEK with labels": (fixed("DEK"), DEK_CONTEXT | {"project": "apollo"}, FOREIGN),
        "smallest": (b"x", {}, b"f"),
        "largest": (b"y" * 4096, {"purpose": "test"}, b"f" * 1024),
    }
    cases = []
    for name, (plaintext, context, foreign) in good.items():
        result = {
            "key_id": KEY_ID.hex(),
            "backing_key_id": BACKING_KEY_ID.hex(),
            "foreign": foreign.hex(),
            "plaintext": plaintext.hex(),
        }
        cases.append(gives(name, _given_foreign(_seal_foreign(plaintext, context, foreign), context), result))
    raw = _seal_foreign(fixed("DEK"), DEK_CONTEXT)
    refused = {
        "nothing": (TRUNCATED, b""),
        "header without its length": (TRUNCATED, raw[:36]),
        "no foreign ciphertext": (TRUNCATED, raw[:38]),
        "no ciphertext": (TRUNCATED, raw[: 38 + 184 + 16]),
        "a length beyond the end": (TRUNCATED, patch(raw, 36, (800).to_bytes(2, "big"))),
        "a foreign ciphertext of no bytes": (FORMAT_ERROR, patch(raw, 36, bytes(2))),
        "a foreign ciphertext of 1,025 bytes": (FORMAT_ERROR, patch(raw + bytes(2000), 36, (1025).to_bytes(2, "big"))),
        "more than 4,096 bytes": (FORMAT_ERROR, raw + bytes(4096)),
        "another magic": (FORMAT_ERROR, patch(raw, 0, b"KE")),
        "version 2": (UNSUPPORTED_VERSION, patch(raw, 2, b"\2")),
        "key id changed": (INTEGRITY_ERROR, flip(raw, 4)),
        "backing key id changed": (INTEGRITY_ERROR, flip(raw, 20)),
        "foreign ciphertext changed": (INTEGRITY_ERROR, flip(raw, 38)),
        "foreign ciphertext a byte shorter": (INTEGRITY_ERROR, patch(raw, 36, (183).to_bytes(2, "big"))),
        "ciphertext changed": (INTEGRITY_ERROR, flip(raw, 38 + 184)),
        "tag changed": (INTEGRITY_ERROR, flip(raw, -1)),
        "one byte missing": (INTEGRITY_ERROR, raw[:-1]),
        "one byte left over": (INTEGRITY_ERROR, raw + b"\0"),
    }
    cases += [fails(name, failure, _given_foreign(broken, DEK_CONTEXT)) for name, (failure, broken) in refused.items()]
    cases += [
        fails("no context", INTEGRITY_ERROR, _given_foreign(raw, {})),
        fails("another half of ours", INTEGRITY_ERROR, _given_foreign(raw, DEK_CONTEXT, own=fixed("another"))),
        fails("another foreign secret", INTEGRITY_ERROR, _given_foreign(raw, DEK_CONTEXT, secret=fixed("another"))),
        fails("a short foreign secret", FORMAT_ERROR, _given_foreign(raw, DEK_CONTEXT, secret=b"short")),
        fails("halves exchanged", INTEGRITY_ERROR, _given_foreign(raw, DEK_CONTEXT, own=FOREIGN_SECRET, secret=OWN)),
    ]
    return VectorFile("foreign_blob", "9", "a ciphertext blob of a foreign key under an encryption context", cases)


def _mislabelled() -> bytes:
    return derive(BACKING_KEY, Label.BACKING_KEY, SALT)


ROOT_KEY, STORE_ID = fixed("root key"), identifier("store id")
WRAPPING_KEY = fixed("wrapping key", 1217)


def _token(algorithm: str, spec: str) -> bytes:
    token = ImportToken(KEY_ID, algorithm, spec, 1_700_000_000, Secret(WRAPPING_KEY))
    return seal_token(ROOT_KEY, STORE_ID, token, SALT)


def _given_token(raw: bytes, root_key: bytes = ROOT_KEY, store_id: bytes = STORE_ID) -> Given:
    return {"root_key": root_key.hex(), "store_id": store_id.hex(), "raw": raw.hex()}


def _import_token() -> VectorFile:
    good = (
        ("RSAES_OAEP_SHA_1", "RSA_2048"),
        ("RSAES_OAEP_SHA_256", "RSA_3072"),
        ("RSA_AES_KEY_WRAP_SHA_1", "RSA_4096"),
        ("RSA_AES_KEY_WRAP_SHA_256", "RSA_2048"),
    )
    cases = []
    for algorithm, spec in good:
        result = {
            "algorithm": algorithm,
            "wrapping_key_spec": spec,
            "key_id": KEY_ID.hex(),
            "valid_to": 1_700_000_000,
            "wrapping_key": WRAPPING_KEY.hex(),
        }
        cases.append(gives(f"{algorithm}, {spec}", _given_token(_token(algorithm, spec)), result))
    raw = _token(*good[1])
    refused = {
        "nothing": (TRUNCATED, b""),
        "two bytes": (TRUNCATED, raw[:2]),
        "header alone": (TRUNCATED, raw[:61]),
        "no private key": (TRUNCATED, raw[:77]),
        "more than 6,144 bytes": (FORMAT_ERROR, raw + bytes(6144)),
        "another magic": (FORMAT_ERROR, patch(raw, 0, b"EK")),
        "version 2": (UNSUPPORTED_VERSION, patch(raw, 2, b"\2")),
        "wrapping algorithm 0": (FORMAT_ERROR, patch(raw, 3, b"\0")),
        "wrapping algorithm 5": (FORMAT_ERROR, patch(raw, 3, b"\5")),
        "wrapping key spec 0": (FORMAT_ERROR, patch(raw, 4, b"\0")),
        "wrapping key spec 4": (FORMAT_ERROR, patch(raw, 4, b"\4")),
        "wrapping algorithm changed": (INTEGRITY_ERROR, patch(raw, 3, b"\1")),
        "wrapping key spec changed": (INTEGRITY_ERROR, patch(raw, 4, b"\1")),
        "key id changed": (INTEGRITY_ERROR, flip(raw, 5)),
        "end of validity changed": (INTEGRITY_ERROR, flip(raw, 28)),
        "salt changed": (INTEGRITY_ERROR, flip(raw, 29)),
        "private key changed": (INTEGRITY_ERROR, flip(raw, 61)),
        "tag changed": (INTEGRITY_ERROR, flip(raw, -1)),
        "one byte missing": (INTEGRITY_ERROR, raw[:-1]),
        "one byte left over": (INTEGRITY_ERROR, raw + b"\0"),
    }
    cases += [fails(name, failure, _given_token(broken)) for name, (failure, broken) in refused.items()]
    cases += [
        fails("another root key", INTEGRITY_ERROR, _given_token(raw, root_key=fixed("another root key"))),
        fails("another store", INTEGRITY_ERROR, _given_token(raw, store_id=identifier("another store id"))),
    ]
    return VectorFile("import_token", "9.6", "an import token under the root key of a store", cases)


def vector_files() -> list[VectorFile]:
    return [_blob(), _foreign_blob(), _import_token()]
