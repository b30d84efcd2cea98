"""`envfs`: the root of the command line. Loads only the command that runs, so that every one starts quickly."""

from __future__ import annotations

import importlib
import os
import sys

import click

from envfs.cli.exit_codes import MEANINGS, ExitCode, exit_code
from envfs.cli.output import examples, print_error
from envfs.errors import EnvfsError

# name → module, its attribute, and the first line of its help, which `envfs --help` shows without loading it (a test
# compares the two)
COMMANDS = {
    "init": ("envfs.cli.volume", "init", "Make an encrypted volume in LOWER."),
    "mount": ("envfs.cli.mount", "mount", "Mount the volume in LOWER at MOUNTPOINT."),
    "umount": ("envfs.cli.umount", "umount", "Unmount what is mounted at MOUNTPOINT."),
    "status": ("envfs.cli.status", "status", "Show the mounts, or one of them in detail."),
    "kms": ("envfs.cli.kms", "kms", "Make the key management service (KMS)."),
    "key": ("envfs.cli.key", "key", "Make and manage customer master keys (CMKs)."),
    "dir": ("envfs.cli.directory", "directory", "Choose and show the key of a directory."),
    "file": ("envfs.cli.file", "file", "Show what a file's header says."),
    "fsck": (
        "envfs.cli.fsck",
        "fsck",
        "Check the volume in LOWER, and repair it.",
    ),
    "explain": ("envfs.cli.explain", "explain", "Say whether a user may open PATH, and which statement decides."),
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  (click's signature)
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, _, summary) in COMMANDS.items()])


_EXAMPLE = examples(
    "envfs init ~/vault.enc", "mkdir ~/vault", "envfs mount ~/vault.enc ~/vault", "envfs umount ~/vault"
)
_EXIT_CODES = "\b\nExit codes:\n" + "\n".join(f"  {code:>3}  {meaning}" for code, meaning in MEANINGS.items())


@click.group(
    cls=LazyGroup, epilog=f"{_EXAMPLE}\n\n{_EXIT_CODES}", context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(package_name="envfs", prog_name="envfs")
def envfs() -> None:
    """An encrypted directory, mounted, with a key management service that decides who reads.

    The environment variable ENVFS_HOME names the directory of the KMS; without it that is /var/lib/envfs for root and
    ~/.local/share/envfs for everybody else.
    """


def run(arguments: list[str], command: click.Command = envfs, name: str = "envfs") -> int:
    """Run one command line and return its exit code. Errors that are meant for people never end in a traceback."""
    try:
        result = command.main(arguments, prog_name=name, standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        return ExitCode.USAGE
    except (click.Abort, KeyboardInterrupt):
        click.echo("envfs: interrupted", err=True)
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has gone; let the interpreter's last flush go nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.SYSTEM
    except (EnvfsError, OSError) as error:
        print_error(error)
        return exit_code(error)
    return int(result) if isinstance(result, int) else ExitCode.OK


def main() -> None:
    """The program `envfs`."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
