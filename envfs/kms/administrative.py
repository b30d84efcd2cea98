"""The operations on keys, aliases and policies.

https://docs.aws.amazon.com/kms/latest/APIReference/API_Operations.html
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from envfs.errors import (
    AccessDenied,
    AlreadyExists,
    EnvfsError,
    InvalidAliasName,
    MalformedPolicy,
    NotFound,
    Validation,
)
from envfs.format.blob import Blob
from envfs.kms.actions import PREFIX
from envfs.kms.arn import RESERVED_ALIAS_PREFIXES, SERVICE_ALIAS_PREFIX, check_alias_name, key_id_text
from envfs.kms.audit.record import Call
from envfs.kms.catalogue import Key
from envfs.kms.identity import IdentityOperations
from envfs.kms.model import (
    ENCRYPT_DECRYPT,
    NO_FACTS,
    ORIGIN_ENVFS,
    SYMMETRIC_DEFAULT,
    Alias,
    KeyListEntry,
    KeyManager,
    KeyMetadata,
    KeyState,
    Principal,
    RequestFacts,
)
from envfs.kms.policy.decision import Decision, Reason
from envfs.kms.policy.defaults import default_key_policy, service_managed_policy
from envfs.kms.policy.evaluator import evaluate
from envfs.kms.policy.parser import parse_key_policy
from envfs.kms.policy.request import ConditionValue
from envfs.kms.policy.statement import Policy
from envfs.kms.schema import ALIASES, BACKING_KEYS, KEYS, AliasRow, BackingKeyRow, KeyRow
from envfs.kms.sealed_store import Transaction
from envfs.kms.states import has_rule, refusal

MAX_DESCRIPTION: Final = 8192


class AdministrativeOperations(IdentityOperations):
    """Each is authorised and recorded. Errors are AWS's."""

    def create_key(
        self,
        principal: Principal,
        *,
        description: str = "",
        policy: str | None = None,
        bypass_lockout_check: bool = False,
        facts: RequestFacts = NO_FACTS,
    ) -> KeyMetadata:
        """A new symmetric CMK. Without `policy` it gets the default one; with one, the caller must keep the right to
        change it.
        """
        parameters = {"keySpec": SYMMETRIC_DEFAULT, "bypassPolicyLockoutSafetyCheck": bypass_lockout_check}
        extra = {
            **_bypass_fact(bypass=bypass_lockout_check),
            "kms:keyspec": SYMMETRIC_DEFAULT,
            "kms:keyusage": ENCRYPT_DECRYPT,
            "kms:keyorigin": ORIGIN_ENVFS,
        }
        with self._recorded("CreateKey", principal, facts, parameters) as call:
            self._authorise(call, "kms:CreateKey", extra=extra)
            if len(description) > MAX_DESCRIPTION:
                raise Validation(f"a description has at most {MAX_DESCRIPTION} characters")
            text = default_key_policy(self._account) if policy is None else policy
            parsed = parse_key_policy(text, self._account)
            key, backing_key = self._new_key(KeyManager.CUSTOMER, description, text)
            if policy is not None and not bypass_lockout_check:
                self._check_lockout(call, key, parsed)
            with self._change(call) as transaction:
                self._pin_named_users(transaction, parsed)
                self._add_key(transaction, call, key, backing_key)
        return key.metadata(self._account)

    def describe_key(self, principal: Principal, key_id: str, facts: RequestFacts = NO_FACTS) -> KeyMetadata:
        with self._on_key("DescribeKey", principal, key_id, facts) as (_, key):
            return key.metadata(self._account)

    def list_keys(self, principal: Principal, facts: RequestFacts = NO_FACTS) -> tuple[KeyListEntry, ...]:
        """All keys but those of envfs itself, by id."""
        with self._recorded("ListKeys", principal, facts) as call:
            self._authorise(call, "kms:ListKeys")
            rows = self._store.find(KEYS)
            visible = (row.key_id for row in rows if row.manager != KeyManager.OWNED)
            return tuple(KeyListEntry(key_id_text(key_id), self._account.key_arn(key_id)) for key_id in visible)

    def enable_key(self, principal: Principal, key_id: str, facts: RequestFacts = NO_FACTS) -> None:
        self._set_state("EnableKey", principal, key_id, KeyState.ENABLED, facts)

    def disable_key(self, principal: Principal, key_id: str, facts: RequestFacts = NO_FACTS) -> None:
        """Until it is enabled again, the key decrypts and encrypts nothing."""
        self._set_state("DisableKey", principal, key_id, KeyState.DISABLED, facts)

    def _set_state(self, event: str, principal: Principal, key_id: str, state: KeyState, facts: RequestFacts) -> None:
        with (
            self._on_key(event, principal, key_id, facts, changes=True) as (call, key),
            self._change(call) as transaction,
        ):
            row = self._current(call, key)
            transaction.put(KEYS, row._replace(state=state.value))

    def get_key_policy(self, principal: Principal, key_id: str, facts: RequestFacts = NO_FACTS) -> str:
        """The policy's text, as it was put."""
        with self._on_key("GetKeyPolicy", principal, key_id, facts) as (_, key):
            return key.row.policy

    def put_key_policy(
        self,
        principal: Principal,
        key_id: str,
        policy: str,
        *,
        bypass_lockout_check: bool = False,
        facts: RequestFacts = NO_FACTS,
    ) -> None:
        """Replaces the key's policy. MalformedPolicy if it is none, or would not let the caller change it again."""
        extra = _bypass_fact(bypass=bypass_lockout_check)
        parameters = {"bypassPolicyLockoutSafetyCheck": bypass_lockout_check}
        with self._on_key("PutKeyPolicy", principal, key_id, facts, parameters, extra, changes=True) as (call, key):
            parsed = parse_key_policy(policy, self._account)
            if not bypass_lockout_check:
                self._check_lockout(call, key, parsed)
            with self._change(call) as transaction:
                row = self._current(call, key)
                transaction.put(KEYS, row._replace(policy=policy))
                self._pin_named_users(transaction, parsed)

    def create_alias(self, principal: Principal, name: str, key_id: str, facts: RequestFacts = NO_FACTS) -> None:
        """Makes `name` (with `alias/`) another name of the key. Needs kms:CreateAlias on the alias and on the key."""
        parameters = {"aliasName": name}
        with self._on_key("CreateAlias", principal, key_id, facts, parameters, changes=True) as (call, key):
            check_alias_name(name)
            if name.startswith(RESERVED_ALIAS_PREFIXES):
                raise InvalidAliasName(f"{name!r}: the prefix is reserved", hint="choose a name without it")
            self._authorise(call, "kms:CreateAlias", self._account.alias_arn(name))
            with self._change(call) as transaction:
                self._current(call, key)
                self._add_alias(transaction, name, key)

    def list_aliases(
        self, principal: Principal, key_id: str | None = None, facts: RequestFacts = NO_FACTS
    ) -> tuple[Alias, ...]:
        """All aliases, or those of one key, by name."""
        with self._recorded("ListAliases", principal, facts) as call:
            self._authorise(call, "kms:ListAliases")
            if key_id is None:
                rows = self._store.find(ALIASES)
            else:
                key = self._catalogue.resolve(key_id)
                call.key_arn = key.arn
                rows = self._store.find(ALIASES, key_id=key.row.key_id)
            arn = self._account.alias_arn
            return tuple(Alias(row.name, arn(row.name), key_id_text(row.key_id), row.created) for row in rows)

    def service_managed_key(self, alias: str, description: str = "made by envfs") -> str:
        """The ARN of the service-managed key behind `alias` (`alias/envfs/…`), which is made when it is first asked
        for.
        """
        self._refresh()
        check_alias_name(alias)
        if not alias.startswith(SERVICE_ALIAS_PREFIX):
            raise InvalidAliasName(f"{alias!r}: aliases of service-managed keys begin with {SERVICE_ALIAS_PREFIX}")
        key_id = self._catalogue.alias_target(alias)
        if key_id is not None:
            return self._account.key_arn(key_id)
        try:
            return self._make_service_managed_key(alias, description)
        except AlreadyExists:  # another process was quicker
            return self._catalogue.resolve(alias).arn

    def _make_service_managed_key(self, alias: str, description: str) -> str:
        with self._recorded("CreateKey", None, parameters={"aliasName": alias}) as call:
            policy = service_managed_policy(self._account)
            key, backing_key = self._new_key(KeyManager.SERVICE, description, policy)
            with self._change(call) as transaction:
                self._add_key(transaction, call, key, backing_key)
                self._add_alias(transaction, alias, key)
        return key.arn

    def explain(
        self,
        principal: Principal,
        action: str,
        key: str | bytes,
        context: Mapping[str, str],
        facts: RequestFacts = NO_FACTS,
    ) -> Decision:
        """What would be decided about `action` (`kms:Decrypt`) on `key` (a name of it, or a blob). No record, no use of
        the key.
        """
        self._refresh()
        operation = action.removeprefix(PREFIX)
        if not has_rule(operation):
            raise Validation(f"{action} is not an action on keys", hint="write kms:Decrypt, kms:GenerateDataKey, …")
        try:
            found = self._find_for_explanation(key)
        except EnvfsError:
            found = None
        if found is None:
            return Decision(allowed=False, reason=Reason.UNKNOWN_KEY)
        call = Call(operation, principal, facts, context)
        decision = self._decide(self._request(call, action, found), found)
        if decision.allowed and refusal(operation, found.state, found.row.origin) is not None:
            return Decision(allowed=False, reason=Reason.KEY_STATE)
        return decision

    def _find_for_explanation(self, key: str | bytes) -> Key | None:
        return self._catalogue.find(Blob.parse(key).key_id) if isinstance(key, bytes) else self._catalogue.resolve(key)

    @contextmanager
    def _on_key(
        self,
        event: str,
        principal: Principal,
        key_id: str,
        facts: RequestFacts,
        parameters: Mapping[str, object] | None = None,
        extra: Mapping[str, ConditionValue] | None = None,
        *,
        changes: bool = False,
    ) -> Iterator[tuple[Call, Key]]:
        """A call about one key, authorised by its policy. `changes`: it is refused on a key that envfs manages."""
        recorded = {"requestedKeyId": key_id, **(parameters or {})}
        with self._recorded(event, principal, facts, recorded) as call:
            key = self._catalogue.resolve(key_id)
            call.key_arn = key.arn
            if changes and key.is_service_managed:
                call.decisions.append(Decision(allowed=False, reason=Reason.SERVICE_MANAGED))
                raise AccessDenied(
                    f"{key.arn} is managed by envfs: nobody can change its policy, its aliases or its state",
                    hint="use a key of your own: envfs key create",
                )
            self._authorise_key(call, key, extra=extra or {})
            yield call, key

    def _current(self, call: Call, key: Key) -> KeyRow:
        """The key's row as it is in this transaction; authorised again if anything changed since it was authorised."""
        if not self._refresh():
            return key.row
        current = self._catalogue.find(key.row.key_id)
        if current is None:
            raise NotFound(f"there is no key {key.arn} any more")
        call.decisions.clear()
        self._authorise_key(call, current)
        return current.row

    def _add_alias(self, transaction: Transaction, name: str, key: Key) -> None:
        if self._store.get(ALIASES, name) is not None:
            raise AlreadyExists(f"the alias {name!r} exists", hint="see: envfs key list")
        transaction.put(ALIASES, AliasRow(name, key.row.key_id, self._now()))

    def _new_key(self, manager: KeyManager, description: str, policy: str) -> tuple[Key, BackingKeyRow]:
        """A symmetric CMK and its first backing key, not yet in the store."""
        key_id = uuid.uuid4().bytes
        now = self._now()
        backing_key = self._keyring.new_backing_key(key_id, 1, SYMMETRIC_DEFAULT, now)
        row = KeyRow(
            key_id,
            manager.value,
            SYMMETRIC_DEFAULT,
            ENCRYPT_DECRYPT,
            ORIGIN_ENVFS,
            KeyState.ENABLED.value,
            description,
            now,
            backing_key.backing_key_id,
            policy,
        )
        return self._catalogue.load(row), backing_key

    def _add_key(self, transaction: Transaction, call: Call, key: Key, backing_key: BackingKeyRow) -> None:
        transaction.put(BACKING_KEYS, backing_key)
        transaction.put(KEYS, key.row)
        call.key_arn = key.arn

    def _check_lockout(self, call: Call, key: Key, policy: Policy) -> None:
        request = self._request(call, "kms:PutKeyPolicy", key)
        if not evaluate(request, policy, self._catalogue.identity_policies(request.principal)).allowed:
            raise MalformedPolicy(
                "the new key policy would not allow you to update the key policy in the future",
                hint="add a statement that allows you kms:PutKeyPolicy, or bypass this check",
            )


def _bypass_fact(*, bypass: bool) -> Mapping[str, ConditionValue]:
    return {"kms:bypasspolicylockoutsafetycheck": "true" if bypass else "false"}
