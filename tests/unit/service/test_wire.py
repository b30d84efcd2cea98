from __future__ import annotations

import errno
import json

import pytest

from envfs import errors
from envfs.service import wire
from envfs.service.errors import MountError


def carried(error: BaseException) -> object:
    """What the response looks like after its way through JSON."""
    return json.loads(json.dumps(wire.failure(error)))


@pytest.mark.parametrize(
    "error",
    [
        errors.AccessDenied("no statement allows it", hint="ask"),
        errors.InvalidCiphertext(),
        errors.UnsupportedVersion("version 2", hint="update"),
        errors.IntegrityError("cut", block=3),
        MountError("in use", hint="--lazy"),
    ],
)
def test_errors_arrive_with_type_message_and_hint(error: errors.EnvfsError) -> None:
    with pytest.raises(type(error)) as raised:
        wire.open_response(carried(error))
    assert type(raised.value) is type(error)
    assert (raised.value.message, raised.value.hint) == (error.message, error.hint)


def test_an_os_error_keeps_its_errno_and_path() -> None:
    with pytest.raises(OSError, match="/srv/x") as raised:
        wire.open_response(carried(OSError(errno.ENOSPC, "No space left on device", "/srv/x")))
    assert raised.value.errno == errno.ENOSPC


def test_a_subclass_that_the_other_side_does_not_know_arrives_as_its_base() -> None:
    class Special(errors.LimitExceeded):
        pass

    with pytest.raises(errors.LimitExceeded, match="too many"):
        wire.open_response(carried(Special("too many")))


def test_a_defect_tells_its_type_and_nothing_else() -> None:
    with pytest.raises(wire.RemoteFailure, match=r"^KeyError in the daemon$"):
        wire.open_response(carried(KeyError("secret value")))


def test_a_result_comes_back() -> None:
    assert wire.open_response({"ok": True, "result": {"pid": 7}}) == {"pid": 7}


@pytest.mark.parametrize(
    "response", [None, [], {}, {"ok": True}, {"ok": "true", "result": {}}, {"ok": False, "error": 3}]
)
def test_anything_else_is_no_result(response: object) -> None:
    with pytest.raises(wire.RemoteFailure):
        wire.open_response(response)


def test_a_type_that_is_no_error_class_is_not_looked_up() -> None:
    with pytest.raises(wire.RemoteFailure):
        wire.open_response({"ok": False, "error": {"type": "SystemExit", "message": "x"}})
