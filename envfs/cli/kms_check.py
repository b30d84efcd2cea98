"""`envfs kms whoami` and `envfs kms verify`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from envfs.cli.answers import as_fields, show
from envfs.cli.backend import open_backend
from envfs.cli.exit_codes import ExitCode
from envfs.cli.findings import print_findings
from envfs.cli.output import examples, json_option
from envfs.cli.passphrase import passphrase_file_option
from envfs.cli.who import WHO_AM_I
from envfs.errors import IntegrityError

if TYPE_CHECKING:
    from pathlib import Path


@click.command(epilog=examples("envfs kms whoami", "envfs kms whoami --json"))
@passphrase_file_option
@json_option
def whoami(passphrase_file: Path | None, *, as_json: bool) -> None:
    """Say who you are to the KMS, and which way it is reached.

    These ARNs are what policies say of you and your groups.
    """
    with open_backend(passphrase_file) as backend:
        fields = as_fields(backend.call(WHO_AM_I, {})) | {"reached_by": backend.way}
    show(fields, as_json=as_json)


@click.command(epilog=examples("envfs kms verify", "envfs kms verify --json"))
@passphrase_file_option
@json_option
def verify(passphrase_file: Path | None, *, as_json: bool) -> ExitCode:
    """Check that nobody tampered with the KMS's store and audit trail.

    The exit code is 0 if all is authentic, and 5 if something is not; what, is listed.
    """
    problems: list[str] = []
    trail: dict[str, Any] = {}
    with open_backend(passphrase_file, maintain=False) as backend:  # which would stop at the first problem
        for operation in ("EnvfsKms.VerifyStore", "EnvfsKms.VerifyAudit"):
            try:
                trail = backend.call(operation, {})
                problems += trail["Problems"]
            except IntegrityError as error:  # what it needs itself is not authentic; the other may still tell more
                problems.append(error.message)
    counts = {"chains": trail.get("Chains", 0), "records": trail.get("Records", 0)}
    verdict = "the store and its audit trail are authentic"
    problems = list(dict.fromkeys(problems))
    return print_findings(problems, trail.get("Notices", ()), counts, verdict, as_json=as_json)
