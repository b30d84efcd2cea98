"""Keys: making, describing, states, deletion, policies."""

from __future__ import annotations

from typing import Final

from envfs.api.answers import key_metadata, page, paging, present
from envfs.api.handlers.common import (
    DEFAULT_POLICY,
    Answer,
    Handler,
    Members,
    check_policy_name,
    tag_mapping,
)
from envfs.errors import UnsupportedOperation, Validation
from envfs.kms.engine import Engine
from envfs.kms.model import ORIGIN_EXTERNAL, ORIGIN_KMS, SYMMETRIC_DEFAULT, Principal, RequestFacts


def create_key(engine: Engine, principal: Principal, members: Members, facts: RequestFacts) -> Answer:
    spec = members.get("KeySpec")
    older = members.get("CustomerMasterKeySpec")
    if spec is not None and older is not None and spec != older:
        raise Validation("You cannot specify KeySpec and CustomerMasterKeySpec in the same request.")
    origin = members.get("Origin", ORIGIN_KMS)
    if origin not in {ORIGIN_KMS, ORIGIN_EXTERNAL} or "CustomKeyStoreId" in members or "XksKeyId" in members:
        raise UnsupportedOperation("there are no custom key stores here")
    created = engine.create_key(
        principal,
        description=members.get("Description", ""),
        policy=members.get("Policy"),
        bypass_lockout_check=members.get("BypassPolicyLockoutSafetyCheck", False),
        spec=spec or older or SYMMETRIC_DEFAULT,
        usage=members.get("KeyUsage"),
        origin=origin,
        tags=tag_mapping(members.get("Tags", ())),
        multi_region=members.get("MultiRegion", False),
        facts=facts,
    )
    return {"KeyMetadata": key_metadata(created)}


def describe_key(engine: Engine, principal: Principal, members: Members, facts: RequestFacts) -> Answer:
    return {"KeyMetadata": key_metadata(engine.describe_key(principal, members["KeyId"], facts))}


def list_keys(engine: Engine, principal: Principal, members: Members, facts: RequestFacts) -> Answer:
    if "ResourceOwners" in members and "SELF" not in members["ResourceOwners"]:
        return page("Keys", (), None)  # nobody shares keys with this account
    keys, marker = engine.list_keys(principal, **paging(members), facts=facts)
    return page("Keys", ({"KeyId": key.key_id, "KeyArn": key.arn} for key in keys), marker)


def update_key_description(engine: Engine, principal: Principal, members: Members, facts: RequestFacts) -> Answer:
    engine.update_key_description(principal, members["KeyId"], members["Description"], facts)
    return {}


def enable_key(engine: Engine, principal: Principal, members: Members, facts: RequestFacts) -> Answer:
    engine.enable_key(principal, members["KeyId"], facts)
    return {}


def disable_key(engine: Engine, principal: Principal, members: Members, facts: RequestFacts) -> Answer:
    engine.disable_key(principal, members["KeyId"], facts)
    return {}


def schedule_key_deletion(engine: Engine, principal: Principal, members: Members, facts: RequestFacts) -> Answer:
    days = members.get("PendingWindowInDays", 30)
    scheduled = engine.schedule_key_deletion(principal, members["KeyId"], days, facts=facts)
    return {
        "KeyId": scheduled.arn,
        "DeletionDate": float(scheduled.deletion_date),
        "KeyState": scheduled.state.value,
        "PendingWindowInDays": scheduled.days,
    }


def cancel_key_deletion(engine: Engine, principal: Principal, members: Members, facts: RequestFacts) -> Answer:
    return {"KeyId": engine.cancel_key_deletion(principal, members["KeyId"], facts)}


def get_key_last_usage(engine: Engine, principal: Principal, members: Members, facts: RequestFacts) -> Answer:
    found = engine.get_key_last_usage(principal, members["KeyId"], facts)
    answer: Answer = {
        "KeyId": found.arn,
        "TrackingStartDate": float(found.tracking_start),
        "KeyCreationDate": float(found.created),
    }
    if found.usage is not None:
        answer["KeyLastUsage"] = {
            "Operation": found.usage.operation,
            "Timestamp": float(found.usage.timestamp),
            **present(CloudTrailEventId=found.usage.event_id, KmsRequestId=found.usage.request_id),
        }
    return answer


def get_key_policy(engine: Engine, principal: Principal, members: Members, facts: RequestFacts) -> Answer:
    check_policy_name(members)
    return {"Policy": engine.get_key_policy(principal, members["KeyId"], facts), "PolicyName": DEFAULT_POLICY}


def put_key_policy(engine: Engine, principal: Principal, members: Members, facts: RequestFacts) -> Answer:
    check_policy_name(members)
    bypass = members.get("BypassPolicyLockoutSafetyCheck", False)
    engine.put_key_policy(principal, members["KeyId"], members["Policy"], bypass_lockout_check=bypass, facts=facts)
    return {}


def list_key_policies(engine: Engine, principal: Principal, members: Members, facts: RequestFacts) -> Answer:
    return page("PolicyNames", engine.list_key_policies(principal, members["KeyId"], facts), None)


HANDLERS: Final[dict[str, Handler]] = {
    "CancelKeyDeletion": cancel_key_deletion,
    "CreateKey": create_key,
    "DescribeKey": describe_key,
    "DisableKey": disable_key,
    "EnableKey": enable_key,
    "GetKeyLastUsage": get_key_last_usage,
    "GetKeyPolicy": get_key_policy,
    "ListKeyPolicies": list_key_policies,
    "ListKeys": list_keys,
    "PutKeyPolicy": put_key_policy,
    "ScheduleKeyDeletion": schedule_key_deletion,
    "UpdateKeyDescription": update_key_description,
}
