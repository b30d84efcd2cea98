"""`envfs explain`."""

from __future__ import annotations

import os
import shlex
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from envfs.access.unix_modes import Login
from envfs.cli.access_check import above
from envfs.cli.arguments import PATH
from envfs.cli.exit_codes import ExitCode
from envfs.cli.output import examples, json_option, print_json, printable
from envfs.errors import ConfigError
from envfs.service import client
from envfs.service.errors import MountError

if TYPE_CHECKING:
    from collections.abc import Iterator

_NAMES = {"mount": "mount", "unix": "Unix modes", "principal": "principal", "key": "key"}
_NOT_TOLD = {"other-action", "other-principal", "other-resource"}


@click.command(
    epilog=examples(
        "envfs explain --user alice ~/vault/payroll/may.ods --access write",
        "envfs explain --user bob ~/vault/payroll/may.ods --why-not",
    )
)
@click.argument("path", type=PATH)
@click.option("--user", required=True, help="A user's name or uid.")
@click.option(
    "--access",
    type=click.Choice(["read", "write", "create"]),
    default="read",
    show_default=True,
    help="create: make a new file in the directory PATH, or at PATH.",
)
@click.option("--why-not", is_flag=True, help="Also say what would have to change.")
@json_option
def explain(path: Path, user: str, access: str, *, why_not: bool, as_json: bool) -> int:
    """Say whether a user may open PATH, and what decides.

    The whole chain, each link on its own: the mount, the Unix modes along the path, whom the KMS takes the user for,
    the state of the key, each statement of each policy, and each grant. It is decided as it would be now, without
    using a key or leaving an audit record. Everybody may ask about himself; about others root, the KMS's owner, and who
    administers the key (kms:GetKeyPolicy and kms:ListGrants). The exit code is 0 if allowed and 4 if denied.
    """
    with client.open_path(_directory_for(path) if access == "create" else path) as opened:
        entry = opened.envfs_mount
        if entry is None:
            raise MountError(f"{path} is not below an envfs mountpoint", hint="envfs status lists the mounts")
        if access != "create" and stat.S_ISDIR(os.fstat(opened.descriptor).st_mode):
            raise ConfigError(
                f"{path} is a directory, and listing one is decided by the Unix modes alone",
                hint="--access create asks who may make files in it",
            )
        answer = client.ask(entry, "explain", descriptor=opened.descriptor, user=user, access=access, why_not=why_not)
    _add_what_lies_above(answer, entry.mountpoint, why_not=why_not)
    if as_json:
        print_json(answer)
    else:
        for line in _lines(answer, why_not=why_not):
            click.echo(printable(line))
    return ExitCode.OK if answer["allowed"] else ExitCode.REFUSED


def _directory_for(path: Path) -> Path:
    """Where the new file would be: PATH if that is a directory, else the directory of PATH."""
    try:
        if stat.S_ISDIR(path.stat().st_mode):
            return path
    except FileNotFoundError:
        pass
    return path.parent


def _add_what_lies_above(answer: dict[str, Any], mountpoint: str, *, why_not: bool) -> None:
    """The Unix modes from / to the mount, which its daemon does not look at."""
    login = Login(answer["user"], answer["uid"], frozenset(answer["gids"]))
    problem, helps = above(mountpoint).problem(login)
    if not problem:
        return
    answer["allowed"] = False
    link = next(link for link in answer["chain"] if link["link"] == "unix")
    link["text"] = problem if link["allowed"] else f"{problem}; {link['text']}"
    link["allowed"] = False
    if why_not:
        link["remedies"] = helps + link.get("remedies", [])


def _lines(answer: dict[str, Any], *, why_not: bool) -> Iterator[str]:
    verdict = "allowed" if answer["allowed"] else "DENIED"
    principal = answer["principal"] or "nobody to the KMS"
    yield f"{verdict}: {answer['user']} ({principal}), {answer['access']} {answer['path']}"
    for link in answer["chain"]:
        name = _NAMES.get(link["link"]) or link["action"]
        yield f"  {'yes' if link['allowed'] else 'NO '}  {name}: {link['text']}"
        for one in link.get("path", ()):
            if one["missing"]:
                yield f"         {one['mode']} {one['path']}: {one['missing']} is missing"
        yield from _considered(link)
    if why_not and not answer["allowed"]:
        yield "what would have to change, all of it:"
        yield from _changes(answer)


def _considered(link: dict[str, Any]) -> Iterator[str]:
    """What has something to say, one by one, and the rest counted."""
    entries = link.get("considered", [])
    silent = link.get("not_told", 0)
    for one in entries:
        if one["outcome"] in _NOT_TOLD:
            silent += 1
            continue
        yield f"         {one['what']}: {one['text']}"
        for unmet in one["unmet"]:
            yield f"           {unmet}"
    if silent:
        yield f"         {silent} more: about other actions, keys or users"


def _changes(answer: dict[str, Any]) -> Iterator[str]:
    for link in answer["chain"]:
        if link["allowed"]:
            continue
        remedies = link.get("remedies", [])
        if "changes" in link:
            yield from _of_policies(answer, link["action"], link["changes"])
        elif remedies:
            yield f"  - {_NAMES.get(link['link'], link['link'])}:"
            yield from (f"      {one}" for one in remedies)
        else:
            yield f"  - {link['text']}"


def _of_policies(answer: dict[str, Any], action: str, changes: dict[str, Any]) -> Iterator[str]:
    for denial in changes["denials"]:
        yield f"  - {action}: {denial} has to go, or not to apply: envfs key policy put, envfs iam user-policy put"
    if not changes["needs_allow"]:
        return
    yield f"  - {action}, one of:"
    grant = changes.get("grant")
    if grant is not None:
        yield f"      {_grant_command(answer, grant)}"
    user = shlex.quote(answer["user"])
    yield from (f"      usermod -aG {shlex.quote(group)} {user}" for group in changes.get("groups", ()))
    for one in changes.get("conditions", ()):
        yield f"      {one['of']} would do, if it applied:"
        yield from (f"        {unmet}" for unmet in one["unmet"])
    if grant is None and not changes.get("groups") and not changes.get("conditions"):
        yield "      a statement of the key's policy: who administers the key can tell"


def _grant_command(answer: dict[str, Any], grant: dict[str, Any]) -> str:
    user = shlex.quote(answer["user"])
    if grant["directory"] is not None:
        return f"envfs access grant {user} {answer['access']} {shlex.quote(grant['directory'])}"
    pairs = [f"--context-subset {shlex.quote(f'{name}={value}')}" for name, value in grant["context_subset"].items()]
    command = ["envfs grant create", str(grant["key"]), "--to", user, "--operation", grant["operation"], *pairs]
    return " ".join(command)
