"""Grants."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from envfs.api.answers import page, paging, present
from envfs.api.handlers.common import Answer, Handler, Members, required
from envfs.errors import UnsupportedOperation
from envfs.kms.engine import Engine
from envfs.kms.model import GrantConstraints, Principal, RequestFacts

if TYPE_CHECKING:
    from envfs.kms.model import Grant

_SERVICES: Final = ("GranteeServicePrincipal", "RetiringServicePrincipal")


def create_grant(engine: Engine, principal: Principal, members: Members, facts: RequestFacts) -> Answer:
    _refuse_services(members)
    created = engine.create_grant(
        principal,
        members["KeyId"],
        required(members, "GranteePrincipal"),
        members["Operations"],
        retiring=members.get("RetiringPrincipal", ""),
        constraints=_constraints(members.get("Constraints", {})),
        name=members.get("Name", ""),
        facts=facts,
    )
    return {"GrantToken": created.token, "GrantId": created.grant_id}


def list_grants(engine: Engine, principal: Principal, members: Members, facts: RequestFacts) -> Answer:
    _refuse_services(members)
    grants, marker = engine.list_grants(
        principal,
        members["KeyId"],
        grant_id=members.get("GrantId"),
        grantee=members.get("GranteePrincipal"),
        **paging(members),
        facts=facts,
    )
    return page("Grants", map(_grant, grants), marker)


def list_retirable_grants(engine: Engine, principal: Principal, members: Members, facts: RequestFacts) -> Answer:
    _refuse_services(members)
    retiring = required(members, "RetiringPrincipal")
    grants, marker = engine.list_retirable_grants(principal, retiring, **paging(members), facts=facts)
    return page("Grants", map(_grant, grants), marker)


def retire_grant(engine: Engine, principal: Principal, members: Members, facts: RequestFacts) -> Answer:
    engine.retire_grant(
        principal,
        token=members.get("GrantToken"),
        key_id=members.get("KeyId"),
        grant_id=members.get("GrantId"),
        facts=facts,
    )
    return {}


def revoke_grant(engine: Engine, principal: Principal, members: Members, facts: RequestFacts) -> Answer:
    engine.revoke_grant(principal, members["KeyId"], members["GrantId"], facts)
    return {}


def _constraints(members: Members) -> GrantConstraints | None:
    if "SourceArn" in members:
        raise UnsupportedOperation("grants cannot be constrained to a source ARN here: there are no AWS services")
    if not members:
        return None
    return GrantConstraints(
        equals=members.get("EncryptionContextEquals"), subset=members.get("EncryptionContextSubset")
    )


def _refuse_services(members: Members) -> None:
    if any(name in members for name in _SERVICES):
        raise UnsupportedOperation("there are no AWS services here that could be principals of a grant")


def _grant(grant: Grant) -> dict[str, Any]:
    found = present(
        KeyId=grant.key_arn,
        GrantId=grant.grant_id,
        Name=grant.name,
        CreationDate=float(grant.created),
        GranteePrincipal=grant.grantee,
        RetiringPrincipal=grant.retiring,
        IssuingAccount=grant.issuing_account,
    )
    found["Operations"] = list(grant.operations)
    if grant.constraints is not None:
        found["Constraints"] = {
            name: dict(context)
            for name, context in (
                ("EncryptionContextEquals", grant.constraints.equals),
                ("EncryptionContextSubset", grant.constraints.subset),
            )
            if context is not None
        }
    return found


HANDLERS: Final[dict[str, Handler]] = {
    "CreateGrant": create_grant,
    "ListGrants": list_grants,
    "ListRetirableGrants": list_retirable_grants,
    "RetireGrant": retire_grant,
    "RevokeGrant": revoke_grant,
}
