from __future__ import annotations

import pytest

from envfs import errors
from envfs.cli.exit_codes import MEANINGS, ExitCode, exit_code
from envfs.service.errors import MountError
from envfs.service.wire import RemoteFailure


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.ConfigError(), 3),
        (errors.AccessDenied(), 4),
        (errors.NotFound(), 4),
        (errors.Disabled(), 4),
        (errors.MalformedPolicy(), 4),
        (errors.FormatError(), 5),
        (errors.Truncated(), 5),
        (errors.IntegrityError(), 5),
        (MountError(), 6),
        (errors.UnsupportedVersion(), 7),
        (OSError(), 8),
        (PermissionError(), 8),
        (errors.Internal(), 8),
        (errors.EnvfsError(), 1),
        (RemoteFailure(), 1),
        (ZeroDivisionError(), 1),
        (KeyboardInterrupt(), 130),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else str(value),
)
def test_codes_are_stable(error: BaseException, code: int) -> None:
    assert exit_code(error) == code


def test_every_code_is_documented() -> None:
    assert set(MEANINGS) == set(ExitCode)


def test_every_error_class_has_a_code_of_its_own_meaning() -> None:
    for value in vars(errors).values():
        if isinstance(value, type) and issubclass(value, errors.EnvfsError) and value is not errors.EnvfsError:
            assert exit_code(value()) not in {ExitCode.UNEXPECTED, ExitCode.OK, ExitCode.USAGE}
