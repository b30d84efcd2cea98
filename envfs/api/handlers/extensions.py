"""envfs's own operations on the KMS as such: who one is, whether it is authentic, and what its audit trail says."""

from __future__ import annotations

from typing import Final

from envfs.api.answers import base64, paging
from envfs.api.handlers.common import Answer, Handler, Members
from envfs.errors import ConfigError, FormatError, IntegrityError, Validation
from envfs.format.evidence import Evidence, Step
from envfs.kms.audit.query import Question
from envfs.kms.engine import Engine
from envfs.kms.model import Principal, RequestFacts
from envfs.kms.sealed_file import open_sealed_file


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


def open_blocks(engine: Engine, principal: Principal, members: Members, facts: RequestFacts) -> Answer:
    """Blocks of a lower file in plain, for a caller who read them himself and whose word counts for nothing.

    `Slot` is the position of the header slot that is authentic; without it, the file is empty. `Problem` says what is
    not authentic. `Plaintext` ends before `DamagedBlock`, if there is one.
    """
    evidence = Evidence(
        members["VolumeFile"],
        tuple(Step(step["Name"], step["File"]) for step in members["Directories"]),
        members["Name"],
        members["Header"],
    )
    try:
        opened = open_sealed_file(engine, principal, evidence, facts, path_is_proven=False)
        if opened is None:
            return {}
        plain, damaged = opened.open(members.get("FirstBlock", 0), members.get("Blocks", b""))
    except ConfigError as error:
        raise Validation(error.message, hint=error.hint) from None
    except (FormatError, IntegrityError) as error:
        return {"Problem": error.message}
    answer: Answer = {"Slot": opened.position, "Plaintext": base64(plain)}
    return answer if damaged is None else {**answer, "DamagedBlock": damaged}


HANDLERS: Final[dict[str, Handler]] = {
    "CheckpointAudit": checkpoint_audit,
    "OpenBlocks": open_blocks,
    "QueryAudit": query_audit,
    "SetAuditDurability": set_audit_durability,
    "VerifyAudit": verify_audit,
    "VerifyStore": verify_store,
    "WhoAmI": who_am_i,
}
