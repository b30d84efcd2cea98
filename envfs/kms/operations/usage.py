"""GetKeyLastUsage: what the audit trail says about a key.

https://docs.aws.amazon.com/kms/latest/APIReference/API_GetKeyLastUsage.html
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from envfs.crypto.secret import Secret
from envfs.kms.audit.chain import chain_mac
from envfs.kms.audit.last_usage import find_last_usage
from envfs.kms.audit.trail import AUDIT_DIRECTORY
from envfs.kms.model import NO_FACTS, LastUsage, Principal, RequestFacts
from envfs.kms.operations.on_key import OnKey
from envfs.kms.schema import AUDIT_CHAINS


class UsageOperations(OnKey):
    _home: Path
    _root_key: Secret
    _store_id: bytes

    def get_key_last_usage(self, principal: Principal, key_id: str, facts: RequestFacts = NO_FACTS) -> LastUsage:
        """The last cryptographic operation on the key that succeeded. There are records from the first day of a KMS on,
        so that the tracking starts when the key is made.
        """
        with self._on_key("GetKeyLastUsage", principal, key_id, facts) as (_, key):
            rows = self._store.find(AUDIT_CHAINS)
            macs = partial(chain_mac, self._root_key, self._store_id)
            usage = find_last_usage(self._home / AUDIT_DIRECTORY, rows, macs, key.arn)
            return LastUsage(key.arn, key.row.created, key.row.created, usage)
