"""CreateKey and what a key is told and made to be: described, listed, enabled, disabled."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import asdict, replace
from types import MappingProxyType
from typing import Final

from envfs.crypto.secret import Secret
from envfs.errors import AlreadyExists, InvalidAliasName, UnsupportedOperation, Validation
from envfs.format.foreign_blob import MAX_FOREIGN_SIZE
from envfs.kms.actions import PREFIX
from envfs.kms.arn import SERVICE_ALIAS_PREFIX, check_alias_name, key_id_text
from envfs.kms.audit.record import Call
from envfs.kms.catalogue import Key
from envfs.kms.foreign.configuration import ForeignKey
from envfs.kms.foreign.exchange import Question
from envfs.kms.foreign.material import new_material, read_material
from envfs.kms.material.generate import generate
from envfs.kms.material.specs import (
    ENCAPSULATE_DECAPSULATE,
    GENERATE_VERIFY_MAC,
    KEY_AGREEMENT,
    SIGN_VERIFY,
    algorithms_of,
    check_new_key,
)
from envfs.kms.model import (
    DOES_NOT_EXPIRE,
    ENCRYPT_DECRYPT,
    EXPIRES,
    NO_FACTS,
    ORIGIN_EXTERNAL,
    ORIGIN_FOREIGN,
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
from envfs.kms.operations.tags import TagOperations, check_tags, recorded_tags, tag_facts
from envfs.kms.paging import check_limit, cut, make_marker, read_marker
from envfs.kms.policy.defaults import default_key_policy, service_managed_policy
from envfs.kms.policy.parser import parse_new_key_policy
from envfs.kms.policy.request import ConditionValue, alias_fact
from envfs.kms.schedule import DAY, DEFAULT_ROTATION_PERIOD, has_expired, permanent_material, with_due
from envfs.kms.schema import BACKING_KEYS, KEYS, BackingKeyRow, KeyRow
from envfs.kms.sealed_store import Transaction

MAX_DESCRIPTION: Final = 8192
DEFAULT_PAGE: Final = 100
LARGEST_PAGE: Final = 1000

NO_TAGS: Final[Mapping[str, str]] = MappingProxyType({})
_OTHER_ORIGINS: Final = frozenset({"AWS_CLOUDHSM", ORIGIN_FOREIGN})
# Whoever has it makes the KMS's process connect to a host of his choice, with its credentials.
USE_FOREIGN_KMS: Final = "envfs:UseForeignKms"


class KeyOperations(KeyPolicyOperations, AliasOperations, TagOperations):
    """Each is authorised and recorded. Errors are AWS's."""

    def create_key(
        self,
        principal: Principal,
        *,
        description: str = "",
        policy: str | None = None,
        bypass_lockout_check: bool = False,
        spec: str = SYMMETRIC_DEFAULT,
        usage: str | None = None,
        origin: str = ORIGIN_KMS,
        tags: Mapping[str, str] = NO_TAGS,
        multi_region: bool = False,
        foreign: ForeignKey | None = None,
        facts: RequestFacts = NO_FACTS,
    ) -> KeyMetadata:
        """A new CMK. Without `policy` it gets the default one; with one, the caller must keep the right to change it.

        With the origin EXTERNAL it has no material until some is imported, with EXTERNAL_KEY_STORE it stands for the
        key `foreign` of another KMS, which is tried out; that needs envfs:UseForeignKms, too. `tags` need
        kms:TagResource as well.
        """
        parameters: dict[str, object] = {
            "keySpec": spec, "keyUsage": usage, "origin": origin, "description": description,
            "multiRegion": multi_region, "bypassPolicyLockoutSafetyCheck": bypass_lockout_check,
            "tags": recorded_tags(tags), "policy": policy, "foreignKey": None if foreign is None else asdict(foreign),
        }  # fmt: skip
        with self._recorded(
            "CreateKey", principal, facts, {k: v for k, v in parameters.items() if v is not None}
        ) as call:
            extra = {
                **bypass_fact(bypass=bypass_lockout_check),
                **tag_facts(tags),
                "kms:keyspec": spec,
                "kms:keyusage": usage or ENCRYPT_DECRYPT,
                "kms:keyorigin": origin,
                "kms:multiregion": "true" if multi_region else "false",
            }
            self._authorise_creation(call, extra, with_tags=bool(tags))
            _check_description(description)
            _check_origin(origin, foreign, multi_region=multi_region)
            _, found_usage = check_new_key(spec, usage, origin)
            check_tags(tags)
            text = default_key_policy(self._account) if policy is None else policy
            parsed = parse_new_key_policy(text, self._account)
            row = self._new_row(KeyManager.CUSTOMER, description, text, spec, found_usage, origin)
            key = self._catalogue.load(row)
            if policy is not None and not bypass_lockout_check:
                self._check_lockout(call, key, parsed)
            backing_key = None
            if foreign is not None:
                self._authorise(call, USE_FOREIGN_KMS)
                with self._foreign_material(foreign, spec, found_usage) as made:
                    backing_key = self._keyring.wrap(row.key_id, 1, spec, made, row.created)
            if origin == ORIGIN_KMS:
                material = generate(spec)
                with material.private as private:
                    backing_key = self._keyring.wrap(row.key_id, 1, spec, private, row.created, material.public_key)
            with self._change(call) as transaction:
                # Once more in any case: making the material may have taken seconds.
                self._refresh()
                call.decisions.clear()
                self._authorise_creation(call, extra, with_tags=bool(tags))
                if foreign is not None:
                    self._authorise(call, USE_FOREIGN_KMS)
                self._pin_named_users(transaction, parsed)
                key = self._add_key(transaction, call, row, backing_key)
                self._put_tags(transaction, row.key_id, tags)
        return self._metadata(key)

    def _foreign_material(self, foreign: ForeignKey, spec: str, usage: str) -> Secret:
        """The material of a key that stands for `foreign`, which was tried out. KmsErrors, Pending."""
        foreign.check()
        if (spec, usage) != (SYMMETRIC_DEFAULT, ENCRYPT_DECRYPT):
            raise UnsupportedOperation("only symmetric encryption keys can be in another KMS")
        with self._asker.answer(Question("try", foreign)) as answer:
            if answer.size > MAX_FOREIGN_SIZE:
                raise UnsupportedOperation(f"ciphertexts of {answer.arn} have {answer.size} bytes, which is too many")
            # Its ARN, and not an alias, which may stand for another key tomorrow.
            return new_material(replace(foreign, key=answer.arn))

    def describe_key(self, principal: Principal, key_id: str, facts: RequestFacts = NO_FACTS) -> KeyMetadata:
        with self._on_key("DescribeKey", principal, key_id, facts, extra=alias_fact(key_id), by_alias=True) as (_, key):
            return self._metadata(key)

    def list_keys(
        self,
        principal: Principal,
        *,
        limit: int = DEFAULT_PAGE,
        marker: str | None = None,
        facts: RequestFacts = NO_FACTS,
    ) -> tuple[tuple[KeyListEntry, ...], str | None]:
        """All keys but that of envfs itself, by id; `limit` is at most 1,000."""
        with self._recorded("ListKeys", principal, facts) as call:
            self._authorise(call, "kms:ListKeys")
            check_limit(limit, LARGEST_PAGE)
            # One more because of the key of envfs itself, and one more to see whether there are more.
            rows = self._store.page(KEYS, read_marker(marker, bytes), limit + 2)
            visible, more = cut([row.key_id for row in rows if row.manager != KeyManager.OWNED], limit)
            entries = tuple(KeyListEntry(key_id_text(key_id), self._account.key_arn(key_id)) for key_id in visible)
            return entries, make_marker(visible[-1]) if more else None

    def update_key_description(
        self, principal: Principal, key_id: str, description: str, facts: RequestFacts = NO_FACTS
    ) -> None:
        """At most 8,192 characters."""
        parameters = {"description": description}
        with self._on_key("UpdateKeyDescription", principal, key_id, facts, parameters, changes=True) as (call, key):
            _check_description(description)
            with self._change(call) as transaction:
                row = self._current(call, key)
                transaction.put(KEYS, row._replace(description=description))

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
            self._put_key(transaction, row._replace(state=state.value))

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
            row = self._new_row(KeyManager.SERVICE, description, policy)
            row = row._replace(
                rotation_period=DEFAULT_ROTATION_PERIOD, next_rotation=row.created + DEFAULT_ROTATION_PERIOD * DAY
            )
            backing_key = self._keyring.new_backing_key(row.key_id, 1, row.spec, row.created)
            with self._change(call) as transaction:
                key = self._add_key(transaction, call, row, backing_key)
                self._add_alias(transaction, alias, key)
        return key.arn

    def _authorise_creation(self, call: Call, extra: Mapping[str, ConditionValue], *, with_tags: bool) -> None:
        self._authorise(call, PREFIX + call.event, extra=extra)
        if with_tags:
            self._authorise(call, "kms:TagResource", extra=extra)

    def _new_row(
        self,
        manager: KeyManager,
        description: str,
        policy: str,
        spec: str = SYMMETRIC_DEFAULT,
        usage: str = ENCRYPT_DECRYPT,
        origin: str = ORIGIN_KMS,
    ) -> KeyRow:
        """The row of a new key, which has no backing key yet."""
        state = KeyState.PENDING_IMPORT if origin == ORIGIN_EXTERNAL else KeyState.ENABLED
        key_id = uuid.uuid4().bytes
        return KeyRow(key_id, manager.value, spec, usage, origin, state.value, description, self._now(), b"", policy)

    def _add_key(self, transaction: Transaction, call: Call, row: KeyRow, backing_key: BackingKeyRow | None) -> Key:
        if backing_key is not None:
            row = row._replace(backing_key_id=backing_key.backing_key_id)
            transaction.put(BACKING_KEYS, backing_key)
        transaction.put(KEYS, with_due(row, [] if backing_key is None else [backing_key]))
        key = self._catalogue.load(row)
        call.key_arn = key.arn
        return key

    def _metadata(self, key: Key) -> KeyMetadata:
        row = key.row
        backing_keys = self._catalogue.backing_keys(row.key_id)
        current = next((one for one in backing_keys if one.backing_key_id == row.backing_key_id), None)
        foreign_key = None
        if row.origin == ORIGIN_FOREIGN and current is not None:
            foreign_key = self._foreign_place(current).key
        expiration_model, valid_to = self._expiration(row, backing_keys)
        algorithms = algorithms_of(row.spec, row.usage)

        def of(usage: str) -> tuple[str, ...]:
            return algorithms if row.usage == usage else ()

        return KeyMetadata(
            key_id_text(row.key_id),
            key.arn,
            self._account.account_id,
            row.created,
            key.state,
            row.description,
            KeyManager(row.manager),
            row.spec,
            row.usage,
            row.origin,
            deletion_date=row.deletion_date or None,
            valid_to=valid_to,
            expiration_model=expiration_model,
            current_material_id=current.material_id.hex() if current and row.spec == SYMMETRIC_DEFAULT else None,
            encryption_algorithms=of(ENCRYPT_DECRYPT),
            signing_algorithms=of(SIGN_VERIFY),
            mac_algorithms=of(GENERATE_VERIFY_MAC),
            key_agreement_algorithms=of(KEY_AGREEMENT),
            encapsulation_algorithms=of(ENCAPSULATE_DECAPSULATE),
            foreign_key=foreign_key,
        )

    def _foreign_place(self, row: BackingKeyRow) -> ForeignKey:
        """Where the key is whose material `row` has."""
        material = self._keyring.cached(row.key_id, row.backing_key_id) or self._keyring.unwrap(row)
        own, place = read_material(material)
        own.wipe()
        return place

    def get_foreign_key(self, principal: Principal, key_id: str, facts: RequestFacts = NO_FACTS) -> ForeignKey:
        """Where a foreign key is; needs kms:DescribeKey. UnsupportedOperation for another key."""
        with self._on_key("DescribeKey", principal, key_id, facts, extra=alias_fact(key_id), by_alias=True) as (_, key):
            row = self._catalogue.backing_key(key.row.backing_key_id)
            if key.row.origin != ORIGIN_FOREIGN or row is None:
                raise UnsupportedOperation(f"{key.arn} is a key of this KMS itself")
            return self._foreign_place(row)

    def _expiration(self, row: KeyRow, backing_keys: list[BackingKeyRow]) -> tuple[str | None, int | None]:
        """The expiration model of imported material that is there, and when the first piece of it expires."""
        now = self._now()
        there = [one for one in permanent_material(row, backing_keys) if one.wrapped and not has_expired(one, now)]
        if row.origin != ORIGIN_EXTERNAL or not there:
            return None, None
        times = [one.valid_to for one in there if one.valid_to]
        return (EXPIRES, min(times)) if times else (DOES_NOT_EXPIRE, None)


def _check_description(description: str) -> None:
    if len(description) > MAX_DESCRIPTION:
        raise Validation(f"a description has at most {MAX_DESCRIPTION} characters")


def _check_origin(origin: str, foreign: ForeignKey | None, *, multi_region: bool) -> None:
    if multi_region:
        raise UnsupportedOperation("this KMS is one host's: it has no multi-Region keys")
    if foreign is not None and origin == ORIGIN_FOREIGN:
        return
    if foreign is not None:
        raise Validation(f"a foreign key has the origin {ORIGIN_FOREIGN}")
    if origin in _OTHER_ORIGINS:
        raise UnsupportedOperation(f"this KMS has no custom key stores, so no keys of the origin {origin}")
    if origin not in {ORIGIN_KMS, ORIGIN_EXTERNAL}:
        raise Validation(f"{origin!r} is no origin of keys", hint=f"write {ORIGIN_KMS} or {ORIGIN_EXTERNAL}")
