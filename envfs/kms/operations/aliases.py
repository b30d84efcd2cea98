"""CreateAlias and ListAliases: other names of keys."""

from __future__ import annotations

from envfs.errors import AlreadyExists, InvalidAliasName
from envfs.kms.arn import RESERVED_ALIAS_PREFIXES, check_alias_name, key_id_text
from envfs.kms.catalogue import Key
from envfs.kms.model import NO_FACTS, Alias, Principal, RequestFacts
from envfs.kms.operations.on_key import OnKey
from envfs.kms.schema import ALIASES, AliasRow
from envfs.kms.sealed_store import Transaction


class AliasOperations(OnKey):
    """An alias names one key of the account; a key can have several."""

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

    def _add_alias(self, transaction: Transaction, name: str, key: Key) -> None:
        if self._store.get(ALIASES, name) is not None:
            raise AlreadyExists(f"the alias {name!r} exists", hint="see: envfs key list")
        transaction.put(ALIASES, AliasRow(name, key.row.key_id, self._now()))
