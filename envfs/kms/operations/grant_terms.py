"""What a grant can say: which operations on which keys, which constraints; and how a request for one is shown to
policies and to the audit trail.

https://docs.aws.amazon.com/kms/latest/developerguide/create-grant-overview.html
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Final

from envfs.errors import FormatError, InvalidGrantId, Validation
from envfs.format.context import encode_context
from envfs.kms.catalogue import Key
from envfs.kms.material.specs import ENCAPSULATE_DECAPSULATE, GENERATE_VERIFY_MAC, KEY_AGREEMENT, SIGN_VERIFY
from envfs.kms.model import ENCRYPT_DECRYPT, SYMMETRIC_DEFAULT, GrantConstraints, RequestFacts
from envfs.kms.policy.request import ConditionValue, GrantTerms

MAX_PAIRS: Final = 8
MAX_VALUE: Final = 384  # characters

_NAME: Final = re.compile(r"[a-zA-Z0-9:/_-]{1,256}")
_GRANT_ID: Final = re.compile(r"[0-9a-f]{64}")

# What a grant can allow, by the usage of its key; symmetric keys have data keys beside, asymmetric ones a public key.
_ON_EVERY_KEY: Final = frozenset({"CreateGrant", "DescribeKey", "RetireGrant"})
_BY_USAGE: Final = {
    ENCRYPT_DECRYPT: frozenset({"Decrypt", "Encrypt", "ReEncryptFrom", "ReEncryptTo"}),
    SIGN_VERIFY: frozenset({"GetPublicKey", "Sign", "Verify"}),
    GENERATE_VERIFY_MAC: frozenset({"GenerateMac", "VerifyMac"}),
    KEY_AGREEMENT: frozenset({"DeriveSharedSecret", "GetPublicKey"}),
    ENCAPSULATE_DECAPSULATE: frozenset({"Decapsulate", "Encapsulate", "GetPublicKey"}),
}
_DATA_KEYS: Final = frozenset({
    "GenerateDataKey", "GenerateDataKeyPair", "GenerateDataKeyPairWithoutPlaintext", "GenerateDataKeyWithoutPlaintext",
})  # fmt: skip
GRANT_OPERATIONS: Final = frozenset().union(_ON_EVERY_KEY, _DATA_KEYS, *_BY_USAGE.values())


def grant_operations_of(spec: str, usage: str) -> frozenset[str]:
    """The operations that a grant on a key of this spec and usage can allow."""
    possible = _ON_EVERY_KEY | _BY_USAGE[usage]
    if usage == ENCRYPT_DECRYPT:
        possible |= _DATA_KEYS if spec == SYMMETRIC_DEFAULT else {"GetPublicKey"}
    return possible


def check_form(terms: GrantTerms, name: str) -> None:
    """What can be said without looking at the key."""
    if name and not _NAME.fullmatch(name):
        raise Validation(f"{name!r} is no name of a grant", hint="use at most 256 letters, digits and :/_-")
    if not terms.operations:
        raise Validation("a grant needs at least one operation")
    unknown = terms.operations - GRANT_OPERATIONS
    if unknown:
        raise Validation(
            f"a grant cannot allow {min(unknown)!r}", hint=f"choose among {', '.join(sorted(GRANT_OPERATIONS))}"
        )
    if terms.constraints is None:
        return
    if len(terms.constraints.types) > 1:
        raise Validation("a grant has either EncryptionContextEquals or EncryptionContextSubset, not both")
    pairs = terms.constraints.pairs
    if not 1 <= len(pairs) <= MAX_PAIRS:
        raise Validation(f"a grant constraint has 1 to {MAX_PAIRS} pairs, not {len(pairs)}")
    if any(len(value) > MAX_VALUE for value in pairs.values()):
        raise Validation(f"a value of a grant constraint has at most {MAX_VALUE} characters")
    try:
        encode_context(pairs)
    except FormatError as error:
        raise Validation(f"grant constraint: {error.message}") from None


def check_possible(terms: GrantTerms, key: Key) -> None:
    """What depends on the key: nobody who may not grant learns its spec from it."""
    possible = grant_operations_of(key.row.spec, key.row.usage)
    impossible = terms.operations - possible
    if impossible:
        raise Validation(
            f"a grant on {key.arn} cannot allow {min(impossible)}: the key is {key.row.spec}, for {key.row.usage}",
            hint=f"choose among {', '.join(sorted(possible))}",
        )
    if terms.constraints is not None and key.row.spec != SYMMETRIC_DEFAULT:
        raise Validation(f"constraints need an encryption context, which operations with {key.row.spec} do not have")


def check_grant_id(grant_id: str) -> None:
    if not _GRANT_ID.fullmatch(grant_id):
        raise InvalidGrantId(f"{grant_id!r} is no grant id", hint="see: envfs grant list")


def condition_facts(
    facts: RequestFacts, terms: GrantTerms, grantee: str, retiring: str
) -> Mapping[str, ConditionValue]:
    """The condition keys of CreateGrant."""
    extra: dict[str, ConditionValue] = {
        **for_resource(facts),
        "kms:granteeprincipal": grantee,
        "kms:grantoperations": tuple(sorted(terms.operations)),
    }
    if retiring:
        extra["kms:retiringprincipal"] = retiring
    if terms.constraints is not None:
        extra["kms:grantconstrainttype"] = terms.constraints.types[0]
    return extra


def for_resource(facts: RequestFacts) -> Mapping[str, ConditionValue]:
    """kms:GrantIsForAWSResource: whether a service asks for somebody; here the filesystem is the one service."""
    return {"kms:grantisforawsresource": "false" if facts.via_service is None else "true"}


def shown_parameters(
    key_id: str,
    grantee: str,
    operations: Collection[str],
    retiring: str,
    constraints: GrantConstraints | None,
    name: str,
) -> dict[str, object]:
    """CloudTrail's requestParameters."""
    shown: dict[str, object] = {
        "requestedKeyId": key_id,
        "granteePrincipal": grantee,
        "operations": sorted(set(operations)),
    }
    if retiring:
        shown["retiringPrincipal"] = retiring
    if constraints is not None:
        shown["constraints"] = {one[0].lower() + one[1:]: dict(constraints.pairs) for one in constraints.types}
    if name:
        shown["name"] = name
    return shown
