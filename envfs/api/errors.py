"""Errors as AWS sends them: code, HTTP status and body; and those that only a protocol can have.

https://docs.aws.amazon.com/kms/latest/APIReference/CommonErrors.html and the errors of each operation there
"""

from __future__ import annotations

from typing import Final

from envfs import errors
from envfs.errors import EnvfsError, Internal, KmsError


class Serialization(KmsError):
    """No JSON, or JSON of another type than the member has."""

    code = "SerializationException"


class UnknownOperation(KmsError):
    code = "UnknownOperationException"


class NotServed(UnknownOperation):
    """No operation at all: another path, or another method."""


class MalformedRequest(KmsError):
    """No HTTP/1.1 request."""

    code = "MalformedHttpRequestException"


class RequestTooLarge(KmsError):
    code = "RequestEntityTooLargeException"


class RequestTimeout(KmsError):
    """The client was too slow."""

    code = "RequestTimeoutException"


class MissingAuthentication(KmsError):
    code = "MissingAuthenticationTokenException"


class IncompleteSignature(KmsError):
    code = "IncompleteSignatureException"


class SignatureMismatch(KmsError):
    """The signature is not that of the request, or too old, or seen before."""

    code = "InvalidSignatureException"


class UnrecognizedClient(KmsError):
    """There is no such access key, or its user is not who he was."""

    code = "UnrecognizedClientException"


class InternalFailure(KmsError):
    """A defect of the server; its log has the particulars."""

    code = "InternalFailure"


class RemoteError(KmsError):
    """An error with a code that this release has no class for."""

    def __init__(self, code: str, message: str = "", *, hint: str = "") -> None:
        super().__init__(f"{code}: {message}" if message else code, hint=hint)


_STATUS: Final = {
    "KMSInternalException": 500,
    "KeyUnavailableException": 500,
    "DependencyTimeoutException": 503,
    "InternalFailure": 500,
    "RequestTimeoutException": 408,
    "RequestEntityTooLargeException": 413,
}
BAD_REQUEST: Final = 400
NOT_FOUND: Final = 404


def code_of(error: EnvfsError) -> str:
    """AWS's name for `error`. What is no error of the KMS protocol is one of the KMS itself."""
    return error.code if isinstance(error, KmsError) else Internal.code


def status_of(error: EnvfsError) -> int:
    """The HTTP status that AWS sends with it."""
    if isinstance(error, NotServed):
        return NOT_FOUND
    return _STATUS.get(code_of(error), BAD_REQUEST)


def body_of(error: EnvfsError, *, with_hint: bool = False) -> dict[str, str]:
    """The JSON of an error. `with_hint`: for envfs's own client, which shows the next step."""
    body = {"__type": code_of(error), "message": error.message}
    if with_hint and error.hint:
        body["hint"] = error.hint
    return body


def error_from(body: object) -> EnvfsError:
    """The error that `body_of` made `body` from."""
    fields = body if isinstance(body, dict) else {}
    code, message, hint = (str(fields.get(name, "")) for name in ("__type", "message", "hint"))
    known = _BY_CODE.get(code)
    return RemoteError(code or Internal.code, message, hint=hint) if known is None else known(message, hint=hint)


def _classes() -> dict[str, type[KmsError]]:
    own = (value for value in globals().values() if isinstance(value, type) and issubclass(value, KmsError))
    known = (value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, KmsError))
    named = (cls for cls in (*own, *known) if "code" in vars(cls))  # others share the code of their base
    classes = {cls.code: cls for cls in named if cls not in {KmsError, RemoteError}}
    return {**classes, Internal.code: Internal}


_BY_CODE: Final = _classes()
