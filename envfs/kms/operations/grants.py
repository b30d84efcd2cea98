"""CreateGrant, ListGrants, ListRetirableGrants, RetireGrant, RevokeGrant.

https://docs.aws.amazon.com/kms/latest/developerguide/grants.html
"""

from __future__ import annotations

import os
from collections.abc import Collection
from typing import Final

from envfs.errors import InvalidArn, LimitExceeded, NotFound, Validation
from envfs.format.context import EMPTY_CONTEXT, encode_context
from envfs.kms.arn import is_principal_name
from envfs.kms.audit.record import Call
from envfs.kms.catalogue import Key, to_grant
from envfs.kms.model import (
    NO_FACTS,
    CreatedGrant,
    Grant,
    GrantConstraints,
    Principal,
    RequestFacts,
)
from envfs.kms.operations.grant_terms import (
    check_form,
    check_grant_id,
    check_possible,
    condition_facts,
    for_resource,
    shown_parameters,
)
from envfs.kms.operations.identity import IdentityOperations
from envfs.kms.operations.on_key import OnKey
from envfs.kms.paging import check_limit, cut, make_marker, read_marker
from envfs.kms.policy.grants import GrantSet
from envfs.kms.policy.request import GrantTerms
from envfs.kms.schema import GRANTS, PINS, GrantRow
from envfs.kms.sealed_store import Transaction

MAX_GRANTS: Final = 50_000  # on one key
MAX_PAGE: Final = 100


class GrantOperations(OnKey, IdentityOperations):
    """A grant lets somebody use one key, from now until it is retired or revoked."""

    def create_grant(
        self,
        principal: Principal,
        key_id: str,
        grantee: str,
        operations: Collection[str],
        *,
        retiring: str = "",
        constraints: GrantConstraints | None = None,
        name: str = "",
        facts: RequestFacts = NO_FACTS,
    ) -> CreatedGrant:
        """Allows `grantee` the `operations` on the key. `grantee` and `retiring` are ARNs: of a user, of a group, of
        the account root.

        With a `name` the same request can be repeated: it then answers the grant that is there, with a new token.
        Validation for terms that AWS or the key does not allow, InvalidArn for no principal, LimitExceeded.
        """
        if constraints is not None and not constraints.types:
            constraints = None
        parameters = shown_parameters(key_id, grantee, operations, retiring, constraints, name)
        with self._recorded("CreateGrant", principal, facts, parameters) as call:
            terms = GrantTerms(frozenset(operations), constraints)
            check_form(terms, name)
            key = self._catalogue.resolve_key(key_id)
            extra = condition_facts(facts, terms, grantee, retiring)
            # For the condition keys on encryption contexts the constraint's pairs count as the request's.
            pairs = {} if constraints is None else constraints.pairs
            self._authorise_key(call, key, extra=extra, context=pairs, proposal=terms)
            check_possible(terms, key)
            for arn in (grantee, retiring) if retiring else (grantee,):
                self._check_principal(arn)
            with self._change(call) as transaction:
                self._current(call, key)
                row = self._make_row(key, grantee, retiring, terms, name)
                grant_id = self._put_grant(transaction, key, row)
                call.response = {"keyId": key.arn, "grantId": grant_id}
        return CreatedGrant(grant_id, self._grant_tokens.make(key.row.key_id, grant_id))

    def list_grants(
        self,
        principal: Principal,
        key_id: str,
        *,
        grant_id: str | None = None,
        grantee: str | None = None,
        limit: int = 50,
        marker: str | None = None,
        facts: RequestFacts = NO_FACTS,
    ) -> tuple[tuple[Grant, ...], str | None]:
        """A page of the key's grants, by id: at most `limit` (1 to 100) after `marker`, and the marker of the next."""
        with self._recorded("ListGrants", principal, facts, {"requestedKeyId": key_id}) as call:
            check_limit(limit, MAX_PAGE)
            if grant_id is not None:
                check_grant_id(grant_id)
            after = read_marker(marker, str)
            key = self._catalogue.resolve_key(key_id)
            self._authorise_key(call, key, extra=for_resource(facts))
            grants = [
                rule.grant
                for rule in self._catalogue.grants(key).rules
                if grant_id in {None, rule.grant.grant_id} and grantee in {None, rule.grant.grantee}
            ]
            return _page(grants, limit, after)

    def list_retirable_grants(
        self,
        principal: Principal,
        retiring: str,
        *,
        limit: int = 50,
        marker: str | None = None,
        facts: RequestFacts = NO_FACTS,
    ) -> tuple[tuple[Grant, ...], str | None]:
        """A page of the grants of all keys whose retiring principal is `retiring`, an ARN; the resource that needs
        kms:ListRetirableGrants.
        """
        parameters = {"retiringPrincipal": retiring}
        with self._recorded("ListRetirableGrants", principal, facts, parameters) as call:
            check_limit(limit, MAX_PAGE)
            after = read_marker(marker, str)
            self._check_principal_form(retiring)
            self._authorise(call, "kms:ListRetirableGrants", retiring)
            rows = self._store.find(GRANTS, retiring=retiring)
            return _page([to_grant(row, self._account) for row in rows], limit, after)

    def retire_grant(
        self,
        principal: Principal,
        *,
        token: str | None = None,
        key_id: str | None = None,
        grant_id: str | None = None,
        facts: RequestFacts = NO_FACTS,
    ) -> None:
        """Removes a grant whose work is done, named by a token or by key and grant id. For its retiring principal, its
        grantee if it allows RetireGrant, and the account: the account root, and whom an identity policy allows it.
        """
        with self._recorded("RetireGrant", principal, facts) as call:
            key, grant = self._find_grant_to_retire(call, token, key_id, grant_id)
            self._authorise_key(call, key, grants=GrantSet([grant]))
            self._remove_grant(call, key, grant.grant_id)

    def revoke_grant(self, principal: Principal, key_id: str, grant_id: str, facts: RequestFacts = NO_FACTS) -> None:
        """Removes a grant, whoever works with it. Needs kms:RevokeGrant on the key."""
        parameters = {"requestedKeyId": key_id, "grantId": grant_id}
        with self._recorded("RevokeGrant", principal, facts, parameters) as call:
            check_grant_id(grant_id)
            key = self._catalogue.resolve_key(key_id)
            self._authorise_key(call, key, extra=for_resource(facts))
            self._remove_grant(call, key, grant_id)

    def _find_grant_to_retire(
        self, call: Call, token: str | None, key_id: str | None, grant_id: str | None
    ) -> tuple[Key, Grant]:
        if token is not None:
            if key_id is not None or grant_id is not None:
                raise Validation("a grant is named by a token, or by key id and grant id, not by both")
            raw_key_id, grant_id = self._grant_tokens.open(token)
            key = self._catalogue.find(raw_key_id)
            if key is None:
                raise NotFound(f"there is no grant {grant_id}")
        elif key_id is None or grant_id is None:
            raise Validation("a grant is named by a token, or by key id and grant id")
        else:
            check_grant_id(grant_id)
            key = self._catalogue.resolve_key(key_id)
        call.key_arn = key.arn
        call.parameters = {"grantId": grant_id}
        return key, self._grant_of(key, grant_id)

    def _grant_of(self, key: Key, grant_id: str) -> Grant:
        rows = self._store.find(GRANTS, key_id=key.row.key_id, grant_id=grant_id)
        if not rows:
            raise NotFound(f"{key.arn} has no grant {grant_id}", hint="see: envfs grant list")
        return to_grant(rows[0], self._account)

    def _remove_grant(self, call: Call, key: Key, grant_id: str) -> None:
        with self._change(call) as transaction:
            self._current(call, key)
            self._grant_of(key, grant_id)  # somebody else may have been quicker
            transaction.delete(GRANTS, grant_id)

    def _make_row(self, key: Key, grantee: str, retiring: str, terms: GrantTerms, name: str) -> GrantRow:
        constraints = terms.constraints
        return GrantRow(
            os.urandom(32).hex(),
            key.row.key_id,
            name,
            grantee,
            retiring,
            self._account.root_arn,
            ",".join(sorted(terms.operations)),
            "" if constraints is None else constraints.types[0],
            EMPTY_CONTEXT if constraints is None else encode_context(constraints.pairs),
            self._now(),
        )

    def _put_grant(self, transaction: Transaction, key: Key, row: GrantRow) -> str:
        """The id of the grant: of the one that is there already, if this is a retry."""
        there = self._store.find(GRANTS, key_id=key.row.key_id)
        if row.name:
            for other in there:
                if other._replace(grant_id=row.grant_id, created=row.created) == row:
                    return other.grant_id
        if len(there) >= MAX_GRANTS:
            raise LimitExceeded(f"{key.arn} has {MAX_GRANTS} grants", hint="retire or revoke some of them")
        for arn in {row.grantee, row.retiring}:
            if arn.startswith(self._account.user_arn("")):
                problem = self._pin_named_user(transaction, arn.removeprefix(self._account.user_arn("")))
                if problem is not None:
                    raise InvalidArn(f"{arn!r} is not a valid principal: {problem.text}", hint=problem.hint)
        transaction.put(GRANTS, row)
        return row.grant_id

    def _check_principal(self, arn: str) -> None:
        """InvalidArn unless it is the account root, a group, or a user who exists or once did."""
        self._check_principal_form(arn)
        users = self._account.user_arn("")
        name = arn.removeprefix(users)
        if arn.startswith(users) and self._users.uid_of(name) is None and not self._store.find(PINS, name=name):
            raise InvalidArn(f"{arn!r} is not a valid principal: there is no such user")

    def _check_principal_form(self, arn: str) -> None:
        account = self._account
        prefixes = (account.user_arn(""), account.group_arn(""))
        name = next((arn.removeprefix(prefix) for prefix in prefixes if arn.startswith(prefix)), "")
        if arn != account.root_arn and not is_principal_name(name):
            raise InvalidArn(
                f"{arn!r} is not a valid principal",
                hint=f"write {account.user_arn('NAME')}, {account.group_arn('NAME')} or {account.root_arn}",
            )


def _page(grants: list[Grant], limit: int, after: tuple[object, ...] | None) -> tuple[tuple[Grant, ...], str | None]:
    remaining = grants if after is None else [grant for grant in grants if (grant.grant_id,) > after]
    page, more = cut(remaining, limit)
    return page, make_marker(page[-1].grant_id) if more else None
