"""Every error of envfs has an errno, and those that matter to users have the one that says what is wrong."""

from __future__ import annotations

import errno

import pytest

from envfs import errors
from envfs.errors import EnvfsError
from envfs.fs.errno_table import ERRNO, errno_of


def every_error(kind: type[EnvfsError] = EnvfsError) -> list[type[EnvfsError]]:
    return [kind, *(below for child in kind.__subclasses__() for below in every_error(child))]


EXPECTED = {
    errors.AccessDenied: errno.EACCES,
    errors.Disabled: errno.ENOKEY,
    errors.InvalidState: errno.ENOKEY,
    errors.KeyUnavailable: errno.ENOKEY,
    errors.NotFound: errno.ENOKEY,
    errors.InvalidCiphertext: errno.EIO,
    errors.Internal: errno.EIO,
    errors.FormatError: errno.EIO,
    errors.UnsupportedVersion: errno.EIO,
    errors.Truncated: errno.EIO,
    errors.IntegrityError: errno.EIO,
    errors.ConfigError: errno.EINVAL,
}


@pytest.mark.parametrize("kind", EXPECTED)
def test_what_a_program_sees(kind: type[EnvfsError]) -> None:
    assert errno_of(kind("message")) == EXPECTED[kind]


@pytest.mark.parametrize("kind", every_error())
def test_no_error_is_forgotten(kind: type[EnvfsError]) -> None:
    assert errno_of(kind("message")) in errno.errorcode


def test_no_row_is_hidden_behind_one_above_it() -> None:
    for index, (kind, _) in enumerate(ERRNO):
        assert not any(issubclass(kind, earlier) for earlier, _ in ERRNO[:index])
