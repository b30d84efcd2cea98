"""What a foreign KMS may do, and what comes of it: always one of envfs's own errors, and always within the time."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest

from envfs.crypto.secret import Secret
from envfs.errors import (
    AccessDenied,
    Disabled,
    EnvfsError,
    Internal,
    InvalidCiphertext,
    InvalidState,
    KeyUnavailable,
    KmsTimeout,
    KmsUnreachable,
    NotFound,
    Throttling,
    Validation,
)
from envfs.fs.errno_table import errno_of
from envfs.kms.foreign.breaker import Breaker
from envfs.kms.foreign.configuration import ForeignKey
from envfs.kms.foreign.endpoint import Endpoint, endpoint_of
from tests.foreign.faulty_kms import ALIAS, ARN, REGION, FaultyKms, faulty_kms, self_signed

if TYPE_CHECKING:
    from pathlib import Path

CONTEXT = {"envfs:volume": "00", "project": "apollo"}
PLAIN = b"p" * 32


@pytest.fixture
def endpoint(foreign: FaultyKms) -> Endpoint:
    """With a client that other tests have used, since making one takes long, and no memory of failures."""
    found = endpoint_of(ForeignKey("", REGION, foreign.url))
    found._breaker = Breaker()
    found._client(time.monotonic() + 60)
    return found


def test_what_it_encrypts_it_decrypts(endpoint: Endpoint, foreign: FaultyKms) -> None:
    blob = endpoint.encrypt(ARN, Secret(PLAIN), CONTEXT)
    assert len(blob) == 184
    assert bytes(endpoint.decrypt(ARN, blob, CONTEXT).expose()) == PLAIN
    assert [request["EncryptionContext"] for _, request in foreign.requests] == [CONTEXT, CONTEXT]


def test_another_context_or_a_changed_ciphertext_is_no_ciphertext(endpoint: Endpoint) -> None:
    blob = endpoint.encrypt(ARN, Secret(PLAIN), CONTEXT)
    for changed, context in ((blob, {}), (blob[:-1] + bytes((blob[-1] ^ 1,)), CONTEXT)):
        with pytest.raises(InvalidCiphertext):
            endpoint.decrypt(ARN, changed, context)


def test_trying_it_out_finds_the_arn_behind_an_alias(endpoint: Endpoint) -> None:
    assert endpoint.try_out(ALIAS) == (ARN, 184)
    with pytest.raises(NotFound):
        endpoint.try_out("alias/other")


@pytest.mark.usefixtures("_hurry")
@pytest.mark.parametrize(
    ("fault", "error", "errno_name"),
    [
        ("denied", AccessDenied, "EACCES"),
        ("disabled", Disabled, "ENOKEY"),
        ("pending deletion", InvalidState, "ENOKEY"),
        ("gone", NotFound, "ENOKEY"),
        ("unknown client", KeyUnavailable, "ENOKEY"),
        ("expired", KeyUnavailable, "ENOKEY"),
        ("throttled", Throttling, "EAGAIN"),
        ("broken", KmsUnreachable, "EHOSTUNREACH"),
        ("garbage", KmsUnreachable, "EHOSTUNREACH"),
        ("no members", KmsUnreachable, "EHOSTUNREACH"),
        ("bad base64", KmsUnreachable, "EHOSTUNREACH"),
        ("hangs up", KmsUnreachable, "EHOSTUNREACH"),
        ("endless", KmsUnreachable, "EHOSTUNREACH"),
        ("silent", KmsTimeout, "ETIMEDOUT"),
        ("trickle", KmsTimeout, "ETIMEDOUT"),
        ("wrong key", Internal, "EIO"),
        ("something new", Internal, "EIO"),
    ],
)
def test_each_fault_is_one_error(
    endpoint: Endpoint, foreign: FaultyKms, fault: str, error: type[EnvfsError], errno_name: str
) -> None:
    import errno

    blob = endpoint.encrypt(ARN, Secret(PLAIN), CONTEXT)
    foreign.fault = fault
    with pytest.raises(error) as caught:
        endpoint.decrypt(ARN, blob, CONTEXT)
    assert type(caught.value) is error
    assert errno.errorcode[errno_of(caught.value)] == errno_name
    assert "\n" not in caught.value.message


def test_connection_refused(endpoint: Endpoint, foreign: FaultyKms) -> None:
    foreign.stop()
    with pytest.raises(KmsUnreachable, match="refused"):
        endpoint.encrypt(ARN, Secret(PLAIN), CONTEXT)


def test_a_certificate_that_nobody_vouches_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context, certificate = self_signed(tmp_path)
    with faulty_kms(tls=context) as kms:
        with pytest.raises(KmsUnreachable, match=r"(?i)certificate"):
            Endpoint(ForeignKey("", REGION, kms.url)).try_out(ALIAS)
        assert kms.requests == []
        monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate))
        assert Endpoint(ForeignKey("", REGION, kms.url)).try_out(ALIAS) == (ARN, 184)


def test_credentials_that_are_missing_and_come_later(foreign: FaultyKms, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("envfs.kms.foreign.breaker.FIRST_PAUSE", 0.0)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    endpoint = Endpoint(ForeignKey("", REGION, foreign.url))
    with pytest.raises(KeyUnavailable, match="credentials"):
        endpoint.try_out(ALIAS)
    assert foreign.requests == []
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
    assert endpoint.try_out(ALIAS) == (ARN, 184)


def test_a_profile_that_is_missing(foreign: FaultyKms) -> None:
    with pytest.raises(KeyUnavailable, match="nobody"):
        Endpoint(ForeignKey("", REGION, foreign.url, "nobody")).try_out(ALIAS)


def test_without_boto3_there_is_a_next_step(foreign: FaultyKms, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr("envfs.kms.foreign.client.importlib.import_module", missing)
    with pytest.raises(KeyUnavailable) as caught:
        Endpoint(ForeignKey("", REGION, foreign.url)).try_out(ALIAS)
    assert "envfs[aws]" in caught.value.hint


@pytest.mark.usefixtures("_hurry")
@pytest.mark.parametrize("passing", ["broken", "throttled", "hangs up", "garbage"])
def test_what_passes_is_tried_again(endpoint: Endpoint, foreign: FaultyKms, passing: str) -> None:
    foreign.faults = [passing, passing]
    assert endpoint.encrypt(ARN, Secret(PLAIN), CONTEXT)
    assert len(foreign.requests) == 3


@pytest.mark.parametrize("final", ["denied", "disabled", "gone", "unknown client", "something new"])
def test_a_refusal_is_not_asked_for_twice(endpoint: Endpoint, foreign: FaultyKms, final: str) -> None:
    foreign.fault = final
    with pytest.raises(EnvfsError):
        endpoint.encrypt(ARN, Secret(PLAIN), CONTEXT)
    assert len(foreign.requests) == 1


@pytest.mark.usefixtures("_hurry")
def test_after_a_failure_nobody_waits_for_it_again_until_it_is_over(endpoint: Endpoint, foreign: FaultyKms) -> None:
    foreign.fault = "silent"
    with pytest.raises(KmsTimeout):
        endpoint.encrypt(ARN, Secret(PLAIN), CONTEXT)
    before = len(foreign.requests)
    for _ in range(20):
        with pytest.raises(KmsTimeout, match="not tried again yet"):
            endpoint.encrypt(ARN, Secret(PLAIN), CONTEXT)
    assert len(foreign.requests) == before
    foreign.fault = None
    deadline = time.monotonic() + 10
    while True:
        try:
            endpoint.encrypt(ARN, Secret(PLAIN), CONTEXT)
            break
        except KmsTimeout:
            assert time.monotonic() < deadline
            time.sleep(0.05)


@pytest.mark.usefixtures("_hurry")
def test_being_throttled_or_refused_does_not_keep_others_out(endpoint: Endpoint, foreign: FaultyKms) -> None:
    for fault in ("throttled", "denied"):
        foreign.fault = fault
        with pytest.raises(EnvfsError):
            endpoint.encrypt(ARN, Secret(PLAIN), CONTEXT)
        foreign.fault = None
        assert endpoint.encrypt(ARN, Secret(PLAIN), CONTEXT)


def test_a_connection_serves_many_requests_and_one_that_was_closed_is_replaced(
    endpoint: Endpoint, foreign: FaultyKms
) -> None:
    endpoint.encrypt(ARN, Secret(PLAIN), CONTEXT)
    foreign.stop()
    foreign.start()
    endpoint.encrypt(ARN, Secret(PLAIN), CONTEXT)
    assert len(foreign.requests) == 2


def test_many_threads_at_once(endpoint: Endpoint, foreign: FaultyKms) -> None:
    wrong: list[BaseException] = []

    def work(number: int) -> None:
        plain = bytes((number,)) * 32
        try:
            blob = endpoint.encrypt(ARN, Secret(plain), {"n": str(number)})
            assert bytes(endpoint.decrypt(ARN, blob, {"n": str(number)}).expose()) == plain
        except BaseException as error:  # noqa: BLE001
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not wrong
    assert len(foreign.requests) == 24


def test_the_breaker_lets_one_look_and_waits_longer_each_time() -> None:
    now = [0.0]
    breaker = Breaker(lambda: now[0])

    def fail() -> None:
        with breaker.attempt():
            raise KmsUnreachable("down")

    for pause in (1.0, 2.0, 4.0, 8.0, 10.0, 10.0):
        with pytest.raises(KmsUnreachable, match=r"^down$"):
            fail()
        now[0] += pause - 0.01
        with pytest.raises(KmsUnreachable, match="not tried again yet"):
            fail()
        now[0] += 0.02
    with breaker.attempt(), pytest.raises(KmsUnreachable, match="not tried again yet"), breaker.attempt():
        pass  # one looks, and the others do not wait for what it finds
    with breaker.attempt(), breaker.attempt():
        pass


@pytest.mark.parametrize(
    "place",
    [
        ForeignKey("", REGION),
        ForeignKey(ARN, ""),
        ForeignKey(ARN, REGION, "http://kms.example.com"),
        ForeignKey(ARN, REGION, "ftp://kms.example.com"),
        ForeignKey(ARN, REGION, "https://user:password@kms.example.com"),
        ForeignKey(ARN, REGION, "https://kms.example.com:99999"),
        ForeignKey(ARN, REGION, "kms.example.com"),
        ForeignKey(ARN, REGION, "https://kms.example.com/?a=b"),
        ForeignKey(ARN, REGION, profile="a b"),
        ForeignKey(ARN + "\n", REGION),
    ],
)
def test_places_that_are_none(place: ForeignKey) -> None:
    with pytest.raises(Validation):
        place.check()


@pytest.mark.parametrize(
    "url", ["", "https://kms.example.com", "http://127.0.0.1:5000", "http://[::1]:80", "http://localhost:1"]
)
def test_places(url: str) -> None:
    place = ForeignKey(ARN, REGION, url)
    place.check()
    assert ForeignKey.parse(place.serialise()) == place
