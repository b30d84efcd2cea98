"""From an HTTP request to its response: which protocol it speaks, who sends it, what it asks for."""

from __future__ import annotations

import functools
import json
import logging
import os
from typing import TYPE_CHECKING, Any, Final, NoReturn

from envfs.api import sts
from envfs.api.dispatch import Api, is_slow
from envfs.api.errors import InternalFailure, NotServed, Serialization, body_of, status_of
from envfs.api.http import HttpRequest, HttpResponse
from envfs.api.worker import Worker
from envfs.errors import EnvfsError
from envfs.foreign.waiting import ForeignWait
from envfs.kms.foreign.exchange import Pending
from envfs.kms.model import RequestFacts

if TYPE_CHECKING:
    from envfs.api.callers import Caller
    from envfs.kms.engine import Engine

JSON: Final = b"application/x-amz-json-1.1"
SERVICE: Final = "kms"
_HINTS: Final = b"x-envfs-hints"
_MAX_USER_AGENT: Final = 256
_log: Final = logging.getLogger(__name__)


class Responder:
    """Answers the requests of all connections. Lives in the trio thread, like the engine."""

    def __init__(self, engine: Engine) -> None:
        self._account_id = engine.account.account_id
        self._engine = engine
        self._api = Api(engine)
        self._foreign = ForeignWait()
        engine.never_wait()
        self._worker = Worker(engine)

    async def respond(self, request: HttpRequest, caller: Caller) -> HttpResponse:
        """The response, whatever the request was."""
        request_id = new_request_id()
        is_query = b"x-amz-target" not in request.headers and request.headers.get(b"content-type", b"").startswith(
            sts.FORM
        )
        try:
            if is_query:
                return self._answer_query(request, caller, request_id)
            answer = await self._answer(request, caller, request_id)
            body = json.dumps(answer, separators=(",", ":")).encode("ascii") if answer else b""
            return HttpResponse(200, JSON, body, request_id)
        except EnvfsError as error:
            problem = error
        except Exception:  # noqa: BLE001  (a defect must not take the server down)
            _log.exception("request %s failed", request_id)
            problem = InternalFailure("an error of the server's own; its log has the particulars")
        if is_query:
            status, body = sts.error(problem, request_id)
            return HttpResponse(status, sts.XML, body, request_id)
        return error_response(problem, request_id, with_hint=_HINTS in request.headers)

    def release(self) -> None:
        """Lets go of every engine but the first; waits for calls that use one. For a thread."""
        self._worker.release()

    def close(self) -> None:
        self._worker.close()

    async def _answer(self, request: HttpRequest, caller: Caller, request_id: str) -> dict[str, Any]:
        _check_place(request)
        target = request.headers.get(b"x-amz-target", b"").decode("latin-1")
        principal = caller.identify(request, SERVICE)
        content = parse_json(request.body)
        agent = request.headers.get(b"user-agent", b"")[:_MAX_USER_AGENT].decode("latin-1")
        facts = RequestFacts(source_ip=caller.source_ip, user_agent=agent, request_id=request_id)
        if is_slow(target, content):
            return await self._worker.call(principal, target, content, facts)
        try:
            return self._api.call(principal, target, content, facts)
        except Pending as pending:
            again = functools.partial(self._api.call, principal, target, content, facts)
            return await self._foreign.complete(self._engine, principal.uid, again, pending)

    def _answer_query(self, request: HttpRequest, caller: Caller, request_id: str) -> HttpResponse:
        _check_place(request)
        principal = caller.identify(request, sts.SERVICE)
        sts.check_action(request.body)
        return HttpResponse(200, sts.XML, sts.caller_identity(principal, self._account_id, request_id), request_id)


def error_response(error: EnvfsError, request_id: str, *, with_hint: bool = False) -> HttpResponse:
    """An error in AWS JSON."""
    body = json.dumps(body_of(error, with_hint=with_hint), separators=(",", ":")).encode("ascii")
    return HttpResponse(status_of(error), JSON, body, request_id)


def new_request_id() -> str:
    """A version 4 UUID (RFC 9562 section 5.4), quicker than `uuid` makes it."""
    text = os.urandom(16).hex()
    return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-a{text[17:20]}-{text[20:]}"


def parse_json(body: bytes) -> object:
    """Serialization for what is no JSON in UTF-8, or is nested deeper than any request."""
    if not body:
        return {}
    try:
        return json.loads(body.decode("utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise Serialization("the body is no JSON") from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)  # NaN and Infinity, which Python reads and JSON does not have


def _check_place(request: HttpRequest) -> None:
    if request.method != b"POST" or request.target != b"/":
        raise NotServed("requests are sent with POST to /")
