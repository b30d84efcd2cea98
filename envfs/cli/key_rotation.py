"""`envfs key rotation` and `envfs key rotate`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from envfs.cli.answers import as_fields, every, show_answer
from envfs.cli.arguments import key_argument
from envfs.cli.backend import open_backend
from envfs.cli.key_reference import without_alias
from envfs.cli.output import examples, json_option, print_json, print_table
from envfs.cli.passphrase import passphrase_file_option

if TYPE_CHECKING:
    from pathlib import Path


@click.group()
def rotation() -> None:
    """Have the material of CMKs renewed by itself.

    What was encrypted stays readable: a key keeps all the material it ever had.
    """


@rotation.command(epilog=examples("envfs key rotation enable alias/payroll --period-days 180"))
@key_argument
@click.option("--period-days", type=int, metavar="N", help="How often: every 90 to 2560 days.  [default: 365]")
@passphrase_file_option
def enable(key_id: str, period_days: int | None, passphrase_file: Path | None) -> None:
    """Give a symmetric CMK new material regularly."""
    period = {} if period_days is None else {"RotationPeriodInDays": period_days}
    with open_backend(passphrase_file) as backend:
        backend.call("EnableKeyRotation", {"KeyId": without_alias(backend, key_id), **period})


@rotation.command(epilog=examples("envfs key rotation disable alias/payroll"))
@key_argument
@passphrase_file_option
def disable(key_id: str, passphrase_file: Path | None) -> None:
    """Keep the material that a CMK has."""
    with open_backend(passphrase_file) as backend:
        backend.call("DisableKeyRotation", {"KeyId": without_alias(backend, key_id)})


@rotation.command(epilog=examples("envfs key rotation status alias/payroll"))
@key_argument
@passphrase_file_option
@json_option
def status(key_id: str, passphrase_file: Path | None, *, as_json: bool) -> None:
    """Say whether a CMK rotates, and when next."""
    with open_backend(passphrase_file) as backend:
        answer = backend.call("GetKeyRotationStatus", {"KeyId": without_alias(backend, key_id)})
    show_answer(answer, as_json=as_json)


@rotation.command("list", epilog=examples("envfs key rotation list alias/payroll", "envfs key rotation list KEY --all"))
@key_argument
@click.option("--all", "all_material", is_flag=True, help="Its first material, too, and what was not yet rotated to.")
@passphrase_file_option
@json_option
def list_rotations(key_id: str, passphrase_file: Path | None, *, all_material: bool, as_json: bool) -> None:
    """List the rotations that a CMK has had."""
    with open_backend(passphrase_file) as backend:
        request: dict[str, Any] = {"KeyId": without_alias(backend, key_id)}
        if all_material:
            request["IncludeKeyMaterial"] = "ALL_KEY_MATERIAL"
        found = [as_fields(one) for one in every(backend, "ListKeyRotations", request, "Rotations")]
    if as_json:
        print_json({"rotations": found})
    elif not found:
        click.echo(f"it has not been rotated; envfs key rotate {key_id} does it")
    else:
        columns = ("rotation_date", "rotation_type", "key_material_id", "key_material_state")
        print_table(["DATE", "TYPE", "MATERIAL", "STATE"], [[one.get(name) for name in columns] for one in found])


@click.command(epilog=examples("envfs key rotate alias/payroll"))
@key_argument
@passphrase_file_option
def rotate(key_id: str, passphrase_file: Path | None) -> None:
    """Give a CMK new material now.

    What is encrypted from now on is encrypted under it. This can be done 25 times with each key.
    """
    with open_backend(passphrase_file) as backend:
        backend.call("RotateKeyOnDemand", {"KeyId": without_alias(backend, key_id)})
