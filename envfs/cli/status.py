"""`envfs status`: from the kernel's list of mounts and what each daemon says; never touches what is mounted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from envfs.cli.arguments import PATH
from envfs.cli.exit_codes import ExitCode
from envfs.cli.output import examples, json_option, print_fields, print_json, print_table
from envfs.service import mountinfo
from envfs.service.client import Connection, is_dead
from envfs.service.errors import MountError


@click.command(epilog=examples("envfs status", "envfs status ~/vault --json", "envfs status --metrics"))
@click.argument("mountpoint", type=PATH, required=False)
@click.option("--metrics", is_flag=True, help="Print counters as Prometheus reads them; for root and a mount's owner.")
@json_option
def status(mountpoint: Path | None, *, metrics: bool, as_json: bool) -> int:
    """Show the mounts, or one of them in detail.

    A mount is "serving", "dead" (its daemon has ended; `envfs umount` clears it away), "hanging" or "unreachable" (its
    control socket is not for you). With MOUNTPOINT, the exit code is 0 only if it serves.
    """
    if metrics:
        from envfs.cli.top import measure_all  # noqa: PLC0415  (only this way needs it)
        from envfs.service.prometheus import exposition  # noqa: PLC0415

        click.echo(exposition(measure_all(mountpoint).values()), nl=False)
        return ExitCode.OK
    if mountpoint is None:
        _show_all([_describe(entry) for entry in mountinfo.envfs_mounts()], as_json=as_json)
        return ExitCode.OK
    entry = mountinfo.at_mountpoint(mountpoint)
    if entry is None or entry.fstype != mountinfo.FILESYSTEM_TYPE:
        raise MountError(f"no envfs is mounted at {mountpoint}", hint="envfs status lists what is mounted")
    described = _describe(entry)
    if as_json:
        print_json(described)
    else:
        print_fields({name: value for name, value in described.items() if name != "counters"})
        for name, value in described.get("counters", {}).items():
            click.echo(f"  {name.replace('_', ' ')}: {value}")
    return ExitCode.OK if described["state"] == "serving" else ExitCode.MOUNT_STATE


def _show_all(described: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        print_json({"mounts": described})
    elif not described:
        click.echo("no envfs is mounted")
    else:
        columns = ("mountpoint", "lower", "state", "pid", "key")
        print_table([name.upper() for name in columns], [[one.get(name) for name in columns] for one in described])


def _describe(entry: mountinfo.MountEntry) -> dict[str, Any]:
    known: dict[str, Any] = {
        "mountpoint": entry.mountpoint,
        "lower": entry.source,
        "state": "unreachable",
        "device": entry.device,
    }
    try:
        with Connection(entry) as connection:
            known |= {"state": "hanging", "pid": connection.pid}
            return known | connection.ask("status") | {"state": "serving"}
    except MountError:
        if "pid" not in known and is_dead(entry):
            known["state"] = "dead"
        return known
