"""What all operations of the engine share: the newest state, the way to a decision, the record of a call."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Final, Protocol

from envfs.crypto.kdf import Label
from envfs.errors import AccessDenied, DryRunOperation, EnvfsError, Validation
from envfs.kms.actions import PREFIX
from envfs.kms.arn import Account
from envfs.kms.audit.record import Call, Recorder
from envfs.kms.catalogue import Catalogue, Key
from envfs.kms.foreign.exchange import Asker, Exchange
from envfs.kms.grant_token import GrantTokens
from envfs.kms.keyring import Keyring
from envfs.kms.model import NO_FACTS, Principal, RequestFacts
from envfs.kms.policy.decision import Decision
from envfs.kms.policy.evaluator import evaluate
from envfs.kms.policy.grants import GrantSet
from envfs.kms.policy.request import NO_EXTRA, NO_PAIRS, ConditionValue, GrantTerms, Request
from envfs.kms.schema import ACCESS_KEYS, AUDIT_CHAINS, BACKING_KEYS, PINS, ROOT_SLOTS
from envfs.kms.sealed_store import SealedStore, Transaction
from envfs.kms.states import check_state

EVERY_RESOURCE: Final = "*"
MAX_GRANT_TOKENS: Final = 10
# Tables on which no decision depends; all others do, so that a new one is not forgotten here.
_DECIDE_NOTHING: Final = frozenset({AUDIT_CHAINS.name, ROOT_SLOTS.name, ACCESS_KEYS.name})


class UserDirectory(Protocol):
    """The host's user database, as far as policies need it."""

    def uid_of(self, name: str) -> int | None:
        """The uid of the user called `name`; None if there is none."""


class Core:
    """The parts of an engine. Used from one thread at a time."""

    def __init__(
        self,
        store: SealedStore,
        account: Account,
        keyring: Keyring,
        recorder: Recorder,
        clock: Callable[[], float],
        users: UserDirectory,
    ) -> None:
        self._store = store
        self._account = account
        self._keyring = keyring
        self._recorder = recorder
        self._clock = clock
        self._users = users
        self._catalogue = Catalogue(store, account, clock)
        self._pins: dict[int, str] | None = None
        self._principal_prefix = account.principal_prefix
        self._grant_tokens = GrantTokens(keyring.mac(Label.GRANT_TOKEN))
        self._changes = 0
        self._asker = Asker()

    def never_wait(self) -> None:
        """For an engine in the thread of an event loop: calls that need a foreign KMS raise `exchange.Pending`."""
        self._asker.never_wait()

    def answering(self, exchange: Exchange) -> AbstractContextManager[None]:
        """The calls in the block find the answers of foreign KMSs in `exchange`."""
        return self._asker.answering(exchange)

    def recall(self) -> bytes:
        """What a call that is made again put into `Pending.kept`; else empty."""
        return self._asker.recall()

    def _refresh(self) -> bool:
        """Every call begins with this: what another process changed counts from now on. True if anything did change."""
        tables = self._store.poll()
        if not tables:
            return False
        self._catalogue.drop(tables)
        if not tables <= _DECIDE_NOTHING:
            self._changes += 1
        if BACKING_KEYS.name in tables:
            self._keyring.forget()
        if PINS.name in tables:
            self._pins = None
        return True

    def _request(
        self,
        call: Call,
        action: str,
        key: Key | None,
        resource: str = EVERY_RESOURCE,
        extra: Mapping[str, ConditionValue] = NO_EXTRA,
        context: Mapping[str, str] | None = None,
        proposal: GrantTerms | None = None,
    ) -> Request:
        assert call.principal is not None  # only calls of somebody are authorised
        return Request(
            call.principal,
            action,
            resource if key is None else key.arn,
            None if key is None else key.facts,
            call.context if context is None else context,
            call.facts,
            extra,
            self._clock(),
            self._account.account_id,
            self._principal_prefix,
            proposal,
        )

    def _decide(self, request: Request, key: Key | None, grants: GrantSet | None = None) -> Decision:
        identity_policies = self._catalogue.identity_policies(request.principal)
        if key is None:
            return evaluate(request, None, identity_policies)
        counting = self._catalogue.grants(key) if grants is None else grants
        return evaluate(request, key.policy, identity_policies, counting)

    def _authorise_key(
        self,
        call: Call,
        key: Key,
        *,
        action: str | None = None,
        also: Sequence[str] = (),
        extra: Mapping[str, ConditionValue] = NO_EXTRA,
        context: Mapping[str, str] | None = None,
        proposal: GrantTerms | None = None,
        grants: GrantSet | None = None,
    ) -> None:
        """AccessDenied unless policies or grants allow `action` (by default the call's event) and the actions `also`;
        then the key's state is looked at. `context`: the encryption context, if it is another than the call's;
        `grants`: the grants that count, if it is not all of the key.
        """
        call.key_arn = key.arn
        call.authorisation = {
            "action": action,
            "also": also,
            "extra": extra,
            "context": context,
            "proposal": proposal,
            "grants": grants,
        }
        if call.facts.grant_tokens:
            self._check_grant_tokens(call.facts.grant_tokens)
        actions = (action or PREFIX + call.event, *also)
        for one in actions:
            self._permit(call, key, self._request(call, one, key, EVERY_RESOURCE, extra, context, proposal), grants)
        # After the decision: the state of a key is nothing that a stranger should learn.
        for one in actions:
            check_state(one.removeprefix(PREFIX), key.state, key.row.origin, key.arn)

    def _authorise_key_again(self, call: Call, key: Key) -> None:
        """The same once more, after something changed: as `_authorise_key` was asked the last time."""
        call.decisions.clear()
        self._authorise_key(call, key, **(call.authorisation or {}))

    def _check_grant_tokens(self, tokens: Sequence[str]) -> None:
        """Authentic ones are all right, whichever grants they are of: a grant counts from the moment that it is made,
        with its token and without.
        """
        if len(tokens) > MAX_GRANT_TOKENS:
            raise Validation(f"a request has at most {MAX_GRANT_TOKENS} grant tokens, not {len(tokens)}")
        for token in tokens:
            self._grant_tokens.open(token)

    def _permit(self, call: Call, key: Key, request: Request, grants: GrantSet | None = None) -> None:
        """AccessDenied unless policies or grants allow `request` on the key, whatever the key's state."""
        decision = self._decide(request, key, grants)
        call.decisions.append(decision)
        if not decision.allowed:
            raise self._denied(call, request.action, key.arn, decision)

    def _authorise(
        self, call: Call, action: str, resource: str = EVERY_RESOURCE, extra: Mapping[str, ConditionValue] = NO_EXTRA
    ) -> None:
        """AccessDenied unless identity policies allow `action`, which involves no key."""
        decision = self._decide(self._request(call, action, None, resource, extra), None)
        call.decisions.append(decision)
        if not decision.allowed:
            raise self._denied(call, action, resource, decision)

    def _denied(self, call: Call, action: str, resource: str, decision: Decision) -> AccessDenied:
        assert call.principal is not None
        return AccessDenied(f"{call.principal.arn} is not allowed to perform {action} on {resource}: {decision.text}")

    @contextmanager
    def _recorded(
        self,
        event: str,
        principal: Principal | None,
        facts: RequestFacts = NO_FACTS,
        parameters: Mapping[str, object] | None = None,
    ) -> Iterator[Call]:
        """A call that hands out no key: recorded when it has succeeded, and when it has failed."""
        self._refresh()
        call = Call(event, principal, facts, NO_PAIRS, parameters)
        try:
            yield call
        except EnvfsError as error:
            self._record(call, error)
            raise
        if not call.is_recorded:
            self._record(call, None)

    @contextmanager
    def _change(self, call: Call) -> Iterator[Transaction]:
        """A change of the store within `_recorded`. Its record is written before it is committed: none without the
        other. A dry run ends here, when all is checked, and leaves nothing.
        """
        self._recorder.prepare()
        with self._store.transaction() as transaction:
            yield transaction
            self._stop_dry_run(call)
            self._record(call, None)
            call.is_recorded = True
        self._refresh()

    @staticmethod
    def _stop_dry_run(call: Call) -> None:
        """Where a call has passed every check, and before it has any effect."""
        if call.facts.dry_run:
            raise DryRunOperation("the request would have succeeded, but the DryRun option is set")

    def _now(self) -> int:
        """Seconds since 1970, as rows have them."""
        return int(self._clock())

    def _record(self, call: Call, error: EnvfsError | None) -> None:
        self._recorder.record(call, self._clock(), self._store.generation, error)
