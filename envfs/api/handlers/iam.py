"""envfs's own operations on users and groups: their policies, access keys and pins. Named and shaped after AWS IAM."""

from __future__ import annotations

from typing import Any, Final

from envfs.api.answers import page, paging
from envfs.api.handlers.common import Answer, Handler, Members
from envfs.crypto.secret import Secret
from envfs.kms.engine import Engine
from envfs.kms.model import AccessKey, IdentityPolicy, Principal, RequestFacts


def put_policy(engine: Engine, principal: Principal, members: Members, facts: RequestFacts) -> Answer:
    engine.put_identity_policy(principal, members["Target"], members["PolicyName"], members["PolicyDocument"], facts)
    return {}


def get_policy(engine: Engine, principal: Principal, members: Members, facts: RequestFacts) -> Answer:
    name = members["PolicyName"]
    text = engine.get_identity_policy(principal, members["Target"], name, facts)
    return {"Target": members["Target"], "PolicyName": name, "PolicyDocument": text}


def delete_policy(engine: Engine, principal: Principal, members: Members, facts: RequestFacts) -> Answer:
    engine.delete_identity_policy(principal, members["Target"], members["PolicyName"], facts)
    return {}


def list_policies(engine: Engine, principal: Principal, members: Members, facts: RequestFacts) -> Answer:
    return {"PolicyNames": list(engine.list_identity_policies(principal, members["Target"], facts))}


def get_account_authorization_details(
    engine: Engine, principal: Principal, members: Members, facts: RequestFacts
) -> Answer:
    policies, marker = engine.list_all_identity_policies(principal, **paging(members), facts=facts)
    return page("Policies", [_identity_policy(policy) for policy in policies], marker)


def create_access_key(engine: Engine, principal: Principal, members: Members, facts: RequestFacts) -> Answer:
    secret = members.get("SecretAccessKey")
    made = engine.create_access_key(
        principal,
        members["UserName"],
        access_key_id=members.get("AccessKeyId"),
        secret=None if secret is None else Secret(secret.encode("ascii")),
        facts=facts,
    )
    with made.secret:
        return {"AccessKey": {**_access_key(made.key), "SecretAccessKey": made.secret.expose().decode("ascii")}}


def list_access_keys(engine: Engine, principal: Principal, members: Members, facts: RequestFacts) -> Answer:
    keys = engine.list_access_keys(principal, members["UserName"], facts)
    return {"AccessKeyMetadata": [_access_key(key) for key in keys]}


def delete_access_key(engine: Engine, principal: Principal, members: Members, facts: RequestFacts) -> Answer:
    engine.delete_access_key(principal, members["AccessKeyId"], facts)
    return {}


def unpin_user(engine: Engine, principal: Principal, members: Members, facts: RequestFacts) -> Answer:
    engine.unpin_user(principal, members["UserName"], facts)
    return {}


def _identity_policy(policy: IdentityPolicy) -> dict[str, Any]:
    return {
        "Target": policy.target,
        "PolicyName": policy.name,
        "PolicyDocument": policy.document,
        "CreateDate": float(policy.put),
    }


def _access_key(key: AccessKey) -> dict[str, Any]:
    return {"UserName": key.user, "AccessKeyId": key.access_key_id, "CreateDate": float(key.created)}


HANDLERS: Final[dict[str, Handler]] = {
    "CreateAccessKey": create_access_key,
    "DeleteAccessKey": delete_access_key,
    "DeletePolicy": delete_policy,
    "GetAccountAuthorizationDetails": get_account_authorization_details,
    "GetPolicy": get_policy,
    "ListAccessKeys": list_access_keys,
    "ListPolicies": list_policies,
    "PutPolicy": put_policy,
    "UnpinUser": unpin_user,
}
