from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import click
import pytest

from envfs.cli.arguments import UntouchedPath
from envfs.cli.exit_codes import MEANINGS
from envfs.cli.lazy import LazyGroup
from envfs.cli.main import COMMANDS, envfs, run
from envfs.cli.mount_helper import helper

if TYPE_CHECKING:
    from collections.abc import Iterator


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command of the program with the words that call it."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


ALL = list(commands(envfs))


def test_the_contract_names_and_flags_are_there() -> None:
    found = {" ".join(path): {flag for parameter in command.params for flag in parameter.opts} for path, command in ALL}
    contract = {
        "kms init": {
            "--recovery-key-file",
            "--no-recovery-key",
            "--root-key",
            "--passphrase-file",
            "--partition",
            "--region",
            "--account",
        },
        "kms slot list": {"--json"},
        "kms slot remove": {"--yes"},
        "kms slot add keyfile": set(),
        "kms slot add passphrase": {"--new-passphrase-file"},
        "kms slot add recovery": {"--recovery-key-file"},
        "kms slot add systemd-creds": {"--with-key", "--credential-file"},
        "kms slot add aws-kms": {"--region", "--endpoint-url"},
        "kms change-passphrase": {"--slot", "--new-passphrase-file"},
        "kms backup": {"--backup-passphrase-file", "--with-key-file", "--json"},
        "kms restore": {"--check", "--key-file", "--json"},
        "kms whoami": {"--json"},
        "kms verify": {"--json"},
        "kms encrypt": {"--context", "-o", "--algorithm", "--base64", "--dry-run", "--json"},
        "kms decrypt": {"--context", "-o", "--key", "--algorithm", "--base64", "--dry-run", "--json"},
        "kms re-encrypt": {"--to", "--from", "--context", "--to-context", "-o", "--base64", "--dry-run", "--json"},
        "kms generate-data-key": {"--bytes", "--context", "--plaintext-file", "--ciphertext-file", "--json"},
        "kms generate-data-key-pair": {"--spec", "--public-file", "--private-file", "--ciphertext-file", "--json"},
        "kms generate-random": {"-o", "--base64", "--json"},
        "kms sign": {"--algorithm", "--message-type", "-o", "--base64", "--json"},
        "kms verify-signature": {"--algorithm", "--message-type", "--base64", "--json"},
        "kms generate-mac": {"--algorithm", "-o", "--base64", "--json"},
        "kms verify-mac": {"--algorithm", "--base64", "--json"},
        "kms derive-shared-secret": {"-o", "--json"},
        "kms encapsulate": {"--secret-file", "--ciphertext-file", "--json"},
        "kms decapsulate": {"-o", "--json"},
        "init": {"--key", "--block-size", "--suite"},
        "mount": {"-o", "--foreground"},
        "umount": set(),
        "status": {"--json"},
        "key create": {
            "--alias",
            "--description",
            "--policy",
            "--spec",
            "--usage",
            "--origin",
            "--tag",
            "--admin",
            "--user",
        },
        "key list": {"--json"},
        "key show": {"--json"},
        "key enable": set(),
        "key disable": set(),
        "key update": {"--description"},
        "key delete": {"--days", "--json"},
        "key cancel-deletion": set(),
        "key last-usage": {"--json"},
        "key usage": {"--json"},
        "rewrap": {"--to", "--json"},
        "rekey": {"--to", "--json"},
        "key policy get": set(),
        "key policy put": set(),
        "key alias create": set(),
        "key alias update": set(),
        "key alias delete": set(),
        "key alias list": {"--json"},
        "key tag": set(),
        "key untag": set(),
        "key tags": {"--json"},
        "key rotation enable": {"--period-days"},
        "key rotation disable": set(),
        "key rotation status": {"--json"},
        "key rotation list": {"--json"},
        "key rotate": set(),
        "key public": {"-o", "--json"},
        "key import": {"--valid-days", "--json"},
        "key import-parameters": {"--public-key", "--import-token", "--algorithm", "--spec", "--json"},
        "key import-wrapped": {"--import-token", "--valid-days", "--json"},
        "key delete-material": {"--json"},
        "grant create": {
            "--to",
            "--operation",
            "--retiring",
            "--context-equals",
            "--context-subset",
            "--name",
            "--json",
        },
        "grant list": {"--retirable", "--json"},
        "grant retire": {"--token-file"},
        "grant revoke": set(),
        "iam user-policy put": set(),
        "iam user-policy get": set(),
        "iam user-policy list": {"--json"},
        "iam user-policy delete": set(),
        "iam group-policy put": set(),
        "iam group-policy get": set(),
        "iam group-policy list": {"--json"},
        "iam group-policy delete": set(),
        "iam access-key create": {"--access-key-id", "--secret-access-key-file", "--json"},
        "iam access-key list": {"--json"},
        "iam access-key delete": set(),
        "iam unpin": set(),
        "audit tail": {"-f", "-n", "--json"},
        "audit query": {"--user", "--key", "--event", "--error", "--since", "--until", "--limit", "--json"},
        "audit verify": {"--json"},
        "dir set-key": set(),
        "dir show": {"--json"},
        "dir label": {"--remove", "--json"},
        "access grant": {"--until", "--reason", "--by-path", "--dry-run", "--json"},
        "access revoke": {"--everywhere", "--dry-run", "--json"},
        "access list": {"--json"},
        "access who-can": {"--user", "--json"},
        "access matrix": {"--depth", "--user", "--json"},
        "explain": {"--user", "--access", "--why-not", "--json"},
        "file show": {"--json"},
        "fsck": {"--repair", "--read-data", "--json"},
    }
    assert set(contract) <= set(found)
    for name, flags in contract.items():
        assert flags <= found[name], name


@pytest.mark.parametrize(("path", "command"), ALL, ids=[" ".join(path) for path, _ in ALL])
def test_every_command_has_an_example_that_calls_it(path: tuple[str, ...], command: click.Command) -> None:
    text = command.get_help(click.Context(command, info_name="envfs " + " ".join(path)))
    assert "Example:" in text
    assert f"envfs {' '.join(path)}" in text.split("Example:")[1]


@pytest.mark.parametrize(("path", "command"), ALL, ids=[" ".join(path) for path, _ in ALL])
def test_every_option_is_explained(path: tuple[str, ...], command: click.Command) -> None:
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{path}: {parameter.name}"


def lazy_groups(group: click.Group) -> Iterator[LazyGroup]:
    context = click.Context(group)
    for command in [group, *(group.get_command(context, name) for name in group.list_commands(context))]:
        if isinstance(command, LazyGroup):
            yield command


@pytest.mark.parametrize("group", list(lazy_groups(envfs)), ids=lambda group: group.name)
def test_the_summaries_that_are_shown_without_loading_a_command_are_its_own(group: LazyGroup) -> None:
    for name, entry in group.table.items():
        command = group.get_command(click.Context(group), name)
        assert command is not None
        assert (command.help or "").split("\n")[0] == entry.summary


@pytest.mark.parametrize(("path", "command"), ALL, ids=[" ".join(path) for path, _ in ALL])
def test_nothing_secret_is_an_argument_or_the_value_of_an_option(path: tuple[str, ...], command: click.Command) -> None:
    for parameter in command.params:
        name = parameter.name or ""
        if any(word in name for word in ("secret", "passphrase", "token", "plaintext", "private")):
            is_a_file_or_flag = isinstance(parameter.type, click.File | UntouchedPath | click.types.BoolParamType)
            assert is_a_file_or_flag, f"{path}: {name}"


def test_help_lists_the_commands_and_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"\n  {name} " in text for name in COMMANDS)
    assert all(f"{code:>3}  " in text for code in MEANINGS)


def test_help_loads_nothing_that_is_slow_to_load() -> None:
    program = (
        "import sys; from envfs.cli.main import run; run(['--help'])\n"
        "print([name for name in ('trio', 'pyfuse3', 'cryptography', 'sqlite3', 'rich') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.endswith("[]\n")


@pytest.mark.parametrize(
    "arguments",
    [["nonsense"], ["mount"], ["init"], ["--nonsense"], ["explain", "x"], ["init", "x", "--block-size", "5"]],
)
def test_wrong_arguments_are_exit_code_2_and_say_so(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == 2
    assert "Usage:" in capsys.readouterr().err


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("envfs, version ")


def test_the_mount_helper_takes_what_mount_passes(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        run(["/absent/lower", "/absent/mount", "-s", "-n", "-v", "-f", "-o", "rw,x"], helper, "mount.fuse.envfs") == 3
    )
    assert "/absent/lower does not exist" in capsys.readouterr().err
    assert run(["/absent/lower", "/absent/mount", "-N", "7"], helper, "mount.fuse.envfs") == 2
