"""Policies from JSON. Whatever is not understood is refused when a policy is put, so that none means less than it says.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_grammar.html
"""

from __future__ import annotations

import difflib
import json
import re
from functools import lru_cache
from typing import Any, Final, NoReturn

from envfs.errors import LimitExceeded, MalformedPolicy
from envfs.kms.actions import PERMISSIONS, PREFIX
from envfs.kms.arn import Account, is_principal_name
from envfs.kms.policy.condition_keys import CONTEXT_PREFIX
from envfs.kms.policy.conditions import FOR_ALL_VALUES, compile_conditions, to_values
from envfs.kms.policy.decision import StatementRef
from envfs.kms.policy.moments import moments_of
from envfs.kms.policy.statement import Policy, Principals, Source, Statement
from envfs.kms.policy.template import Matcher, Part, compile_pattern, parse_template, resolve_static

MAX_POLICY_SIZE: Final = 32_768
KEY_POLICY: Final = "key policy"

_CURRENT_VERSION: Final = "2012-10-17"  # the one with policy variables
_VERSIONS: Final = (_CURRENT_VERSION, "2008-10-17")
_POLICY_ELEMENTS: Final = {"Version", "Id", "Statement"}
_STATEMENT_ELEMENTS: Final = {
    "Sid", "Effect", "Principal", "NotPrincipal", "Action", "NotAction", "Resource", "NotResource", "Condition",
}  # fmt: skip
_ACCOUNT_ID: Final = re.compile(r"[0-9]{12}")
_ACTION: Final = re.compile(r"[A-Za-z0-9*?-]+:[A-Za-z0-9*?]+|\*")
_PRINCIPAL_ARN: Final = re.compile(r"arn:([^:]*):iam::([0-9]{12}):(?:(root)|(?:user|group)/(.+))", re.DOTALL)


@lru_cache(maxsize=256)
def parse_key_policy(text: str, account: Account) -> Policy:
    """The policy of a key. MalformedPolicy, or LimitExceeded beyond 32,768 bytes."""
    return _Parser(text, KEY_POLICY, account, identity=False).parse()


def parse_new_key_policy(text: str, account: Account) -> Policy:
    """As `parse_key_policy`, for a policy that is about to be put: MalformedPolicy also for what AWS KMS has come to
    refuse, and keys of former releases may have.

    https://docs.aws.amazon.com/kms/latest/developerguide/conditions-kms.html#conditions-kms-encryption-context
    """
    policy = parse_key_policy(text, account)
    statements = json.loads(text)["Statement"]
    for statement in statements if isinstance(statements, list) else [statements]:
        for operator, keys in statement.get("Condition", {}).items():
            is_for_all = operator.lower().startswith(FOR_ALL_VALUES)
            if is_for_all and any(key.lower().startswith(CONTEXT_PREFIX) for key in keys):
                raise MalformedPolicy(
                    "OverlyPermissiveCondition: ForAllValues with kms:EncryptionContext:… also matches requests "
                    "without that encryption context",
                    hint="remove ForAllValues",
                )
    return policy


@lru_cache(maxsize=256)
def parse_identity_policy(text: str, name: str, account: Account) -> Policy:
    """A policy attached to a user or group; decisions speak of it as `name`."""
    return _Parser(text, name, account, identity=True).parse()


def named_users(policy: Policy, account: Account) -> frozenset[str]:
    """The names of this account's users that `policy` names as principals."""
    prefix = account.user_arn("")
    arns = (arn for statement in policy.statements if statement.principals for arn in statement.principals.arns)
    return frozenset(arn.removeprefix(prefix) for arn in arns if arn.startswith(prefix))


class _Parser:
    def __init__(self, text: str, name: str, account: Account, *, identity: bool) -> None:
        self._text = text
        self._name = name
        self._account = account
        self._identity = identity
        self._variables = False

    def parse(self) -> Policy:
        document = self._load()
        unknown = document.keys() - _POLICY_ELEMENTS
        if unknown:
            raise MalformedPolicy(f"a policy has no element {min(unknown)!r}")
        version = document.get("Version", _VERSIONS[1])
        if version not in _VERSIONS:
            raise MalformedPolicy(
                f"policy version {version!r} is not known", hint=f'write "Version": "{_CURRENT_VERSION}"'
            )
        if not isinstance(document.get("Id", ""), str):
            raise MalformedPolicy("Id is not a string")
        self._variables = version == _CURRENT_VERSION
        statements = document.get("Statement")
        if isinstance(statements, dict):
            statements = [statements]
        if not isinstance(statements, list) or not statements:
            raise MalformedPolicy("a policy needs a Statement: an object, or a list of at least one")
        return Policy([self._statement(number, statement) for number, statement in enumerate(statements, 1)])

    def _load(self) -> dict[str, Any]:
        try:
            size = len(self._text.encode("utf-8"))
        except UnicodeEncodeError:
            raise MalformedPolicy("the policy is not UTF-8") from None
        if size > MAX_POLICY_SIZE:
            raise LimitExceeded(f"the policy has {size} bytes; at most {MAX_POLICY_SIZE} are allowed")
        try:
            document = json.loads(self._text, object_pairs_hook=_without_duplicates, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise MalformedPolicy(f"the policy is not valid JSON: {error}") from None
        if not isinstance(document, dict):
            raise MalformedPolicy("the policy is not a JSON object")
        return document

    def _statement(self, number: int, element: Any) -> Statement:
        try:
            return self._parse_statement(number, element)
        except MalformedPolicy as error:
            raise MalformedPolicy(f"statement {number}: {error.message}", hint=error.hint) from None

    def _parse_statement(self, number: int, element: Any) -> Statement:
        if not isinstance(element, dict):
            raise MalformedPolicy("not an object")
        unknown = element.keys() - _STATEMENT_ELEMENTS
        if unknown:
            raise MalformedPolicy(f"a statement has no element {min(unknown)!r}")
        effect = element.get("Effect")
        if effect not in ("Allow", "Deny"):
            raise MalformedPolicy("Effect is neither Allow nor Deny")
        sid = element.get("Sid", "")
        if not isinstance(sid, str):
            raise MalformedPolicy("Sid is not a string")
        principals, negated_principals = self._principals(element, effect)
        action_values, not_actions = _either(element, "Action")
        resource_values, not_resources = _either(element, "Resource")
        # Without an action or a resource a statement is about nothing, as in AWS; the rest of it is checked all the
        # same.
        actions = tuple(self._action(value) for value in action_values)
        resources = tuple(self._resource(value) for value in resource_values)
        conditions = element.get("Condition", {})
        return Statement(
            StatementRef(self._name, sid, number, effect),
            principals,
            negated_principals=negated_principals,
            actions=actions if actions and resources else None,
            not_actions=not_actions,
            resources=resources,
            not_resources=not_resources,
            clauses=compile_conditions(conditions, variables=self._variables, identity=self._identity),
            moments=moments_of(conditions),
            source=Source(element, self._variables, self._identity),
        )

    def _principals(self, element: dict[str, Any], effect: str) -> tuple[Principals | None, bool]:
        present = [name for name in ("Principal", "NotPrincipal") if name in element]
        if self._identity:
            if present:
                raise MalformedPolicy(
                    f"{present[0]} has no place in an identity policy: it is about whoever has the policy"
                )
            return None, False
        if len(present) != 1:
            raise MalformedPolicy("a statement of a key policy needs either Principal or NotPrincipal")
        negated = present[0] == "NotPrincipal"
        if negated and effect == "Allow":
            raise MalformedPolicy(
                "NotPrincipal with Allow would allow everybody who is not named",
                hint="name whom you allow in Principal, or use NotPrincipal with Deny",
            )
        value = element[present[0]]
        if isinstance(value, dict):
            if value.keys() != {"AWS"}:
                raise MalformedPolicy('a principal is {"AWS": …}: users, groups and accounts; envfs has no other kinds')
            value = value["AWS"]
        elif value != "*":
            raise MalformedPolicy(f'{present[0]} is neither "*" nor an object', hint='write {"AWS": "<ARN>"}')
        return self._principal_values(to_values(value, present[0])), negated

    def _principal_values(self, values: list[str]) -> Principals:
        arns: set[str] = set()
        accounts: set[str] = set()
        for value in values:
            if value == "*":
                continue
            if _ACCOUNT_ID.fullmatch(value):
                accounts.add(value)
                continue
            match = _PRINCIPAL_ARN.fullmatch(value)
            if match is None or match.group(1) != self._account.partition:
                raise MalformedPolicy(
                    f"{value!r} is no principal",
                    hint=f"write {self._account.user_arn('NAME')}, {self._account.group_arn('NAME')}, "
                    f"{self._account.root_arn}, an account id, or *",
                )
            _, account_id, root, name = match.groups()
            if root:
                accounts.add(account_id)
            elif is_principal_name(name):
                arns.add(value)
            else:
                raise MalformedPolicy(
                    f"{value!r}: {name!r} is no name of a user or group",
                    hint="there are no wildcards in principals but * itself",
                )
        return Principals(everyone="*" in values, arns=frozenset(arns), accounts=frozenset(accounts))

    def _action(self, value: str) -> Matcher:
        if not _ACTION.fullmatch(value):
            raise MalformedPolicy(f"{value!r} is no action", hint="write kms:Decrypt, kms:*, …")
        pattern = compile_pattern(
            resolve_static(parse_template(value, wildcards=True, variables=False)), ignore_case=True
        )
        if any(pattern(PREFIX + name) for name in PERMISSIONS):
            return pattern
        if self._identity and not value.lower().startswith(PREFIX):
            return pattern  # another service's: identity policies may speak of several
        close = difflib.get_close_matches(value, [PREFIX + name for name in PERMISSIONS], n=1)
        raise MalformedPolicy(f"{value!r} is no action of the KMS", hint=f"did you mean {close[0]}?" if close else "")

    def _resource(self, value: str) -> tuple[Part, ...]:
        if value != "*" and not value.startswith("arn:") and "*" not in value:
            raise MalformedPolicy(f"{value!r} is no resource", hint="in a key policy write *, which is the key itself")
        return parse_template(value, wildcards=True, variables=self._variables)


def _either(element: dict[str, Any], name: str) -> tuple[list[str], bool]:
    """The values of `Action` or `NotAction` (`Resource` or `NotResource`), and whether it is the negated one."""
    negated = f"Not{name}"
    if name in element and negated in element:
        raise MalformedPolicy(f"{name} and {negated} exclude each other")
    present = negated if negated in element else name
    values = element.get(present, [])
    listed = values if isinstance(values, list) else [values]
    if not all(isinstance(value, str) for value in listed):
        raise MalformedPolicy(f"{present} is not a string or a list of strings")
    return listed, present == negated


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("an object has the same key twice")
    return result


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
