"""Signatures are compared with those that AWS's own SDK makes."""

from __future__ import annotations

import time
from typing import Any

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from envfs.api import sigv4
from envfs.api.errors import IncompleteSignature, MissingAuthentication, SignatureMismatch, UnrecognizedClient
from envfs.api.http import HttpRequest
from envfs.errors import KmsError

SECRET = "secret/access+key"


def signed(
    body: bytes = b"{}", region: str = "local", service: str = "kms", headers: dict[str, str] | None = None
) -> HttpRequest:
    fields = {"X-Amz-Target": "TrentService.ListKeys", **(headers or {})}
    request = AWSRequest("POST", "http://127.0.0.1:8080/", data=body, headers=fields)
    SigV4Auth(Credentials("AKIA0123456789ABCDEF", SECRET), service, region).add_auth(request)
    raw = {name.lower().encode(): str(value).encode() for name, value in request.headers.items()}
    return HttpRequest(b"POST", b"/", {b"host": b"127.0.0.1:8080", **raw}, body)


def check(request: HttpRequest, *, now: float | None = None, region: str = "local", service: str = "kms") -> bool:
    authorization = sigv4.read_authorization(request.headers)
    sigv4.check_scope(authorization, request.headers, region=region, service=service)
    sigv4.check_date(authorization, time.time() if now is None else now)
    return sigv4.expected_signature(SECRET.encode(), request, authorization) == authorization.signature


def changed(request: HttpRequest, **headers: bytes | None) -> HttpRequest:
    found: dict[bytes, Any] = {**request.headers, **{name.replace("_", "-").encode(): v for name, v in headers.items()}}
    return request._replace(headers={name: value for name, value in found.items() if value is not None})


@given(st.binary(max_size=200), st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1))
def test_a_signature_of_the_sdk_is_right(body: bytes, agent: str) -> None:
    assert check(signed(body, headers={"X-Amz-Meta": f"a   b {agent}", "Content-Type": "application/x-amz-json-1.1"}))


def test_another_body_target_or_secret_is_not_what_was_signed() -> None:
    request = signed()
    assert not check(request._replace(body=b"{ }"))
    assert not check(changed(request, x_amz_target=b"TrentService.CreateKey"))
    assert not check(changed(request, host=b"other"))
    authorization = sigv4.read_authorization(request.headers)
    assert sigv4.expected_signature(b"other", request, authorization) != authorization.signature


def test_a_digest_of_the_body_that_is_stated_must_be_right() -> None:
    for stated in (b"UNSIGNED-PAYLOAD", b"STREAMING-AWS4-HMAC-SHA256-PAYLOAD", b"0" * 64):
        request = signed(headers={"X-Amz-Content-SHA256": stated.decode()})
        with pytest.raises(SignatureMismatch):
            check(request)


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (changed(signed(), authorization=None), MissingAuthentication),
        (changed(signed(), authorization=b"Basic dXNlcjpwYXNz"), IncompleteSignature),
        (changed(signed(), authorization=b"AWS4-HMAC-SHA256 Credential=a/b/c/d/aws4_request"), IncompleteSignature),
        (changed(signed(), authorization=b"AWS4-HMAC-SHA256 "), IncompleteSignature),
        (
            changed(signed(), authorization=b"AWS4-HMAC-SHA256 Credential=a/b/c, SignedHeaders=host, Signature=00"),
            IncompleteSignature,
        ),
        (
            changed(
                signed(),
                authorization=b"AWS4-HMAC-SHA256 Credential=a/20200101/local/kms/aws4_request, SignedHeaders=host,"
                b" Signature=xyz",
            ),
            SignatureMismatch,
        ),
        (changed(signed(), x_amz_date=None), IncompleteSignature),
        (changed(signed(), x_amz_date=b"yesterday"), IncompleteSignature),
        (changed(signed(), x_amz_date=b"20201301T000000Z"), IncompleteSignature),
        (changed(signed(), x_amz_date=b"20200101T000000Z"), SignatureMismatch),
        (changed(signed(), x_amz_security_token=b"token"), UnrecognizedClient),
        (changed(signed(), x_amz_new=b"not signed"), SignatureMismatch),
        (signed(region="eu-west-1"), SignatureMismatch),
        (signed(service="s3"), SignatureMismatch),
    ],
)
def test_what_is_not_signed_as_it_has_to_be_is_refused(request_: HttpRequest, error: type[KmsError]) -> None:
    with pytest.raises(error):
        check(request_)


def test_the_host_must_be_signed() -> None:
    request = signed()
    without = request.headers[b"authorization"].replace(b"SignedHeaders=host;", b"SignedHeaders=")
    with pytest.raises(SignatureMismatch, match="SignedHeader"):
        check(changed(request, authorization=without))


@pytest.mark.parametrize("seconds", [-301, 302])
def test_a_clock_that_is_five_minutes_off_is_too_far_off(seconds: float) -> None:
    request = signed()
    with pytest.raises(SignatureMismatch, match="Signature"):
        check(request, now=time.time() - seconds)


@pytest.mark.parametrize("seconds", [-297, 297])
def test_a_clock_that_is_less_than_five_minutes_off_will_do(seconds: float) -> None:
    assert check(signed(), now=time.time() - seconds)
