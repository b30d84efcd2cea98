"""`envfs top`: what the mounts are doing, now."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from envfs.cli.arguments import PATH
from envfs.cli.output import examples, json_option, print_json, print_table, printable
from envfs.errors import EnvfsError
from envfs.service import mountinfo
from envfs.service.client import Connection
from envfs.service.errors import MountError

if TYPE_CHECKING:
    from collections.abc import Mapping

    Metrics = Mapping[str, Any]

_MIB = 1 << 20
_MOST_ROWS = 12  # of operations and of users: more do not fit on a screen


@click.command(epilog=examples("envfs top", "envfs top /srv/data --every 10", "envfs top --times 1 --json"))
@click.argument("mountpoint", type=PATH, required=False)
@click.option("--every", type=click.FloatRange(min=0.1), default=2.0, show_default=True, help="Seconds between looks.")
@click.option("--times", type=click.IntRange(min=1), metavar="N", help="Look N times.  [default: until Ctrl-C]")
@json_option
def top(mountpoint: Path | None, every: float, times: int | None, *, as_json: bool) -> None:
    """Show what the mounts are doing, or one of them: operations, users, throughput, caches.

    For root and a mount's owner. Reads that the kernel answers from its own cache are not seen, and cost nothing.
    """
    before = measure_all(mountpoint)
    looks = 0
    while times is None or looks < times:
        time.sleep(every)
        looks += 1
        after = measure_all(mountpoint)
        rates = [_rates(before[device], now) for device, now in after.items() if device in before]
        if as_json:
            print_json({"mounts": rates})
        else:
            if sys.stdout.isatty():
                click.clear()
            for one in rates:
                _print(one)
        before = after


def measure_all(mountpoint: Path | None) -> dict[str, dict[str, Any]]:
    """Device → what its daemon has counted, of the envfs mounts or the one at `mountpoint`. Of several, those that do
    not answer are left out, and named on stderr. EnvfsError if there is none, or none that answers.
    """
    if mountpoint is None:
        entries = mountinfo.envfs_mounts()
    else:
        entry = mountinfo.at_mountpoint(mountpoint)
        entries = [] if entry is None or entry.fstype != mountinfo.FILESYSTEM_TYPE else [entry]
    if not entries:
        where = "" if mountpoint is None else f" at {mountpoint}"
        raise MountError(f"no envfs is mounted{where}", hint="envfs status lists what is mounted")
    found = {}
    for entry in entries:
        try:
            with Connection(entry) as connection:
                found[entry.device] = connection.ask("metrics")
        except EnvfsError as error:
            if len(entries) == 1:
                raise
            click.echo(f"{printable(entry.mountpoint)}: {printable(str(error))}", err=True)
    return found


def _rates(before: Metrics, after: Metrics) -> dict[str, Any]:
    """What happened between two looks, by the second."""
    seconds: float = max(after["uptime_seconds"] - before["uptime_seconds"], 0.1)

    def rate(now: float, earlier: float) -> float:
        return round((now - earlier) / seconds, 1)

    users = {}
    for name, values in after["users"].items():
        earlier = before["users"].get(name, {})
        users[name] = {key: rate(value, earlier.get(key, 0)) for key, value in values.items()}
    return {
        "mountpoint": after["mountpoint"],
        "cpu_percent": round(100 * rate(after["process"]["cpu_seconds"], before["process"]["cpu_seconds"])),
        "resident_bytes": after["process"]["resident_bytes"],
        **{name: after["sizes"][name] for name in ("nodes", "open_files", "file_handles")},
        "operations_per_second": {
            name: rate(count, before["operations"].get(name, 0)) for name, count in after["operations"].items()
        },
        "failures": {
            name: count - before["failures"].get(name, 0)
            for name, count in after["failures"].items()
            if count != before["failures"].get(name, 0)
        },
        "users_per_second": users,
    }


def _print(rates: Metrics) -> None:
    read = sum(user["read_bytes"] for user in rates["users_per_second"].values())
    written = sum(user["written_bytes"] for user in rates["users_per_second"].values())
    click.echo(printable(rates["mountpoint"]))
    click.echo(
        f"  decrypted {read / _MIB:.1f} MiB/s  encrypted {written / _MIB:.1f} MiB/s  processor {rates['cpu_percent']} %"
        f"  memory {rates['resident_bytes'] / _MIB:.0f} MiB"
    )
    click.echo(
        f"  {rates['open_files']} files open by {rates['file_handles']} handles; {rates['nodes']} files and directories"
        " known to the kernel"
    )
    failures = ", ".join(f"{count} {name}" for name, count in sorted(rates["failures"].items()))
    click.echo(f"  failed: {failures or 'none'}\n")
    busiest = sorted(rates["operations_per_second"].items(), key=lambda item: -item[1])[:_MOST_ROWS]
    print_table(["OPERATION", "PER SECOND"], [row for row in busiest if row[1]])
    click.echo()
    users = sorted(rates["users_per_second"].items(), key=lambda item: -max(item[1].values()))[:_MOST_ROWS]
    print_table(
        ["USER", "OPENS/S", "DENIED/S", "READS/S", "MIB/S", "WRITES/S", "MIB/S"],
        [
            (user, one["opens"], one["denied"], one["reads"], f"{one['read_bytes'] / _MIB:.1f}",
             one["writes"], f"{one['written_bytes'] / _MIB:.1f}")
            for user, one in users
        ],
    )  # fmt: skip
    click.echo()
