"""`envfs kms serve`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from envfs.cli.arguments import PATH
from envfs.cli.output import examples, json_option, print_json
from envfs.cli.passphrase import passphrase_file_option
from envfs.cli.session import unlock_for
from envfs.service import kms_server, log, notify
from envfs.service.config import home_directory
from envfs.service.kms_server import ServeRequest, parse_address


@click.command(epilog=examples("envfs kms serve", "envfs kms serve --tcp 127.0.0.1:8080"))
@click.option("--tcp", metavar="HOST:PORT", help="Listen there, too, for requests that are signed with access keys.")
@click.option("--tcp-without-tls", is_flag=True, help="Let HOST be one that other hosts reach. Nothing is encrypted.")
@click.option(
    "--socket", "socket_path", type=PATH, metavar="PATH", help="The Unix socket. [default: where envfs looks for it]"
)
@click.option("--log-level", type=click.Choice(log.LEVELS), default="info", show_default=True, help="On stderr.")
@passphrase_file_option
@json_option
def serve(
    tcp: str | None,
    socket_path: Path | None,
    log_level: str,
    passphrase_file: Path | None,
    *,
    tcp_without_tls: bool,
    as_json: bool,
) -> None:
    """Serve the KMS to AWS's clients, in the foreground, until it is interrupted.

    On the Unix socket everybody is who he is on this host. Every mount serves such a socket, too.
    """
    address = None if tcp is None else parse_address(tcp, anywhere=tcp_without_tls)
    home = home_directory()
    unlock = unlock_for(home, passphrase_file)
    log.to_stderr(level=log.level_of(log_level))

    def report(places: dict[str, Any]) -> None:
        notify.ready()
        if as_json:
            print_json(places)
        else:
            at = [f"the socket {places['socket']}", *([f"http://{places['tcp']}"] if "tcp" in places else [])]
            click.echo(f"The KMS in {home} listens at {' and '.join(at)}")

    kms_server.serve(ServeRequest(home, socket_path, address), unlock, report)
