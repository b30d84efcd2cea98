"""Audit records: CloudTrail's fields, and what a Unix host knows beside.

https://docs.aws.amazon.com/awscloudtrail/latest/userguide/cloudtrail-event-reference-record-contents.html
Never plaintext, ciphertext, tokens or key material. The JSON is put together from pieces that were encoded once,
because there is one record for each file that is opened.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from functools import lru_cache
from json.encoder import encode_basestring_ascii as quote
from typing import Any, Final, Protocol

from envfs.errors import EnvfsError, KmsError
from envfs.kms.actions import READ_ONLY, SERVICE_EVENTS
from envfs.kms.arn import Account
from envfs.kms.model import NO_FACTS, Principal, RequestFacts
from envfs.kms.policy.decision import Decision
from envfs.kms.policy.request import NO_PAIRS

EVENT_VERSION: Final = "1.09"

_MAX_EXECUTABLES: Final = 4096
_executables: Final[dict[int, tuple[int, str | None]]] = {}  # pid → when it was asked (seconds since 1970), what it ran

# Bounds on what callers can make long, so that a record always fits into a line of the chain (`chain.MAX_LINE`), with
# up to twelve bytes for a character. No request that can succeed has longer parameters: a policy, a description and
# tags come to 430 KB at most.
MAX_PARAMETERS: Final = 512 << 10  # bytes
MAX_MESSAGE: Final = 4096  # characters
MAX_PATH: Final = 8192  # characters
MAX_SID: Final = 256  # characters


class AuditSink(Protocol):
    """Where records go. `write` returns when the record is written, or raises: then the caller gets no key."""

    def prepare(self) -> None:
        """Before a transaction of the store: whatever needs a transaction of its own is done now."""

    def write(self, record: str) -> None:
        """One record, a JSON object without its closing brace. `Internal` if it cannot be written."""

    def anchor(self) -> None:
        """What was written until now cannot be cut off unnoticed any more."""

    def set_durable(self, *, on: bool) -> None:
        """Whether `write` returns only when the record is on the disk."""

    def close(self) -> None: ...


class Call:
    """One call of the KMS while it is under way: what the audit record will tell. `principal` None: envfs itself.

    `other_arn`: a second key, where there are two. `response`: what CloudTrail tells of the answer, where it does.
    `authorisation`: what the decision was asked for, so that it can be asked for again.
    """

    __slots__ = (
        "authorisation",
        "context",
        "decisions",
        "event",
        "facts",
        "is_recorded",
        "key_arn",
        "other_arn",
        "parameters",
        "principal",
        "response",
    )

    def __init__(
        self,
        event: str,
        principal: Principal | None,
        facts: RequestFacts = NO_FACTS,
        context: Mapping[str, str] = NO_PAIRS,
        parameters: Mapping[str, object] | None = None,
    ) -> None:
        self.event = event
        self.principal = principal
        self.facts = facts
        self.context = context
        self.parameters = parameters
        self.key_arn = ""
        self.other_arn = ""
        self.is_recorded = False
        self.decisions: list[Decision] = []
        self.response: Mapping[str, object] | None = None
        self.authorisation: Mapping[str, Any] | None = None


class Recorder:
    """Turns calls into records and hands them to a sink."""

    def __init__(self, sink: AuditSink, account: Account) -> None:
        self._sink = sink
        self._account = account
        self._second = -1
        self._time_text = ""
        self._tail = f',"recipientAccountId":"{account.account_id}","envfs":{{'

    def prepare(self) -> None:
        self._sink.prepare()

    def anchor(self) -> None:
        self._sink.anchor()

    def set_durable(self, *, on: bool) -> None:
        self._sink.set_durable(on=on)

    def close(self) -> None:
        self._sink.close()

    def record(self, call: Call, now: float, generation: int, error: EnvfsError | None = None) -> None:
        """Writes the record of `call`, which succeeded or failed with `error`. `generation` is the store's."""
        principal = call.principal
        pieces = [
            _identity(principal, self._account),
            f',"eventTime":"{self._format_time(now)}"',
            _event(call.event, self._account.region),
            "null" if call.response is None else compact(call.response),
            ',"requestParameters":',
            _parameters(call),
            _ids(os.urandom(32).hex(), call.facts.request_id),
            _resources(call.key_arn, call.other_arn, self._account.account_id) if call.key_arn else "",
            "" if error is None else _error(error),
            _origin(call.facts),
            self._tail,
            _unix(principal, call.facts, self._second),
            f'"decisions":[{",".join([_decision_json(one) for one in call.decisions])}],"generation":{generation}}}',
        ]
        self._sink.write("".join(pieces))

    def _format_time(self, now: float) -> str:
        second = int(now)
        if second != self._second:
            self._time_text = format_time(second)
            self._second = second
        return self._time_text


def format_time(second: int) -> str:
    """CloudTrail's eventTime: UTC in whole seconds."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(second))


def _ids(random: str, request_id: str) -> str:
    """UUIDs of version 4 (RFC 9562 section 5.4) from 64 hexadecimal digits; the first one only if a server has not
    given the request one already.
    """
    request_id = request_id or f"{random[:8]}-{random[8:12]}-4{random[13:16]}-a{random[17:20]}-{random[20:32]}"
    event_id = f"{random[32:40]}-{random[40:44]}-4{random[45:48]}-a{random[49:52]}-{random[52:]}"
    return f',"requestID":"{request_id}","eventID":"{event_id}"'


@lru_cache(maxsize=4096)
def _identity_json(arn: str, uid: int, name: str, account_id: str, *, root: bool) -> str:
    identity = {
        "type": "Root" if root else "IAMUser",
        "principalId": str(uid),
        "arn": arn,
        "accountId": account_id,
        "userName": name,
    }
    return f'{{"eventVersion":"{EVENT_VERSION}","userIdentity":{compact(identity)}'


def _identity(principal: Principal | None, account: Account) -> str:
    if principal is None:
        return f'{{"eventVersion":"{EVENT_VERSION}","userIdentity":{{"type":"AWSService","invokedBy":"envfs"}}'
    return _identity_json(
        principal.arn, principal.uid, principal.name, account.account_id, root=principal.is_account_root
    )


@lru_cache(maxsize=256)
def _event(event: str, region: str) -> str:
    source, _, name = event.rpartition(":") if ":" in event else ("kms", "", event)
    read_only = "true" if name in READ_ONLY else "false"
    kind = "AwsServiceEvent" if name in SERVICE_EVENTS else "AwsApiCall"
    return (
        f',"eventSource":{quote(f"{source}.envfs")},"eventName":{quote(name)},"awsRegion":{quote(region)}'
        f',"eventType":"{kind}","readOnly":{read_only},"responseElements":'
    )


def _parameters(call: Call) -> str:
    pieces = [f'"keyId":{quote(call.key_arn)}'] if call.key_arn else []
    if call.context:
        pairs = ",".join([f"{quote(key)}:{quote(value)}" for key, value in call.context.items()])
        pieces.append(f'"encryptionContext":{{{pairs}}}')
    if call.parameters:
        pieces += [f"{quote(name)}:{_value(value)}" for name, value in call.parameters.items()]
    shown = f"{{{','.join(pieces)}}}"
    return shown if len(shown) <= MAX_PARAMETERS else _omitted(call.key_arn, len(shown))


def _omitted(key_arn: str, size: int) -> str:
    """In place of parameters of `size` bytes, which are too long for a record."""
    key = {"keyId": key_arn} if key_arn else {}
    return compact({**key, "omitted": True, "originalSize": size, "reason": "requestParameters too large"})


def _bounded(text: str, limit: int) -> str:
    """Its beginning and its end, if it has more than `limit` characters."""
    return text if len(text) <= limit else f"{text[: limit // 2]}…{text[-(limit // 2) :]}"


def _value(value: object) -> str:
    # The usual ones without the JSON encoder, which costs as much as the rest of a record.
    if type(value) is str:
        return quote(value)
    if type(value) is dict and all(type(one) is str for pair in value.items() for one in pair):
        return "{" + ",".join([f"{quote(key)}:{quote(text)}" for key, text in value.items()]) + "}"
    return str(value) if type(value) is int else compact(value)


@lru_cache(maxsize=4096)
def _resources(arn: str, other_arn: str, account_id: str) -> str:
    arns = [one for one in (arn, other_arn) if one]
    return f',"resources":{compact([{"accountId": account_id, "type": "AWS::KMS::Key", "ARN": one} for one in arns])}'


def _error(error: EnvfsError) -> str:
    code = error.code if isinstance(error, KmsError) else "KMSInternalException"
    return f',"errorCode":{quote(code)},"errorMessage":{quote(_bounded(error.message, MAX_MESSAGE))}'


def _origin(facts: RequestFacts) -> str:
    """Where a request came from over the network, and what its client calls itself."""
    address = "" if facts.source_ip is None else f',"sourceIPAddress":{quote(facts.source_ip)}'
    agent = "" if facts.user_agent is None else f',"userAgent":{quote(facts.user_agent)}'
    return address + agent


def _unix(principal: Principal | None, facts: RequestFacts, second: int) -> str:
    who = ""
    if principal is not None:
        who = _who(principal.uid, principal.gid, principal.pid, _executable(principal.pid, second))
    path = "" if facts.path is None else f'"path":{quote(_bounded(facts.path, MAX_PATH))},'
    if path and not facts.path_is_proven:
        path += '"pathMayBeFormer":true,'
    access = "" if facts.access is None else f'"access":"{facts.access}",'
    via = "" if facts.via_service is None else f'"viaService":{quote(facts.via_service)},'
    return f"{who}{path}{access}{via}"


@lru_cache(maxsize=4096)
def _who(uid: int, gid: int, pid: int, executable: str | None) -> str:
    shown = "" if executable is None else f'"executable":{quote(executable)},'
    return f'"uid":{uid},"gid":{gid},"pid":{pid},{shown}'


def _executable(pid: int, second: int) -> str | None:
    """The program that runs as `pid`; None where the kernel does not say (proc_pid_exe(5)): the process is another
    user's, in another pid namespace (0), or gone. A process may become another program: what is told was so in this
    `second`, or the one in which it was asked last.
    """
    if pid <= 0:
        return None
    known = _executables.get(pid)
    if known is not None and known[0] == second:
        return known[1]
    try:
        path: str | None = os.readlink(f"/proc/{pid}/exe")  # noqa: PTH115 - a Path costs as much again
    except OSError:
        path = None
    if len(_executables) >= _MAX_EXECUTABLES:
        _executables.clear()
    _executables[pid] = second, path
    return path


@lru_cache(maxsize=4096)
def _decision_json(decision: Decision) -> str:
    statements: Sequence[dict[str, object]] = [
        statement._asdict() | {"sid": _bounded(statement.sid, MAX_SID)} for statement in decision.statements
    ]
    shown = {"allowed": decision.allowed, "reason": decision.reason.value, "statements": statements}
    return compact(shown | {"grant": decision.grant} if decision.grant else shown)


def compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
