"""What the commands of `envfs audit` can be asked about, and the way to the records that fit."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, TypeVar

import click

from envfs.cli.moments import MOMENT
from envfs.service import mountinfo

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from envfs.cli.backend import Backend

QUERY = "EnvfsKms.QueryAudit"
DENIED = "AccessDeniedException"
PAGE = 1000

F = TypeVar("F", bound="Callable[..., Any]")

_OPTIONS = (
    click.option("--user", metavar="NAME", help="Of this user."),
    click.option("--key", metavar="KEY", help="About this key."),
    click.option(
        "--path",
        metavar="PATH",
        help="About this file or directory and all below it: in a mount, or as a volume's own path. * and ? are any"
        " characters.",
    ),
    click.option("--event", metavar="NAME", help="Of this operation: Decrypt, CreateGrant, ..."),
    click.option("--error", metavar="CODE", help="That failed with this error: DisabledException, ..."),
    click.option("--denied", is_flag=True, help="That were denied."),
    click.option("--since", type=MOMENT, metavar="TIME", help="From 2026-05-01, 2026-05-01T12:00, yesterday or 7d on."),
    click.option("--until", type=MOMENT, metavar="TIME", help="Before that time."),
)


def question_options(command: F) -> F:
    """Adds the options whose values `question_of` takes."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def question_of(
    *,
    user: str | None,
    key: str | None,
    path: str | None,
    event: str | None,
    error: str | None,
    denied: bool,
    since: float | None,
    until: float | None,
) -> dict[str, Any]:
    """The members of a QueryAudit. EnvfsError if PATH is in a mount that does not answer."""
    if denied and error not in {None, DENIED}:
        raise click.UsageError(f"--denied means --error {DENIED}: name one of them")
    wanted = {
        "UserName": user,
        "KeyId": key,
        "EventName": event,
        "ErrorCode": DENIED if denied else error,
        "StartTime": since,
        "EndTime": until,
        **({} if path is None else _place_of(path)),
    }
    return {name: value for name, value in wanted.items() if value is not None}


def _place_of(path: str) -> dict[str, Any]:
    """Path and volume of what is in a mount. The path itself is not touched: it may have been removed long ago."""
    absolute = os.path.abspath(path)  # noqa: PTH100  (Path.resolve would look at it, in a mount that may hang)
    entries = [one for one in mountinfo.envfs_mounts() if _is_below(absolute, one.mountpoint)]
    if not entries:
        return {"Path": path if path.startswith(("/", "*", "?")) else f"/{path}"}
    from envfs.service.client import Connection  # noqa: PLC0415  (few questions are about a mount)

    entry = max(entries, key=lambda one: len(one.mountpoint))
    with Connection(entry) as connection:
        volume_id = connection.ask("status")["volume_id"]
    return {"Path": absolute[len(entry.mountpoint.rstrip("/")) :] or "/", "VolumeId": volume_id}


def _is_below(path: str, directory: str) -> bool:
    return path == directory or path.startswith(f"{directory.rstrip('/')}/")


def pages(
    backend: Backend, question: dict[str, Any], *, limit: int | None = None, marker: str | None = None
) -> Iterator[tuple[list[dict[str, Any]], str]]:
    """The records that fit from `marker` on, oldest first, at most `limit`: pages, the last one perhaps empty, each
    with the marker that leads behind it.
    """
    left = limit
    while left is None or left > 0:
        page = {**question, "Limit": PAGE if left is None else min(left, PAGE)}
        answer = backend.call(QUERY, page if marker is None else {**page, "Marker": marker})
        found, marker = answer["Records"], answer["NextMarker"]
        yield found, marker
        if not answer["Truncated"]:
            return
        left = None if left is None else left - len(found)


def records(backend: Backend, question: dict[str, Any], limit: int | None = None) -> Iterator[dict[str, Any]]:
    """The records that fit, oldest first, at most `limit`."""
    for page, _ in pages(backend, question, limit=limit):
        yield from page
