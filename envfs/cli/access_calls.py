"""The calls of the KMS that `envfs access` is made of; a refusal names the permission that is missing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from envfs.cli.access_made import Made, of_grant, of_policy
from envfs.cli.answers import every
from envfs.errors import AccessDenied

if TYPE_CHECKING:
    from collections.abc import Iterator

    from envfs.cli.backend import Backend

_TO_USERS_ONLY = (
    "the permission for key administrators is to grant to users other than oneself; for groups, and for oneself, ask "
    "the KMS's owner"
)


class Call(NamedTuple):
    """One call, as --dry-run shows it."""

    operation: str
    request: dict[str, Any]

    @property
    def permission(self) -> tuple[str, str]:
        """What is needed, and on what."""
        target = str(self.request.get("Target", self.request.get("KeyId", "*")))
        if not self.operation.startswith("EnvfsIam."):
            return f"kms:{self.operation}", target
        kind = "Group" if ":group/" in target else "User"
        return f"iam:{self.operation.removeprefix('EnvfsIam.').replace('Policy', f'{kind}Policy')}", target

    def run(self, backend: Backend) -> dict[str, Any]:
        """The answer. AccessDenied says in its hint which permission is missing."""
        try:
            return backend.call(self.operation, self.request)
        except AccessDenied as denied:
            permission, target = self.permission
            denied.hint = f"you lack {permission} on {target}"
            if self.operation == "CreateGrant":
                denied.hint += f"; {_TO_USERS_ONLY}"
            elif permission.startswith("iam:"):
                denied.hint += "; the KMS's owner can give it (envfs iam user-policy put), or do this himself"
            raise


def grants_on(backend: Backend, key_id: str, grantee: str | None = None) -> Iterator[dict[str, Any]]:
    """The grants on a key, all or those of one grantee. AccessDenied."""
    request = {"KeyId": key_id} | ({} if grantee is None else {"GranteePrincipal": grantee})
    yield from every(backend, "ListGrants", request, "Grants")


def policies_of(backend: Backend, target: str) -> list[Made]:
    """The policies of a user or group that `access grant` made. AccessDenied."""
    found = []
    for name in backend.call("EnvfsIam.ListPolicies", {"Target": target})["PolicyNames"]:
        if of_policy_name(name):
            text = backend.call("EnvfsIam.GetPolicy", {"Target": target, "PolicyName": name})["PolicyDocument"]
            found.append(of_policy(target, name, text, 0.0))
    return [made for made in found if made is not None]


def of_policy_name(name: str) -> bool:
    """Whether it may be one of `access grant`'s: the others need not be read."""
    return name.startswith("access-")


def all_policies(backend: Backend) -> Iterator[Made]:
    """Those of everybody. AccessDenied."""
    for one in every(backend, "EnvfsIam.GetAccountAuthorizationDetails", {}, "Policies"):
        made = of_policy(one["Target"], one["PolicyName"], one["PolicyDocument"], one["CreateDate"])
        if made is not None:
            yield made


def made_on_key(backend: Backend, key_id: str, grantee: str | None = None) -> list[Made]:
    """The grants on a key that `access grant` made. AccessDenied."""
    return [made for made in map(of_grant, grants_on(backend, key_id, grantee)) if made is not None]
