from __future__ import annotations

import signal
from pathlib import Path

import pytest

from envfs.errors import ConfigError
from envfs.service.config import MountOptions, home_directory, known_options, parse_mount_options


def test_home_is_what_the_variable_names() -> None:
    assert home_directory({"ENVFS_HOME": "/srv/kms", "HOME": "/home/alice"}, uid=1000) == Path("/srv/kms")


def test_home_of_root_is_the_systems() -> None:
    assert home_directory({"HOME": "/root"}, uid=0) == Path("/var/lib/envfs")


def test_home_of_a_user_is_below_his_own() -> None:
    assert home_directory({"HOME": "/home/alice"}, uid=1000) == Path("/home/alice/.local/share/envfs")


@pytest.mark.parametrize("environment", [{}, {"HOME": ""}, {"HOME": "relative"}, {"ENVFS_HOME": ""}])
def test_no_home_is_an_error_that_names_the_variable(environment: dict[str, str]) -> None:
    with pytest.raises(ConfigError) as raised:
        home_directory(environment, uid=1000)
    assert "ENVFS_HOME" in raised.value.hint


def test_nothing_said_leaves_the_defaults() -> None:
    assert parse_mount_options([]) == MountOptions()
    assert parse_mount_options(["defaults,,"]) == MountOptions()


def test_each_option_and_the_repetition_of_o() -> None:
    options = parse_mount_options(["ro,noxattr", "acl,nopoll,nowriteback,allow_other"])
    assert options == MountOptions(
        noxattr=True, read_only=True, acl=True, poll=False, writeback=False, allow_other=True
    )


def test_of_contradicting_options_the_last_counts() -> None:
    options = parse_mount_options(["ro,poll,allow_other,suid,dev", "rw,nopoll,noallow_other,nosuid"])
    assert not options.read_only
    assert options.poll is False
    assert options.allow_other is False
    assert options.kernel_flags == {"nosuid", "dev"}


def test_what_fstab_says_to_mount_is_ignored() -> None:
    words = (
        "defaults,auto,noauto,user,users,nofail,_netdev,x-systemd.automount,X-mount.mkdir,comment=a,user=alice,relatime"
    )
    assert parse_mount_options([words]) == MountOptions()


def test_paths_with_values() -> None:
    options = parse_mount_options(["home=/srv/kms,passphrase_file=/etc/envfs.pass"])
    assert options.home == Path("/srv/kms")
    assert options.passphrase_file == Path("/etc/envfs.pass")


@pytest.mark.parametrize(
    ("word", "seconds"), [("idle=90", 90), ("idle=1s", 1), ("idle=10m", 600), ("idle=2h", 7200), ("idle=1d", 86400)]
)
def test_idle_times(word: str, seconds: int) -> None:
    assert parse_mount_options([word]).idle == seconds


@pytest.mark.parametrize("word", ["idle", "idle=", "idle=0", "idle=-1", "idle=1w", "idle=1.5h", "idle=10 m", "idle=m"])
def test_what_is_no_idle_time_is_refused(word: str) -> None:
    with pytest.raises(ConfigError, match="names no time"):
        parse_mount_options([word])


@pytest.mark.parametrize("word", ["home", "home=", "home=relative", "passphrase_file=here"])
def test_a_path_that_is_not_absolute_is_refused(word: str) -> None:
    with pytest.raises(ConfigError, match="absolute path"):
        parse_mount_options([word])


@pytest.mark.parametrize("word", ["noxattrs", "NOXATTR", "passphrase=secret", "ro=1", "x"])
def test_an_unknown_option_is_refused_with_the_known_ones(word: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_mount_options([word])
    assert repr(word) in raised.value.message
    assert all(known in raised.value.hint for known in known_options())


def test_sloppy_passes_over_unknown_options_alone() -> None:
    assert parse_mount_options(["nonsense,noxattr"], sloppy=True) == MountOptions(noxattr=True)


def test_known_options_are_accepted_as_they_are_written() -> None:
    values = {"=FILE": "=/f", "=DIR": "=/d", "=TIME": "=10m", "=LEVEL": "=debug", "=SIGNAL": "=USR1"}
    for word in known_options():
        for name, value in values.items():
            word = word.replace(name, value)  # noqa: PLW2901
        parse_mount_options([word])


@pytest.mark.parametrize(
    ("options", "uid", "allowed"),
    [("", 0, True), ("", 1000, False), ("noallow_other", 0, False), ("allow_other", 1000, True)],
)
def test_others_are_let_in_by_default_only_where_root_mounts(options: str, uid: int, allowed: bool) -> None:
    assert parse_mount_options([options]).others_allowed(uid) is allowed


def test_a_mount_is_locked_on_signals_that_mean_nothing_else() -> None:
    assert parse_mount_options(["lock-on=SIGUSR2"]).lock_on == signal.SIGUSR2
    assert parse_mount_options(["lock-on=usr1"]).lock_on == signal.SIGUSR1
    for text in ("lock-on=TERM", "lock-on=KILL", "lock-on=", "lock-on=10"):
        with pytest.raises(ConfigError, match="no signal"):
            parse_mount_options([text])
