"""`envfs audit verify`, `checkpoint` and `durable`: what one can count on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from envfs.cli.backend import open_backend
from envfs.cli.findings import print_findings
from envfs.cli.output import examples, json_option, print_json
from envfs.cli.passphrase import passphrase_file_option
from envfs.cli.private_file import write_privately

if TYPE_CHECKING:
    from envfs.cli.exit_codes import ExitCode

_FILE = click.Path(dir_okay=False, path_type=Path)
_ON = {"on": True, "off": False}


@click.command(epilog=examples("envfs audit verify", "envfs audit verify --from /media/stick/checkpoint.json"))
@click.option(
    "--from",
    "checkpoint_file",
    type=_FILE,
    metavar="FILE",
    help="Begin at this checkpoint, all of which has to be there; what stands before it is not read again.",
)
@passphrase_file_option
@json_option
def verify(checkpoint_file: Path | None, passphrase_file: Path | None, *, as_json: bool) -> ExitCode:
    """Check that no record was changed, removed or reordered.

    The exit code is 0 if all are authentic, and 5 if not; what is wrong, is listed.
    """
    request = {}
    if checkpoint_file is not None:
        request["Checkpoint"] = checkpoint_file.read_text(encoding="ascii", errors="replace").strip()
    with open_backend(passphrase_file) as backend:
        found = backend.call("EnvfsKms.VerifyAudit", request)
    counts = {"chains": found["Chains"], "records": found["Records"]}
    verdict = "the audit trail is authentic" if checkpoint_file is None else "the audit trail goes on from there"
    return print_findings(found["Problems"], found["Notices"], counts, verdict, as_json=as_json)


@click.command(epilog=examples("envfs audit checkpoint -o /media/stick/checkpoint.json"))
@click.option("-o", "--output", type=_FILE, metavar="FILE", help="Write it there.  [default: stdout]")
@passphrase_file_option
def checkpoint(output: Path | None, passphrase_file: Path | None) -> None:
    """Write down where the trail stands, to be kept elsewhere.

    Kept where nobody who can write ENVFS_HOME can reach it, it shows later (envfs audit verify --from) whether the
    trail, or all of the KMS, was put back to an older copy.
    """
    with open_backend(passphrase_file) as backend:
        text = backend.call("EnvfsKms.CheckpointAudit", {})["Checkpoint"]
    if output is None:
        click.echo(text)
    else:
        write_privately(output, f"{text}\n")


@click.command(epilog=examples("envfs audit durable", "envfs audit durable on"))
@click.argument("state", type=click.Choice(list(_ON)), required=False)
@passphrase_file_option
@json_option
def durable(state: str | None, passphrase_file: Path | None, *, as_json: bool) -> None:
    """Have every record on the disk before a key is released.

    Without it, a power failure may take the last records with it. Every open of a file then waits for the disk.
    Processes that run follow within a minute. Without on or off: show what is set.
    """
    with open_backend(passphrase_file) as backend:
        request = {} if state is None else {"Durable": _ON[state]}
        is_on = backend.call("EnvfsKms.SetAuditDurability", request)["Durable"]
    if as_json:
        print_json({"durable": is_on})
    else:
        click.echo("on" if is_on else "off")
