"""GenerateMac and VerifyMac.

https://docs.aws.amazon.com/kms/latest/APIReference/API_GenerateMac.html and its neighbour
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from envfs.kms.audit.record import Call
from envfs.kms.catalogue import Key
from envfs.kms.material import macs
from envfs.kms.material.macs import check_message
from envfs.kms.material.specs import GENERATE_VERIFY_MAC
from envfs.kms.model import NO_FACTS, GeneratedMac, Principal, RequestFacts, Verified
from envfs.kms.operations.use import KeyUse


class MacOperations(KeyUse):
    """Message authentication codes of HMAC keys."""

    def generate_mac(
        self, principal: Principal, key_id: str, message: bytes, algorithm: str, facts: RequestFacts = NO_FACTS
    ) -> GeneratedMac:
        """The MAC of `message` (1 to 4,096 bytes)."""
        with self._macs("GenerateMac", principal, key_id, message, algorithm, facts) as (call, key):
            self._stop_dry_run(call)
            mac = macs.compute(self._raw_key(key), algorithm, message)
        return GeneratedMac(mac, key.arn, algorithm)

    def verify_mac(
        self,
        principal: Principal,
        key_id: str,
        message: bytes,
        mac: bytes,
        algorithm: str,
        facts: RequestFacts = NO_FACTS,
    ) -> Verified:
        """InvalidMac unless `mac` is that of `message` under this key and algorithm."""
        with self._macs("VerifyMac", principal, key_id, message, algorithm, facts) as (call, key):
            self._stop_dry_run(call)
            macs.verify(self._raw_key(key), algorithm, message, mac)
        return Verified(key.arn, algorithm)

    @contextmanager
    def _macs(
        self, event: str, principal: Principal, key_id: str, message: bytes, algorithm: str, facts: RequestFacts
    ) -> Iterator[tuple[Call, Key]]:
        with self._use(
            event,
            principal,
            key_id,
            facts,
            GENERATE_VERIFY_MAC,
            algorithm,
            {"macAlgorithm": algorithm},
            {"kms:macalgorithm": algorithm},
        ) as (call, key):
            check_message(message)
            yield call, key
