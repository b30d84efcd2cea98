"""What was allowed once and is still in use (an open file): whether it would be allowed now, and until when."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from envfs.errors import EnvfsError, KmsError, NotFound
from envfs.format.blob import read_any_blob
from envfs.kms.actions import PREFIX
from envfs.kms.audit.record import Call
from envfs.kms.catalogue import Key
from envfs.kms.core import Core
from envfs.kms.model import SYMMETRIC_DEFAULT, Principal, RequestFacts
from envfs.kms.policy.moments import next_moment
from envfs.kms.policy.request import ConditionValue
from envfs.kms.states import check_state

_ALGORITHM: Final[Mapping[str, ConditionValue]] = {"kms:encryptionalgorithm": SYMMETRIC_DEFAULT}


class Use(NamedTuple):
    """A use of a key that goes on. `key`: its ARN, or a blob under it; `actions`: all that it needs."""

    principal: Principal
    actions: tuple[str, ...]
    key: bytes | str
    context: Mapping[str, str]
    facts: RequestFacts


class StandingOperations(Core):
    """No record for what stays allowed: nothing happens then."""

    @property
    def changes(self) -> int:
        """Becomes another number with each change of the store, by whatever process, that decisions may depend on.

        Looks for changes first, which costs some microseconds.
        """
        self._refresh()
        return self._changes

    @property
    def now(self) -> float:
        """The KMS's clock, seconds since 1970."""
        return self._clock()

    def still_allowed(self, use: Use) -> tuple[EnvfsError | None, float]:
        """What the use would be refused with now (None: nothing), and until when that stands if nothing is changed:
        seconds since 1970; infinity; or `AT_ANY_TIME`.
        """
        self._refresh()
        call = Call(use.actions[0].removeprefix(PREFIX), use.principal, use.facts, use.context)
        key = self._key_in_use(use.key)
        if key is None:
            return NotFound("the key does not exist any more"), math.inf
        error: KmsError | None = None
        try:
            for action in use.actions:
                self._permit(call, key, self._request(call, action, key, extra=_ALGORITHM))
            for action in use.actions:
                check_state(action.removeprefix(PREFIX), key.state, key.row.origin, key.arn)
        except KmsError as refusal:
            error = refusal
        return error, self._stands_until(use.principal, key)

    def _stands_until(self, principal: Principal, key: Key) -> float:
        policies = (key.policy, *self._catalogue.identity_policies(principal))
        moments: list[Sequence[float]] = [policy.moments for policy in policies if policy.moments]
        if key.expires:
            moments.append((float(key.expires),))
        return next_moment(moments, self._clock())

    def _key_in_use(self, key: bytes | str) -> Key | None:
        if isinstance(key, bytes):
            return self._catalogue.find(read_any_blob(key).key_id)
        try:
            return self._catalogue.resolve(key)
        except NotFound:
            return None

    def record_revocation(self, use: Use, error: EnvfsError) -> None:
        """envfs:OpenFileRevoked: somebody has lost what he has open, because of `error`. `Internal` if the record
        cannot be written.
        """
        self._refresh()
        call = Call("envfs:OpenFileRevoked", use.principal, use.facts, use.context)
        key = self._key_in_use(use.key)
        if key is not None:
            call.key_arn = key.arn
            for action in use.actions:
                call.decisions.append(self._decide(self._request(call, action, key, extra=_ALGORITHM), key))
        self._record(call, error)
