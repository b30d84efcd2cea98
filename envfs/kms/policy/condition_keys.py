"""The condition keys: which there are, and where each request has its value.

https://docs.aws.amazon.com/kms/latest/developerguide/conditions-kms.html; `envfs:…` are extensions. Names are compared
without case. A key that is not here is refused when a policy is put: a misspelt name would silently never (or always)
match.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from envfs.errors import MalformedPolicy
from envfs.kms.policy.request import CannotEvaluate, ConditionValue, KeyFacts, Request

Getter: TypeAlias = Callable[[Request], ConditionValue | None]

CONTEXT_PREFIX: Final = "kms:encryptioncontext:"
_RESOURCE_TAG_PREFIX: Final = "aws:resourcetag/"
_REQUEST_TAG_PREFIX: Final = "aws:requesttag/"
_PRINCIPAL_TAG_PREFIX: Final = "aws:principaltag/"


@dataclass(frozen=True, slots=True)
class ConditionKey:
    """`getter` gives None where the request has no such key."""

    name: str
    getter: Getter
    multi_valued: bool = False
    identity_only: bool = False


def _of_key(read: Callable[[KeyFacts], ConditionValue]) -> Getter:
    def getter(request: Request) -> ConditionValue | None:
        return None if request.key is None else read(request.key)

    return getter


def _extra(name: str) -> Getter:
    key = name.lower()
    return lambda request: request.extra.get(key)


def _key_property(name: str, read: Callable[[KeyFacts], ConditionValue]) -> Getter:
    """A property of the key; where there is none yet (CreateKey), the request's."""
    key = name.lower()

    def getter(request: Request) -> ConditionValue | None:
        return request.extra.get(key) if request.key is None else read(request.key)

    return getter


def _look_up(pairs: Mapping[str, str], name: str, what: str) -> str | None:
    """The value of `name`, whose case does not count in policies."""
    lower = name.lower()
    found: str | None = None
    for key, value in pairs.items():
        if key.lower() == lower:
            if found is not None:
                raise CannotEvaluate(f"{what} several keys {name!r} that differ in case only")
            found = value
    return found


def _encryption_context(name: str) -> Getter:
    lower = name.lower()

    def getter(request: Request) -> str | None:
        # A policy may ask for many: the keys are folded once for each request.
        found = request.folded_context.get(lower)
        if found is None and len(request.folded_context) < len(request.context):
            return _look_up(request.context, name, "the encryption context has")  # perhaps one of several
        return found

    return getter


def _resource_tag(name: str) -> Getter:
    return lambda request: None if request.key is None else _look_up(request.key.tags, name, "the key's tags have")


def _absent(_: Request) -> None:
    """For what a Unix host has not: the condition key exists, and no request has it."""


def _current_time(request: Request) -> str:
    return dt.datetime.fromtimestamp(request.now, dt.UTC).isoformat()


def _path(request: Request) -> str | None:
    """Where the caller has only shown where the file once was, a Deny that asks for the path counts, and an Allow does
    not.
    """
    if not request.facts.path_is_proven:
        raise CannotEvaluate("the path of the file is not proven")
    return request.facts.path


_SIMPLE: Final = (
    ConditionKey("kms:EncryptionContextKeys", lambda request: tuple(request.context), multi_valued=True),
    ConditionKey("kms:ViaService", lambda request: request.facts.via_service),
    ConditionKey("kms:CallerAccount", lambda request: request.principal.arn.split(":")[4]),
    ConditionKey("kms:KeySpec", _key_property("kms:KeySpec", lambda key: key.spec)),
    ConditionKey("kms:KeyUsage", _key_property("kms:KeyUsage", lambda key: key.usage)),
    ConditionKey("kms:KeyOrigin", _key_property("kms:KeyOrigin", lambda key: key.origin)),
    # AWS's former names of two of them, which count still.
    ConditionKey("kms:CustomerMasterKeySpec", _key_property("kms:KeySpec", lambda key: key.spec)),
    ConditionKey("kms:CustomerMasterKeyUsage", _key_property("kms:KeyUsage", lambda key: key.usage)),
    ConditionKey("kms:MultiRegion", _key_property("kms:MultiRegion", lambda _: "false")),
    ConditionKey("kms:MultiRegionKeyType", _absent),
    ConditionKey("kms:PrimaryRegion", _absent),
    ConditionKey("kms:ReplicaRegion", _absent),
    ConditionKey("kms:ResourceAliases", _of_key(lambda key: key.aliases), multi_valued=True, identity_only=True),
    ConditionKey("aws:PrincipalArn", lambda request: request.principal.arn),
    ConditionKey("aws:PrincipalAccount", lambda request: request.principal.arn.split(":")[4]),
    ConditionKey("aws:PrincipalType", lambda request: "Account" if request.principal.is_account_root else "User"),
    ConditionKey("aws:ResourceAccount", lambda request: request.account_id),
    ConditionKey("aws:ViaAWSService", lambda request: "false" if request.facts.via_service is None else "true"),
    ConditionKey("aws:username", lambda request: request.principal.name),
    ConditionKey("aws:userid", lambda request: str(request.principal.uid)),
    ConditionKey("aws:SourceIp", lambda request: request.facts.source_ip),
    ConditionKey("aws:UserAgent", lambda request: request.facts.user_agent),
    ConditionKey("aws:CurrentTime", _current_time),
    ConditionKey("aws:EpochTime", lambda request: str(int(request.now))),
    ConditionKey("envfs:Path", _path),
    ConditionKey("envfs:Access", lambda request: request.facts.access),
)
# Those that some operation has as a parameter: the operation hands them over.
_FROM_OPERATION: Final = (
    "kms:BypassPolicyLockoutSafetyCheck", "kms:DataKeyPairSpec", "kms:EncryptionAlgorithm",
    "kms:ExpirationModel", "kms:GrantConstraintType", "kms:GrantIsForAWSResource", "kms:GranteePrincipal",
    "kms:KeyAgreementAlgorithm", "kms:MacAlgorithm", "kms:MessageType", "kms:ReEncryptOnSameKey",
    "kms:RequestAlias", "kms:RetiringPrincipal", "kms:RotationPeriodInDays",
    "kms:ScheduleKeyDeletionPendingWindowInDays", "kms:SigningAlgorithm", "kms:ValidTo",
    "kms:WrappingAlgorithm", "kms:WrappingKeySpec",
)  # fmt: skip
_FROM_OPERATION_MULTI_VALUED: Final = ("kms:GrantOperations", "aws:TagKeys")

# Those whose name goes on with the name of a pair.
_PREFIXED: Final[dict[str, Callable[[str], Getter]]] = {
    CONTEXT_PREFIX: _encryption_context,
    _RESOURCE_TAG_PREFIX: _resource_tag,
    _REQUEST_TAG_PREFIX: lambda name: _extra(_REQUEST_TAG_PREFIX + name),
    _PRINCIPAL_TAG_PREFIX: lambda _: _absent,
}

_KEYS: Final = {
    key.name.lower(): key
    for key in (
        *_SIMPLE,
        *(ConditionKey(name, _extra(name)) for name in _FROM_OPERATION),
        *(ConditionKey(name, _extra(name), multi_valued=True) for name in _FROM_OPERATION_MULTI_VALUED),
    )
}

# Their names, for the document; with `<key>` or `…` where the name of a pair goes.
CONDITION_KEYS: Final = (
    *(key.name for key in _KEYS.values()),
    "kms:EncryptionContext:<key>", "aws:ResourceTag/<key>", "aws:RequestTag/<key>", "aws:PrincipalTag/…",
)  # fmt: skip


def find_condition_key(name: str) -> ConditionKey:
    """The condition key called `name`, in any case. MalformedPolicy if there is none."""
    lower = name.lower()
    for prefix, make in _PREFIXED.items():
        if lower.startswith(prefix) and len(name) > len(prefix):
            return ConditionKey(name, make(name[len(prefix) :]))
    key = _KEYS.get(lower)
    if key is None:
        raise MalformedPolicy(
            f"{name!r} is no condition key of this KMS", hint="see the list of condition keys in docs/KMS.md"
        )
    return key
