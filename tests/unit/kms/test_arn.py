from __future__ import annotations

import uuid

import pytest

from envfs.errors import ConfigError, InvalidAliasName, InvalidArn, NotFound
from envfs.kms.arn import Account, KeyReference, is_principal_name
from tests.unit.kms.kit import ACCOUNT

KEY_ID = uuid.UUID("01234567-89ab-4def-8123-456789abcdef")


def test_arns() -> None:
    assert ACCOUNT.key_arn(KEY_ID.bytes) == f"arn:envfs:kms:local:000000000000:key/{KEY_ID}"
    assert ACCOUNT.alias_arn("alias/pay") == "arn:envfs:kms:local:000000000000:alias/pay"
    assert ACCOUNT.user_arn("alice") == "arn:envfs:iam::000000000000:user/alice"
    assert ACCOUNT.group_arn("finance") == "arn:envfs:iam::000000000000:group/finance"
    assert ACCOUNT.root_arn == "arn:envfs:iam::000000000000:root"


@pytest.mark.parametrize("text", [str(KEY_ID), f"arn:envfs:kms:local:000000000000:key/{KEY_ID}"])
def test_a_key_by_id_or_arn(text: str) -> None:
    assert ACCOUNT.parse_reference(text) == KeyReference(KEY_ID.bytes, None)


@pytest.mark.parametrize("text", ["alias/pay", "arn:envfs:kms:local:000000000000:alias/pay"])
def test_a_key_by_alias(text: str) -> None:
    assert ACCOUNT.parse_reference(text) == KeyReference(None, "alias/pay")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("arn:envfs:kms:local:000000000000", InvalidArn),
        (f"arn:envfs:iam:local:000000000000:key/{KEY_ID}", InvalidArn),
        ("arn:envfs:kms:local:000000000000:user/alice", InvalidArn),
        (f"arn:envfs:kms:local:999999999999:key/{KEY_ID}", NotFound),
        (f"arn:aws:kms:local:000000000000:key/{KEY_ID}", NotFound),
        (str(KEY_ID).upper(), NotFound),
        (KEY_ID.hex, NotFound),
        (f"{{{KEY_ID}}}", NotFound),
        ("pay", NotFound),
        ("", NotFound),
        ("alias/", InvalidAliasName),
        ("alias/a b", InvalidAliasName),
        ("alias/" + "a" * 251, InvalidAliasName),
    ],
)
def test_what_names_no_key(text: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        ACCOUNT.parse_reference(text)


@pytest.mark.parametrize("fields", [("", "local", "0" * 12), ("envfs", "Lo", "0" * 12), ("envfs", "local", "1")])
def test_an_account_that_cannot_be_part_of_an_arn(fields: tuple[str, str, str]) -> None:
    with pytest.raises(ConfigError):
        Account(*fields)


@pytest.mark.parametrize("name", ["alice", "Jörg", "first.last@REALM", "DOM\\user", "a-b_c+d"])
def test_names_that_may_stand_in_a_policy(name: str) -> None:
    assert is_principal_name(name)


@pytest.mark.parametrize(
    "name", ["", "*", "a*", "a?", "a:b", "a/b", "${aws:username}", "a b", "a\n", "\udc80", "a" * 129]
)
def test_names_that_may_not(name: str) -> None:
    assert not is_principal_name(name)
