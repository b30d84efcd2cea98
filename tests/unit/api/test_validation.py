from __future__ import annotations

import json
from typing import Any

import pytest

from envfs.api.errors import Serialization
from envfs.api.shapes import EXTENSION_OPERATIONS, OPERATIONS
from envfs.api.validation import read_request
from envfs.errors import Validation


def problem(operation: str, request: dict[str, Any]) -> str:
    with pytest.raises(Validation) as caught:
        read_request(OPERATIONS[operation], request)
    return caught.value.message


@pytest.mark.parametrize(
    ("operation", "request_", "message"),
    [
        ("DescribeKey", {}, "Value null at 'keyId' failed to satisfy constraint: Member must not be null"),
        ("DescribeKey", {"KeyId": None}, "Value null at 'keyId' failed to satisfy constraint: Member must not be null"),
        (
            "DescribeKey",
            {"KeyId": ""},
            "Value '' at 'keyId' failed to satisfy constraint: Member must have length greater than or equal to 1",
        ),
        (
            "ListKeys",
            {"Limit": 1001},
            "Value '1001' at 'limit' failed to satisfy constraint: Member must have value less than or equal to 1000",
        ),
        (
            "CreateKey",
            {"KeyUsage": "X"},
            (
                "Value 'X' at 'keyUsage' failed to satisfy constraint: Member must satisfy enum value set:"
                " [SIGN_VERIFY, ENCRYPT_DECRYPT, GENERATE_VERIFY_MAC, KEY_AGREEMENT, ENCAPSULATE_DECAPSULATE]"
            ),
        ),
        (
            "DeleteAlias",
            {"AliasName": "alias/ü"},
            (
                "Value 'alias/ü' at 'aliasName' failed to satisfy constraint:"
                " Member must satisfy regular expression pattern: ^[a-zA-Z0-9:/_-]+$"
            ),
        ),
        (
            "TagResource",
            {"KeyId": "k", "Tags": [{"TagKey": "", "TagValue": ""}]},
            (
                "Value '' at 'tags.1.member.tagKey' failed to satisfy constraint:"
                " Member must have length greater than or equal to 1"
            ),
        ),
        (
            "Encrypt",
            {"KeyId": "k", "Plaintext": ""},
            "Value at 'plaintext' failed to satisfy constraint: Member must have length greater than or equal to 1",
        ),
    ],
)
def test_messages_are_worded_as_aws_words_them(operation: str, request_: dict[str, Any], message: str) -> None:
    assert problem(operation, request_) == f"1 validation error detected: {message}"


def test_all_that_is_wrong_is_told_at_once() -> None:
    assert problem("Verify", {"KeyId": ""}).startswith("4 validation errors detected: Value '' at 'keyId' ")


def test_secrets_are_not_repeated() -> None:
    request = {"CustomKeyStoreId": "c", "KeyStorePassword": "short"}
    assert "short" not in problem("UpdateCustomKeyStore", request)
    assert "token" not in problem("RetireGrant", {"GrantToken": "token" * 2000})


@pytest.mark.parametrize(
    ("operation", "request_"),
    [
        ("DescribeKey", []),
        ("DescribeKey", {"KeyId": 1}),
        ("DescribeKey", {"KeyId": ["k"]}),
        ("DescribeKey", {"KeyId": "\ud800"}),
        ("ListKeys", {"Limit": "1"}),
        ("ListKeys", {"Limit": True}),
        ("ListKeys", {"Limit": 1.5}),
        ("Encrypt", {"KeyId": "k", "Plaintext": "no base64!"}),
        ("Encrypt", {"KeyId": "k", "Plaintext": "YQ"}),
        ("Encrypt", {"KeyId": "k", "Plaintext": "YQ==\n"}),
        ("Encrypt", {"KeyId": "k", "Plaintext": "ü"}),
        ("Encrypt", {"KeyId": "k", "Plaintext": "YQ==", "EncryptionContext": {"a": 1}}),
        ("Encrypt", {"KeyId": "k", "Plaintext": "YQ==", "EncryptionContext": {"a": None}}),
        ("Encrypt", {"KeyId": "k", "Plaintext": "YQ==", "EncryptionContext": {"\udfff": "x"}}),
        ("Encrypt", {"KeyId": "k", "Plaintext": "YQ==", "DryRun": "true"}),
        ("ImportKeyMaterial", {"ValidTo": 1e300}),
        ("ImportKeyMaterial", {"ValidTo": -1}),
        ("TagResource", {"KeyId": "k", "Tags": {"a": "b"}}),
        ("TagResource", {"KeyId": "k", "Tags": ["a"]}),
    ],
)
def test_a_wrong_type_is_no_serialisation_of_the_request(operation: str, request_: object) -> None:
    with pytest.raises(Serialization):
        read_request(OPERATIONS[operation], request_)


def test_what_is_read_is_what_the_engine_takes() -> None:
    raw = '{"KeyId":"k","Plaintext":"YQ==","EncryptionContext":{"a":"b"},"GrantTokens":["t"],"DryRun":true,"New":1}'
    read = read_request(OPERATIONS["Encrypt"], json.loads(raw))
    assert read == {
        "KeyId": "k",
        "Plaintext": b"a",
        "EncryptionContext": {"a": "b"},
        "GrantTokens": ("t",),
        "DryRun": True,
    }
    assert read_request(EXTENSION_OPERATIONS["QueryAudit"], {"StartTime": 5}) == {"StartTime": 5.0}
