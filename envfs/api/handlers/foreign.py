"""Keys that stand for keys of another KMS: envfs's own operations on them."""

from __future__ import annotations

from typing import Final

from envfs.api.answers import key_metadata, present
from envfs.api.handlers.common import Answer, Handler, Members, tag_mapping
from envfs.kms.engine import Engine
from envfs.kms.foreign.configuration import ForeignKey
from envfs.kms.model import ORIGIN_FOREIGN, Principal, RequestFacts


def create_foreign_key(engine: Engine, principal: Principal, members: Members, facts: RequestFacts) -> Answer:
    place = ForeignKey(
        members["ForeignKeyId"], members["Region"], members.get("EndpointUrl", ""), members.get("Profile", "")
    )
    created = engine.create_key(
        principal,
        description=members.get("Description", ""),
        policy=members.get("Policy"),
        bypass_lockout_check=members.get("BypassPolicyLockoutSafetyCheck", False),
        origin=ORIGIN_FOREIGN,
        tags=tag_mapping(members.get("Tags", ())),
        foreign=place,
        facts=facts,
    )
    return {"KeyMetadata": key_metadata(created)}


def get_foreign_key(engine: Engine, principal: Principal, members: Members, facts: RequestFacts) -> Answer:
    place = engine.get_foreign_key(principal, members["KeyId"], facts)
    return {
        "ForeignKeyId": place.key,
        "Region": place.region,
        **present(EndpointUrl=place.endpoint or None, Profile=place.profile or None),
    }


HANDLERS: Final[dict[str, Handler]] = {"CreateForeignKey": create_foreign_key, "GetForeignKey": get_foreign_key}
