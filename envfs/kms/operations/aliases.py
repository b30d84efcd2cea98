"""CreateAlias, UpdateAlias, DeleteAlias and ListAliases: other names of keys."""

from __future__ import annotations

from typing import Final

from envfs.errors import AlreadyExists, InvalidAliasName, LimitExceeded, NotFound, Validation
from envfs.kms.actions import PREFIX
from envfs.kms.arn import RESERVED_ALIAS_PREFIXES, check_alias_name, key_id_text
from envfs.kms.audit.record import Call
from envfs.kms.catalogue import Key
from envfs.kms.material.specs import SPECS
from envfs.kms.model import NO_FACTS, Alias, Principal, RequestFacts
from envfs.kms.operations.on_key import OnKey
from envfs.kms.paging import check_limit, cut, make_marker, read_marker
from envfs.kms.schema import ALIASES, AliasRow
from envfs.kms.sealed_store import Transaction

MAX_ALIASES_PER_KEY: Final = 50
DEFAULT_PAGE: Final = 50
LARGEST_PAGE: Final = 100


class AliasOperations(OnKey):
    """An alias names one key of the account; a key can have several."""

    def create_alias(self, principal: Principal, name: str, key_id: str, facts: RequestFacts = NO_FACTS) -> None:
        """Makes `name` (with `alias/`) another name of the key. Needs kms:CreateAlias on the alias and on the key."""
        parameters = {"aliasName": name}
        with self._on_key("CreateAlias", principal, key_id, facts, parameters, changes=True) as (call, key):
            check_alias_name(name)
            if name.startswith(RESERVED_ALIAS_PREFIXES):
                raise InvalidAliasName(f"{name!r}: the prefix is reserved", hint="choose a name without it")
            self._authorise_alias(call, name)
            with self._change(call) as transaction:
                self._current(call, key, further=lambda: self._authorise_alias(call, name))
                self._add_alias(transaction, name, key)

    def update_alias(self, principal: Principal, name: str, key_id: str, facts: RequestFacts = NO_FACTS) -> None:
        """Makes `name` stand for another key of the same type and usage. Needs kms:UpdateAlias on the alias, on the
        key that it stands for and on the one that it will stand for; only the state of the latter matters.
        """
        parameters = {"aliasName": name}
        with self._on_key("UpdateAlias", principal, key_id, facts, parameters, changes=True) as (call, key):
            self._authorise_present(call, name)
            with self._change(call) as transaction:
                self._current(call, key, further=lambda: self._authorise_present(call, name))
                row = self._alias_row(name)
                _check_same_kind(self._key_of(row), key)
                transaction.put(ALIASES, row._replace(key_id=key.row.key_id, updated=self._now()))

    def delete_alias(self, principal: Principal, name: str, facts: RequestFacts = NO_FACTS) -> None:
        """Removes the alias; its key stays. Needs kms:DeleteAlias on the alias and on the key."""
        with self._recorded("DeleteAlias", principal, facts, {"aliasName": name}) as call:
            call.key_arn = self._authorise_present(call, name).arn
            with self._change(call) as transaction:
                if self._refresh():
                    call.decisions.clear()
                    call.key_arn = self._authorise_present(call, name).arn
                transaction.delete(ALIASES, name)

    def list_aliases(
        self,
        principal: Principal,
        key_id: str | None = None,
        *,
        limit: int = DEFAULT_PAGE,
        marker: str | None = None,
        facts: RequestFacts = NO_FACTS,
    ) -> tuple[tuple[Alias, ...], str | None]:
        """All aliases, or those of one key, by name; `limit` is at most 100."""
        with self._recorded("ListAliases", principal, facts) as call:
            self._authorise(call, "kms:ListAliases")
            check_limit(limit, LARGEST_PAGE)
            where = {}
            if key_id is not None:
                key = self._catalogue.resolve_key(key_id)
                call.key_arn = key.arn
                where = {"key_id": key.row.key_id}
            rows, more = cut(self._store.page(ALIASES, read_marker(marker, str), limit + 1, **where), limit)
            arn = self._account.alias_arn
            found = tuple(
                Alias(row.name, arn(row.name), key_id_text(row.key_id), row.created, row.updated) for row in rows
            )
            return found, make_marker(rows[-1].name) if more else None

    def _add_alias(self, transaction: Transaction, name: str, key: Key) -> None:
        if self._store.get(ALIASES, name) is not None:
            raise AlreadyExists(f"the alias {name!r} exists", hint="see: envfs key list")
        if len(self._store.find(ALIASES, key_id=key.row.key_id)) >= MAX_ALIASES_PER_KEY:
            raise LimitExceeded(f"{key.arn} has {MAX_ALIASES_PER_KEY} aliases, which is the most", hint="delete one")
        now = self._now()
        transaction.put(ALIASES, AliasRow(name, key.row.key_id, now, now))

    def _authorise_alias(self, call: Call, name: str) -> None:
        """The identity-policy half of a permission on an alias."""
        self._authorise(call, PREFIX + call.event, self._account.alias_arn(name))

    def _authorise_present(self, call: Call, name: str) -> Key:
        """The key that an alias stands for. AccessDenied unless policies allow the call on the alias and on that key,
        whose state is of no matter.
        """
        self._authorise_alias(call, name)
        key = self._key_of(self._alias_row(name))
        self._refuse_service_managed(call, key)
        self._permit(call, key, self._request(call, PREFIX + call.event, key))
        return key

    def _alias_row(self, name: str) -> AliasRow:
        row = self._store.get(ALIASES, name)
        if row is None:
            raise NotFound(f"there is no alias {name!r}", hint="see: envfs key list")
        return row

    def _key_of(self, row: AliasRow) -> Key:
        key = self._catalogue.find(row.key_id)
        if key is None:
            raise NotFound(f"the alias {row.name!r} has no key any more")
        return key


def _check_same_kind(old: Key, new: Key) -> None:
    """Whoever uses the alias must find a key with which he can do the same."""
    families = [SPECS[key.row.spec] for key in (old, new)]
    same_type = families[0].family is families[1].family or all(spec.is_asymmetric for spec in families)
    if not same_type or old.row.usage != new.row.usage:
        raise Validation(
            f"the alias stands for a {old.row.spec} key for {old.row.usage}, and {new.arn} is a {new.row.spec} key for"
            f" {new.row.usage}: type and usage must be the same",
            hint="delete the alias, and create it for the other key",
        )
