"""envfs's own operations on the KMS as such: who one is, whether it is authentic, and what its audit trail says."""

from __future__ import annotations

from typing import Final

from envfs.api.answers import paging
from envfs.api.handlers.common import Answer, Handler, Members
from envfs.kms.audit.query import Question
from envfs.kms.engine import Engine
from envfs.kms.model import Principal, RequestFacts


def who_am_i(engine: Engine, principal: Principal, _members: Members, _facts: RequestFacts) -> Answer:
    """What the KMS takes the caller for. No permission is needed to learn about oneself, and no record is made."""
    account = engine.account
    return {
        "Arn": principal.arn,
        "Account": account.account_id,
        "UserId": str(principal.uid),
        "UserName": principal.name,
        "GroupArns": sorted(principal.group_arns),
        "IsAccountRoot": principal.is_account_root,
        "Partition": account.partition,
        "Region": account.region,
    }


def verify_store(engine: Engine, principal: Principal, _members: Members, facts: RequestFacts) -> Answer:
    return {"Problems": engine.check_store(principal, facts)}


def verify_audit(engine: Engine, principal: Principal, members: Members, facts: RequestFacts) -> Answer:
    found = engine.check_audit(principal, facts, checkpoint=members.get("Checkpoint"))
    return {
        "Chains": found.chains,
        "Records": found.records,
        "Problems": list(found.problems),
        "Notices": list(found.notices),
    }


def checkpoint_audit(engine: Engine, principal: Principal, _members: Members, facts: RequestFacts) -> Answer:
    return {"Checkpoint": engine.checkpoint_audit(principal, facts)}


def set_audit_durability(engine: Engine, principal: Principal, members: Members, facts: RequestFacts) -> Answer:
    """Without a member it only tells."""
    if "Durable" in members:
        engine.set_audit_durability(principal, facts, on=members["Durable"])
    return {"Durable": engine.audit_is_durable()}


def query_audit(engine: Engine, principal: Principal, members: Members, facts: RequestFacts) -> Answer:
    question = Question(
        start=members.get("StartTime"),
        end=members.get("EndTime"),
        event_name=members.get("EventName"),
        key=members.get("KeyId"),
        user_name=members.get("UserName"),
        error_code=members.get("ErrorCode"),
        path=members.get("Path"),
        volume_id=members.get("VolumeId"),
    )
    newest = members.get("NewestFirst", False)
    records, marker, truncated = engine.query_audit(principal, question, **paging(members), newest=newest, facts=facts)
    # The marker is there at the end, too: it leads to what is written later.
    return {"Records": records[::-1] if newest else records, "NextMarker": marker, "Truncated": truncated}


HANDLERS: Final[dict[str, Handler]] = {
    "CheckpointAudit": checkpoint_audit,
    "QueryAudit": query_audit,
    "SetAuditDurability": set_audit_durability,
    "VerifyAudit": verify_audit,
    "VerifyStore": verify_store,
    "WhoAmI": who_am_i,
}
