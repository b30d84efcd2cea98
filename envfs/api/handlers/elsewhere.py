"""Operations on what one host does not have: custom key stores, and other Regions."""

from __future__ import annotations

from typing import Final, NoReturn

from envfs.api.answers import page
from envfs.api.handlers.common import Answer, Handler, Members
from envfs.kms.engine import Engine
from envfs.kms.model import Principal, RequestFacts

_KEY_STORE_OPERATIONS: Final = (
    "ConnectCustomKeyStore",
    "CreateCustomKeyStore",
    "DeleteCustomKeyStore",
    "DisconnectCustomKeyStore",
    "UpdateCustomKeyStore",
)


def describe_custom_key_stores(engine: Engine, principal: Principal, members: Members, facts: RequestFacts) -> Answer:
    named = members.get("CustomKeyStoreId") or members.get("CustomKeyStoreName")
    engine.describe_custom_key_stores(principal, named, facts)
    return page("CustomKeyStores", (), None)


def replicate_key(engine: Engine, principal: Principal, members: Members, facts: RequestFacts) -> NoReturn:
    engine.refuse_other_region("ReplicateKey", principal, members["KeyId"], facts)


def update_primary_region(engine: Engine, principal: Principal, members: Members, facts: RequestFacts) -> NoReturn:
    engine.refuse_other_region("UpdatePrimaryRegion", principal, members["KeyId"], facts)


def _refuse(operation: str) -> Handler:
    def handler(engine: Engine, principal: Principal, _members: Members, facts: RequestFacts) -> NoReturn:
        engine.refuse_custom_key_store(operation, principal, facts)

    return handler


HANDLERS: Final[dict[str, Handler]] = {
    "DescribeCustomKeyStores": describe_custom_key_stores,
    "ReplicateKey": replicate_key,
    "UpdatePrimaryRegion": update_primary_region,
    **{operation: _refuse(operation) for operation in _KEY_STORE_OPERATIONS},
}
