"""CreateKey and what a key is told and made to be: described, listed, enabled, disabled."""

from __future__ import annotations

import uuid
from typing import Final

from envfs.errors import AlreadyExists, InvalidAliasName, Validation
from envfs.kms.arn import SERVICE_ALIAS_PREFIX, check_alias_name, key_id_text
from envfs.kms.audit.record import Call
from envfs.kms.catalogue import Key
from envfs.kms.model import (
    ENCRYPT_DECRYPT,
    NO_FACTS,
    ORIGIN_KMS,
    SYMMETRIC_DEFAULT,
    KeyListEntry,
    KeyManager,
    KeyMetadata,
    KeyState,
    Principal,
    RequestFacts,
)
from envfs.kms.operations.aliases import AliasOperations
from envfs.kms.operations.policies import KeyPolicyOperations, bypass_fact
from envfs.kms.policy.defaults import default_key_policy, service_managed_policy
from envfs.kms.policy.parser import parse_key_policy
from envfs.kms.schema import BACKING_KEYS, KEYS, BackingKeyRow, KeyRow
from envfs.kms.sealed_store import Transaction

MAX_DESCRIPTION: Final = 8192


class KeyOperations(KeyPolicyOperations, AliasOperations):
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
            **bypass_fact(bypass=bypass_lockout_check),
            "kms:keyspec": SYMMETRIC_DEFAULT,
            "kms:keyusage": ENCRYPT_DECRYPT,
            "kms:keyorigin": ORIGIN_KMS,
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
            ORIGIN_KMS,
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
