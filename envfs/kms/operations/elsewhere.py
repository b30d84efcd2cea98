"""Operations on what one host does not have: custom key stores, and other Regions.

They are authorised and recorded like all others, so that a caller who may not call them learns as much as on AWS.
"""

from __future__ import annotations

from typing import NoReturn

from envfs.errors import CustomKeyStoreNotFound, UnsupportedOperation
from envfs.kms.actions import PREFIX
from envfs.kms.model import NO_FACTS, Principal, RequestFacts
from envfs.kms.operations.on_key import OnKey


class ElsewhereOperations(OnKey):
    def describe_custom_key_stores(
        self, principal: Principal, named: str | None = None, facts: RequestFacts = NO_FACTS
    ) -> tuple[()]:
        """There are none. CustomKeyStoreNotFound for one that is named."""
        with self._recorded("DescribeCustomKeyStores", principal, facts) as call:
            self._authorise(call, "kms:DescribeCustomKeyStores")
            if named is not None:
                raise CustomKeyStoreNotFound(f"there is no custom key store {named!r}")
        return ()

    def refuse_custom_key_store(self, event: str, principal: Principal, facts: RequestFacts = NO_FACTS) -> NoReturn:
        """What is answered to `event`, an operation on custom key stores: UnsupportedOperation, if it is allowed."""
        with self._recorded(event, principal, facts) as call:
            self._authorise(call, PREFIX + event)
            raise UnsupportedOperation("there are no custom key stores here: the KMS keeps all keys in its own store")

    def refuse_other_region(
        self, event: str, principal: Principal, key_id: str, facts: RequestFacts = NO_FACTS
    ) -> NoReturn:
        """What is answered to `event`, an operation on a multi-Region key: no key is one. UnsupportedOperation."""
        with self._on_key(event, principal, key_id, facts, changes=True) as (_, key):
            raise UnsupportedOperation(f"{key.arn} is not a multi-Region key: this KMS has one Region")
