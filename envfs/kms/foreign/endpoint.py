"""Encrypt and Decrypt at a foreign KMS: within a bounded time, tried again where that may help, and for a moment after
it failed not tried at all.
"""

from __future__ import annotations

import http.client
import random
import ssl
import threading
import time
from collections.abc import Mapping
from typing import Any, Final

from envfs.crypto.secret import Secret
from envfs.errors import (
    AccessDenied,
    ConfigError,
    Disabled,
    EnvfsError,
    IncorrectKey,
    Internal,
    InvalidCiphertext,
    InvalidState,
    KeyUnavailable,
    KmsTimeout,
    KmsUnreachable,
    NotFound,
    Throttling,
)
from envfs.kms.foreign.breaker import Breaker
from envfs.kms.foreign.client import Client, load_botocore
from envfs.kms.foreign.configuration import ForeignKey

ATTEMPT_SECONDS: Final = 3.0
TOTAL_SECONDS: Final = 8.0
ATTEMPTS: Final = 3
FIRST_PAUSE: Final = 0.1
MAX_CIPHERTEXT: Final = 6144  # AWS's limit for CiphertextBlob

_TRIAL_CONTEXT: Final = {"envfs:purpose": "trial"}
_RESULTS: Final = {"encrypt": "CiphertextBlob", "decrypt": "Plaintext"}
_MAX_MESSAGE: Final = 300

_THROTTLED: Final = frozenset(
    {"ThrottlingException", "Throttling", "TooManyRequestsException", "LimitExceededException"}
)
_PASSING: Final = frozenset({"KMSInternalException", "KeyUnavailableException", "DependencyTimeoutException",
                             "InternalFailure", "ServiceUnavailable", "InternalServerError"})  # fmt: skip
_CREDENTIALS: Final = frozenset({"UnrecognizedClientException", "InvalidSignatureException", "InvalidClientTokenId",
                                 "ExpiredTokenException", "ExpiredToken", "IncompleteSignatureException",
                                 "IncompleteSignature", "MissingAuthenticationTokenException",
                                 "MissingAuthenticationToken", "SignatureDoesNotMatch", "OptInRequired",
                                 "NotAuthorized"})  # fmt: skip
_REFUSALS: Final[Mapping[str, type[EnvfsError]]] = {
    "AccessDeniedException": AccessDenied,
    "AccessDenied": AccessDenied,
    "DisabledException": Disabled,
    "KMSInvalidStateException": InvalidState,
    "NotFoundException": NotFound,
    "IncorrectKeyException": IncorrectKey,
}


class Endpoint:
    """One foreign KMS under one set of credentials. Safe for several threads; every call blocks, for at most
    `TOTAL_SECONDS` and what looking up a host name and credentials takes.
    """

    def __init__(self, place: ForeignKey) -> None:
        self._place = place
        self._breaker = Breaker()
        self._lock = threading.Lock()
        self._made: Client | None = None
        self._where = place.endpoint or f"AWS KMS in {place.region}"

    def try_out(self, key: str) -> tuple[str, int]:
        """The ARN of `key` (id, ARN or alias there) and the size of a wrapped key in bytes, after both ways worked."""
        with Secret.random() as plaintext:
            arn, blob = self._encrypt(key, plaintext, _TRIAL_CONTEXT)
            with self.decrypt(arn, blob, _TRIAL_CONTEXT) as found:
                if bytes(found.expose()) != bytes(plaintext.expose()):
                    raise Internal(f"the foreign KMS decrypts something else under {arn} than it encrypted")
        return arn, len(blob)

    def encrypt(self, arn: str, plaintext: Secret, context: Mapping[str, str]) -> bytes:
        """The foreign ciphertext of `plaintext` under the key `arn`. KmsErrors."""
        answered, blob = self._encrypt(arn, plaintext, context)
        self._check_key(arn, answered)
        return blob

    def decrypt(self, arn: str, blob: bytes, context: Mapping[str, str]) -> Secret:
        """The plaintext of a foreign ciphertext; the caller wipes it. InvalidCiphertext and other KmsErrors."""
        answered, plaintext = self._call("decrypt", KeyId=arn, CiphertextBlob=blob, EncryptionContext=dict(context))
        self._check_key(arn, answered)
        return Secret(plaintext)

    def _encrypt(self, key: str, plaintext: Secret, context: Mapping[str, str]) -> tuple[str, bytes]:
        raw = bytes(plaintext.expose())
        return self._call("encrypt", KeyId=key, Plaintext=raw, EncryptionContext=dict(context))

    @staticmethod
    def _check_key(arn: str, answered: object) -> None:
        if answered != arn:
            raise Internal(f"the foreign KMS was asked for {arn} and answers for another key")

    def _call(self, operation: str, **parameters: object) -> tuple[str, bytes]:
        """The ARN and the bytes of the answer."""
        with self._breaker.attempt():
            deadline = time.monotonic() + TOTAL_SECONDS
            pause = FIRST_PAUSE
            for left in reversed(range(ATTEMPTS)):
                try:
                    return self._try(operation, parameters, deadline)
                except (KmsUnreachable, Throttling) as error:
                    wait = pause * random.uniform(0.5, 1.5)  # noqa: S311 - several clients should not come in step
                    if not left or time.monotonic() + wait >= deadline or isinstance(error.__cause__, ssl.SSLError):
                        raise
                time.sleep(wait)
                pause *= 3
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _try(self, operation: str, parameters: Mapping[str, object], deadline: float) -> tuple[str, bytes]:
        """One attempt."""
        try:
            client = self._client(deadline)  # the first one loads botocore, which may take a second
            answer = client.call(operation, dict(parameters), min(deadline, time.monotonic() + ATTEMPT_SECONDS))
            return _read_answer(answer, _RESULTS[operation])
        except ConfigError as error:
            raise KeyUnavailable(error.message, hint=error.hint) from error
        except EnvfsError:
            raise
        except Exception as error:
            explained = self._explained(operation, error)
            if type(explained) is KeyUnavailable:
                self._forget_client()
            raise explained from error

    def _client(self, deadline: float) -> Client:
        if not self._lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise KmsTimeout(f"{self._where} does not answer")
        try:
            if self._made is None:
                self._made = Client(self._place)
            return self._made
        finally:
            self._lock.release()

    def _forget_client(self) -> None:
        """The next call reads configuration and credentials anew."""
        with self._lock:
            client, self._made = self._made, None
        if client is not None:
            client.close()

    def _explained(self, operation: str, error: Exception) -> EnvfsError:
        where = self._where
        _, _, core = load_botocore()
        if isinstance(error, core.ClientError):
            return _refusal(operation, where, error)
        if isinstance(error, core.NoCredentialsError | core.PartialCredentialsError | core.CredentialRetrievalError):
            return KeyUnavailable(f"{where}: {error}", hint="give envfs's own user credentials of AWS; see docs/KMS.md")
        if isinstance(error, TimeoutError | core.ReadTimeoutError | core.ConnectTimeoutError):
            return KmsTimeout(f"{where} does not answer")
        if isinstance(error, OSError | http.client.HTTPException | core.HTTPClientError):
            return KmsUnreachable(f"{where} cannot be used: {_short(error)}")
        if isinstance(error, core.BotoCoreError):
            return KeyUnavailable(f"{where}: {_short(error)}", hint="see the profile in ~/.aws/config")
        return KmsUnreachable(f"{where} answers what no KMS answers: {_short(error)}")


def _refusal(operation: str, where: str, error: Any) -> EnvfsError:
    """What the foreign KMS said, as an error of ours."""
    code = _code_of(error)
    said = _printable(str(error.response.get("Error", {}).get("Message", "")))
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    message = f"{where} refuses {operation}: {code}: {said}"
    if code == "InvalidCiphertextException":
        return InvalidCiphertext()
    if code in _REFUSALS:
        return _REFUSALS[code](message)
    if code in _THROTTLED:
        return Throttling(f"{where} is asked too much at the moment: {code}", hint="try again in a moment")
    if code in _CREDENTIALS:
        return KeyUnavailable(message, hint="see the credentials of the user whom envfs runs as")
    if code in _PASSING or not isinstance(status, int) or status >= 500:
        return KmsUnreachable(f"{where} fails: {code}: {said}")
    return Internal(message)


def _code_of(error: BaseException) -> str:
    response = getattr(error, "response", None)
    found = response.get("Error", {}).get("Code", "") if isinstance(response, dict) else ""
    return _printable(str(found))


def _read_answer(answer: Mapping[str, object], name: str) -> tuple[str, bytes]:
    arn, found = answer.get("KeyId"), answer.get(name)
    if not isinstance(found, bytes) or not 1 <= len(found) <= MAX_CIPHERTEXT or not isinstance(arn, str) or not arn:
        raise ValueError(f"KeyId or {name} is missing")
    return arn, found


def _short(error: Exception) -> str:
    return _printable(str(error) or type(error).__name__)


def _printable(text: str) -> str:
    """What a stranger said, for a line of a log."""
    return "".join(character if character.isprintable() else " " for character in text[:_MAX_MESSAGE])


_endpoints: Final[dict[ForeignKey, Endpoint]] = {}
_endpoints_lock: Final = threading.Lock()
_MAX_ENDPOINTS: Final = 256


def endpoint_of(place: ForeignKey) -> Endpoint:
    """The endpoint of this process for `place`: keys of the same endpoint, region and profile share one."""
    shared = ForeignKey("", place.region, place.endpoint, place.profile)
    with _endpoints_lock:
        found = _endpoints.get(shared)
        if found is None:
            if len(_endpoints) >= _MAX_ENDPOINTS:
                _endpoints.clear()
            found = _endpoints[shared] = Endpoint(shared)
        return found
