"""What hangs on keys: aliases, tags, rotation."""

from __future__ import annotations

from typing import Any, Final

from envfs.api.answers import page, paging, present, seconds
from envfs.api.handlers.common import Answer, Handler, Members, tag_mapping
from envfs.kms.engine import Engine
from envfs.kms.model import Alias, Principal, RequestFacts, Rotation


def create_alias(engine: Engine, principal: Principal, members: Members, facts: RequestFacts) -> Answer:
    engine.create_alias(principal, members["AliasName"], members["TargetKeyId"], facts)
    return {}


def update_alias(engine: Engine, principal: Principal, members: Members, facts: RequestFacts) -> Answer:
    engine.update_alias(principal, members["AliasName"], members["TargetKeyId"], facts)
    return {}


def delete_alias(engine: Engine, principal: Principal, members: Members, facts: RequestFacts) -> Answer:
    engine.delete_alias(principal, members["AliasName"], facts)
    return {}


def list_aliases(engine: Engine, principal: Principal, members: Members, facts: RequestFacts) -> Answer:
    aliases, marker = engine.list_aliases(principal, members.get("KeyId"), **paging(members), facts=facts)
    return page("Aliases", map(_alias, aliases), marker)


def _alias(alias: Alias) -> dict[str, Any]:
    return {
        "AliasName": alias.name,
        "AliasArn": alias.arn,
        "TargetKeyId": alias.target_key_id,
        "CreationDate": float(alias.created),
        "LastUpdatedDate": float(alias.updated),
    }


def tag_resource(engine: Engine, principal: Principal, members: Members, facts: RequestFacts) -> Answer:
    engine.tag_resource(principal, members["KeyId"], tag_mapping(members["Tags"]), facts)
    return {}


def untag_resource(engine: Engine, principal: Principal, members: Members, facts: RequestFacts) -> Answer:
    engine.untag_resource(principal, members["KeyId"], members["TagKeys"], facts)
    return {}


def list_resource_tags(engine: Engine, principal: Principal, members: Members, facts: RequestFacts) -> Answer:
    tags, marker = engine.list_resource_tags(principal, members["KeyId"], **paging(members), facts=facts)
    return page("Tags", ({"TagKey": tag.name, "TagValue": tag.value} for tag in tags), marker)


def get_key_rotation_status(engine: Engine, principal: Principal, members: Members, facts: RequestFacts) -> Answer:
    status = engine.get_key_rotation_status(principal, members["KeyId"], facts)
    return {
        "KeyId": status.arn,
        "KeyRotationEnabled": status.enabled,
        **present(RotationPeriodInDays=status.period_days, NextRotationDate=seconds(status.next_rotation)),
    }


def enable_key_rotation(engine: Engine, principal: Principal, members: Members, facts: RequestFacts) -> Answer:
    days = members.get("RotationPeriodInDays", 365)
    engine.enable_key_rotation(principal, members["KeyId"], days, facts=facts)
    return {}


def disable_key_rotation(engine: Engine, principal: Principal, members: Members, facts: RequestFacts) -> Answer:
    engine.disable_key_rotation(principal, members["KeyId"], facts)
    return {}


def rotate_key_on_demand(engine: Engine, principal: Principal, members: Members, facts: RequestFacts) -> Answer:
    return {"KeyId": engine.rotate_key_on_demand(principal, members["KeyId"], facts)}


def list_key_rotations(engine: Engine, principal: Principal, members: Members, facts: RequestFacts) -> Answer:
    include = members.get("IncludeKeyMaterial", "ROTATIONS_ONLY")
    rotations, marker = engine.list_key_rotations(
        principal, members["KeyId"], include=include, **paging(members), facts=facts
    )
    return page("Rotations", map(_rotation, rotations), marker)


def _rotation(rotation: Rotation) -> dict[str, Any]:
    return present(
        KeyId=rotation.key_id,
        KeyMaterialId=rotation.material_id,
        KeyMaterialState=rotation.material_state,
        RotationDate=seconds(rotation.rotated),
        RotationType=rotation.rotation_type,
        KeyMaterialDescription=rotation.description,
        ImportState=rotation.import_state,
        ExpirationModel=rotation.expiration_model,
        ValidTo=seconds(rotation.valid_to),
    )


HANDLERS: Final[dict[str, Handler]] = {
    "CreateAlias": create_alias,
    "DeleteAlias": delete_alias,
    "DisableKeyRotation": disable_key_rotation,
    "EnableKeyRotation": enable_key_rotation,
    "GetKeyRotationStatus": get_key_rotation_status,
    "ListAliases": list_aliases,
    "ListKeyRotations": list_key_rotations,
    "ListResourceTags": list_resource_tags,
    "RotateKeyOnDemand": rotate_key_on_demand,
    "TagResource": tag_resource,
    "UntagResource": untag_resource,
    "UpdateAlias": update_alias,
}
