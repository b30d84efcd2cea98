"""Who is who, and what is attached to whom: pinned users, and the policies of users and groups."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Final, NamedTuple

from envfs.errors import AccessDenied, MalformedPolicy, NotFound, Validation
from envfs.kms.core import Core
from envfs.kms.model import NO_FACTS, IdentityPolicy, Principal, RequestFacts
from envfs.kms.paging import check_limit, cut, make_marker, read_marker
from envfs.kms.policy.parser import named_users, parse_identity_policy
from envfs.kms.policy.statement import Policy
from envfs.kms.schema import IDENTITY_POLICIES, PINS, IdentityPolicyRow, PinRow
from envfs.kms.sealed_store import Transaction

MAX_PAGE_OF_POLICIES: Final = 100

_POLICY_NAME: Final = re.compile(r"[\w+=,.@-]{1,128}", re.ASCII)


class PinProblem(NamedTuple):
    """Why a user cannot be pinned."""

    text: str
    hint: str = ""


class IdentityOperations(Core):
    """A user's name stands in policies, his uid in requests: the first time the two are seen together they are pinned,
    and a name that later comes with another uid is nobody.
    """

    def confirm_pin(self, uid: int, name: str) -> bool:
        """Whether `uid` and `name` belong together. Pins them if neither was seen before."""
        self._refresh()
        pins = self._pins
        if pins is None:
            pins = self._pins = {row.uid: row.name for row in self._store.find(PINS)}
        pinned = pins.get(uid)
        if pinned is not None:
            return pinned == name
        with self._store.transaction() as transaction:
            return self._pin(transaction, uid, name)

    def record_stranger(self, uid: int, gid: int, pid: int, error: AccessDenied) -> None:
        """envfs:IdentifyCaller, denied: a process called whose uid has no name, or not the one that it is pinned to."""
        parameters = {"uid": uid, "gid": gid, "pid": pid}
        with suppress(AccessDenied), self._recorded("envfs:IdentifyCaller", None, NO_FACTS, parameters):
            raise error

    def unpin_user(self, principal: Principal, name: str, facts: RequestFacts = NO_FACTS) -> None:
        """Forgets which uid `name` has, so that it can be pinned anew: after a user was made again with another uid."""
        with self._recorded("envfs:UnpinUser", principal, facts, {"userName": name}) as call:
            self._authorise(call, "envfs:UnpinUser", self._account.user_arn(name))
            with self._change(call) as transaction:
                rows = self._store.find(PINS, name=name)
                if not rows:
                    raise NotFound(f"the user {name!r} is not pinned")
                transaction.delete(PINS, rows[0].uid)

    def put_identity_policy(
        self, principal: Principal, target: str, name: str, policy: str, facts: RequestFacts = NO_FACTS
    ) -> None:
        """Attaches `policy` to the user or group whose ARN is `target`, in place of the one called `name`."""
        parameters = {"target": target, "policyName": name, "policyDocument": policy}
        with self._recorded(_iam("Put", target), principal, facts, parameters) as call:
            self._authorise(call, call.event, self._check_target(target))
            if not _POLICY_NAME.fullmatch(name):
                raise Validation(f"{name!r} is no name of a policy", hint="use at most 128 letters, digits and +=,.@_-")
            parse_identity_policy(policy, name, self._account)
            with self._change(call) as transaction:
                self._pin_target(transaction, target)
                transaction.put(IDENTITY_POLICIES, IdentityPolicyRow(target, name, policy, self._now()))

    def get_identity_policy(self, principal: Principal, target: str, name: str, facts: RequestFacts = NO_FACTS) -> str:
        """The text of the policy `name` of the user or group `target`."""
        with self._recorded(_iam("Get", target), principal, facts, {"target": target, "policyName": name}) as call:
            self._authorise(call, call.event, self._check_target(target))
            row = self._store.get(IDENTITY_POLICIES, target, name)
            if row is None:
                raise NotFound(f"{target} has no policy {name!r}")
            return row.policy

    def delete_identity_policy(
        self, principal: Principal, target: str, name: str, facts: RequestFacts = NO_FACTS
    ) -> None:
        with self._recorded(_iam("Delete", target), principal, facts, {"target": target, "policyName": name}) as call:
            self._authorise(call, call.event, self._check_target(target))
            with self._change(call) as transaction:
                if self._store.get(IDENTITY_POLICIES, target, name) is None:
                    raise NotFound(f"{target} has no policy {name!r}")
                transaction.delete(IDENTITY_POLICIES, target, name)

    def list_identity_policies(
        self, principal: Principal, target: str, facts: RequestFacts = NO_FACTS
    ) -> tuple[str, ...]:
        """The names of the policies of the user or group `target`."""
        with self._recorded(_iam("List", target), principal, facts, {"target": target}) as call:
            self._authorise(call, call.event, self._check_target(target))
            return tuple(row.name for row in self._store.find(IDENTITY_POLICIES, principal=target))

    def list_all_identity_policies(
        self,
        principal: Principal,
        *,
        limit: int = 100,
        marker: str | None = None,
        facts: RequestFacts = NO_FACTS,
    ) -> tuple[tuple[IdentityPolicy, ...], str | None]:
        """A page of all policies of all users and groups: at most `limit` (1 to 100) after `marker`, and the marker of
        the next.
        """
        with self._recorded("iam:GetAccountAuthorizationDetails", principal, facts, {}) as call:
            check_limit(limit, MAX_PAGE_OF_POLICIES)
            after = read_marker(marker, str, str)
            self._authorise(call, call.event)
            rows = sorted(self._store.find(IDENTITY_POLICIES), key=lambda row: (row.principal, row.name))
            remaining = rows if after is None else [row for row in rows if (row.principal, row.name) > after]
            page, more = cut(remaining, limit)
            found = tuple(IdentityPolicy(row.principal, row.name, row.policy, row.created) for row in page)
            return found, make_marker(page[-1].principal, page[-1].name) if more else None

    def _check_target(self, target: str) -> str:
        if not target.startswith((self._account.user_arn(""), self._account.group_arn(""))):
            raise Validation(
                f"{target!r} is no user or group of this account",
                hint=f"write {self._account.user_arn('NAME')} or {self._account.group_arn('NAME')}",
            )
        return target

    def _pin_target(self, transaction: Transaction, target: str) -> None:
        """Pins the user who gets a policy: whoever has the name later is not him. Nobody to be pinned is no mistake: it
        may be a group, or a user who is yet to be made.
        """
        name = target.removeprefix(self._account.user_arn(""))
        if name == target or self._users.uid_of(name) is None:
            return
        problem = self._pin_named_user(transaction, name)
        if problem is not None:
            raise Validation(problem.text, hint=problem.hint)

    def _pin_named_users(self, transaction: Transaction, policy: Policy) -> None:
        """Pins the users that a key policy names. MalformedPolicy for a name that no user has: it may be a misspelt
        one.
        """
        for name in sorted(named_users(policy, self._account)):
            problem = self._pin_named_user(transaction, name)
            if problem is not None:
                raise MalformedPolicy(problem.text, hint=problem.hint)

    def _pin_named_user(self, transaction: Transaction, name: str) -> PinProblem | None:
        """Pins a user whom somebody names; or says why not."""
        pinned = self._store.find(PINS, name=name)
        uid = self._users.uid_of(name)
        if pinned and (uid is None or uid == pinned[0].uid):
            return None
        if pinned:
            text = f"the user {name!r} had the uid {pinned[0].uid} and now has {uid}"
            return PinProblem(text, "if it is the same person, unpin the user first")
        if uid is None:
            return PinProblem(f"there is no user {name!r}", "make the user first, or name a group")
        if not self._pin(transaction, uid, name):
            return PinProblem(f"the uid {uid} of the user {name!r} is pinned to another name")
        return None

    def _pin(self, transaction: Transaction, uid: int, name: str) -> bool:
        """Within a transaction: pins the two unless one is pinned to something else."""
        of_uid = self._store.get(PINS, uid)
        if of_uid is not None or self._store.find(PINS, name=name):
            return of_uid is not None and of_uid.name == name
        transaction.put(PINS, PinRow(uid, name, self._now()))
        return True


def _iam(verb: str, target: str) -> str:
    """IAM's action on the inline policy of a user or group: `iam:PutUserPolicy`."""
    kind = "Group" if ":group/" in target else "User"
    return f"iam:{verb}{kind}Polic{'ies' if verb == 'List' else 'y'}"
