"""Signature Version 4: what a request says about its signature, and what the signature has to be.

https://docs.aws.amazon.com/IAM/latest/UserGuide/create-signed-request.html. Pure: no clock, no store. Only the form
that AWS's clients use with these services: in the header Authorization, path "/", no query.
"""

from __future__ import annotations

import calendar
import hashlib
import hmac
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from envfs.api.errors import IncompleteSignature, MissingAuthentication, SignatureMismatch, UnrecognizedClient
from envfs.api.http import HttpRequest

ALGORITHM: Final = "AWS4-HMAC-SHA256"
SKEW: Final = 300  # seconds that a client's clock may be off
_DATE: Final = re.compile(r"[0-9]{8}T[0-9]{6}Z")
_TERMINATOR: Final = "aws4_request"
_PARAMETERS: Final = ("Credential", "Signature", "SignedHeaders")
_SIGNATURE: Final = re.compile(r"[0-9a-f]{64}")
_SPACES: Final = re.compile(r" +")
_MISMATCH: Final = (
    "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key"
    " and signing method. Consult the service documentation for details."
)


@dataclass(frozen=True, slots=True)
class Authorization:
    """What the request says. `date` is in seconds since 1970, `timestamp` the same as it is signed."""

    access_key_id: str
    day: str
    region: str
    service: str
    signed_headers: tuple[str, ...]
    signature: str
    timestamp: str
    date: int


def read_authorization(headers: Mapping[bytes, bytes]) -> Authorization:
    """MissingAuthentication, IncompleteSignature, or UnrecognizedClient for credentials that were never given out."""
    raw = headers.get(b"authorization")
    if raw is None:
        raise MissingAuthentication("Missing Authentication Token")
    if b"x-amz-security-token" in headers:
        raise unrecognized_client()
    text = raw.decode("latin-1")
    algorithm, _, rest = text.partition(" ")
    if algorithm != ALGORITHM:
        raise IncompleteSignature(f"Unsupported AWS 'algorithm': '{algorithm[:64]}'. The algorithm is {ALGORITHM}.")
    parameters = dict(part.strip().partition("=")[::2] for part in rest.split(","))
    missing = [name for name in _PARAMETERS if not parameters.get(name)]
    if missing or len(parameters) != len(_PARAMETERS):
        raise IncompleteSignature(" ".join(f"Authorization header requires '{name}' parameter." for name in missing))
    credential = parameters["Credential"].rsplit("/", 4)
    if len(credential) != 5 or credential[4] != _TERMINATOR:
        raise IncompleteSignature(
            "Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/aws4_request"
        )
    if not _SIGNATURE.fullmatch(parameters["Signature"]):
        raise mismatch()
    timestamp, date = _read_date(headers)
    access_key_id, day, region, service, _ = credential
    names = tuple(parameters["SignedHeaders"].split(";"))
    return Authorization(access_key_id, day, region, service, names, parameters["Signature"], timestamp, date)


def check_scope(authorization: Authorization, headers: Mapping[bytes, bytes], *, region: str, service: str) -> None:
    """SignatureMismatch unless the signature is for this place, and covers what the request means."""
    if authorization.day != authorization.timestamp[:8]:
        raise SignatureMismatch(
            "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP:"
            f" '{authorization.day[:16]}' != '{authorization.timestamp[:8]}'."
        )
    if authorization.region != region:
        raise SignatureMismatch(f"Credential should be scoped to a valid region. The region of this KMS is '{region}'.")
    if authorization.service != service:
        raise SignatureMismatch(f"Credential should be scoped to correct service: '{service}'.")
    signed = frozenset(authorization.signed_headers)
    for raw in headers:
        name = raw.decode("latin-1")
        if (name == "host" or name.startswith("x-amz-")) and name not in signed:
            raise SignatureMismatch(f"'{name}' must be a 'SignedHeader' in the AWS Authorization.")
    if "host" not in signed:
        raise SignatureMismatch("'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization.")


def check_date(authorization: Authorization, now: float) -> None:
    """SignatureMismatch for a request of another time than about now."""
    if authorization.date < now - SKEW:
        raise SignatureMismatch(
            f"Signature expired: {authorization.timestamp} is now earlier than {_format(now - SKEW)}"
            f" ({_format(now)} - {SKEW // 60} min.)"
        )
    if authorization.date > now + SKEW:
        raise SignatureMismatch(
            f"Signature not yet current: {authorization.timestamp} is still later than {_format(now + SKEW)}"
            f" ({_format(now)} + {SKEW // 60} min.)"
        )


def expected_signature(secret: bytes | bytearray, request: HttpRequest, authorization: Authorization) -> str:
    """The signature that `secret` makes. SignatureMismatch for a body that is not what its header says."""
    payload = hashlib.sha256(request.body).hexdigest()
    stated = request.headers.get(b"x-amz-content-sha256")
    if stated is not None and stated != payload.encode("ascii"):  # UNSIGNED-PAYLOAD is no digest, either
        raise SignatureMismatch("The provided 'x-amz-content-sha256' header does not match what was computed.")
    names = authorization.signed_headers
    lines = [f"{name}:{_canonical(request.headers.get(name.encode('latin-1', 'replace'), b''))}\n" for name in names]
    canonical = "\n".join(
        (
            request.method.decode("latin-1"),
            "/",  # the only path, and nothing but a query could follow it
            "",
            "".join(lines),
            ";".join(names),
            payload,
        )
    )
    scope = f"{authorization.day}/{authorization.region}/{authorization.service}/{_TERMINATOR}"
    digest = hashlib.sha256(canonical.encode("latin-1", "replace")).hexdigest()
    to_sign = f"{ALGORITHM}\n{authorization.timestamp}\n{scope}\n{digest}"
    key = b"AWS4" + bytes(secret)
    for part in (authorization.day, authorization.region, authorization.service, _TERMINATOR, to_sign):
        key = hmac.digest(key, part.encode("latin-1", "replace"), "sha256")
    return key.hex()


def mismatch() -> SignatureMismatch:
    """A signature that the secret does not make."""
    return SignatureMismatch(_MISMATCH)


def unrecognized_client() -> UnrecognizedClient:
    return UnrecognizedClient("The security token included in the request is invalid.")


def _read_date(headers: Mapping[bytes, bytes]) -> tuple[str, int]:
    text = headers.get(b"x-amz-date", b"").decode("latin-1")
    if not _DATE.fullmatch(text):
        raise IncompleteSignature("Authorization header requires existence of a 'X-Amz-Date' header: YYYYMMDDTHHMMSSZ.")
    try:
        return text, calendar.timegm(time.strptime(text, "%Y%m%dT%H%M%SZ"))
    except ValueError:
        raise IncompleteSignature(f"Date must be in ISO-8601 'basic format'. Got '{text}'.") from None


def _canonical(value: bytes) -> str:
    return _SPACES.sub(" ", value.decode("latin-1").strip())


def _format(second: float) -> str:
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(second))
