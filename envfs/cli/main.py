"""`envfs`: the root of the command line. Loads only the command that runs, so that every one starts quickly."""

from __future__ import annotations

import os
import sys

import click

from envfs.cli.exit_codes import MEANINGS, ExitCode, exit_code
from envfs.cli.lazy import Lazy, LazyGroup
from envfs.cli.output import examples, print_error
from envfs.errors import DryRunOperation, EnvfsError

COMMANDS = {
    "init": Lazy("envfs.cli.volume", "init", "Make an encrypted volume in LOWER."),
    "mount": Lazy("envfs.cli.mount", "mount", "Mount the volume in LOWER at MOUNTPOINT."),
    "umount": Lazy("envfs.cli.umount", "umount", "Unmount what is mounted at MOUNTPOINT."),
    "lock": Lazy("envfs.cli.locking", "lock", "Wipe a mount's keys from memory, and refuse everything until unlock."),
    "unlock": Lazy("envfs.cli.locking", "unlock", "Open a mount again that was locked."),
    "status": Lazy("envfs.cli.status", "status", "Show the mounts, or one of them in detail."),
    "top": Lazy(
        "envfs.cli.top", "top", "Show what the mounts are doing, or one of them: operations, users, throughput, caches."
    ),
    "kms": Lazy("envfs.cli.kms", "kms", "Make, check and serve the key management service (KMS), and use its keys."),
    "key": Lazy("envfs.cli.key", "key", "Make and manage customer master keys (CMKs)."),
    "access": Lazy("envfs.cli.access", "access", "Give and take access for users and groups, and see who has it."),
    "grant": Lazy("envfs.cli.grant", "grant", "Let somebody use a key, without touching its policy."),
    "iam": Lazy("envfs.cli.iam", "iam", "Policies and access keys of users and groups."),
    "audit": Lazy("envfs.cli.audit", "audit", "Show and check what was asked of the KMS."),
    "dir": Lazy("envfs.cli.directory", "directory", "Choose and show the key and the labels of a directory."),
    "file": Lazy("envfs.cli.file", "file", "Show what a file's header says."),
    "import": Lazy("envfs.cli.transfer", "import_tree", "Copy the tree SRC into DST, a directory in a mount."),
    "export": Lazy("envfs.cli.transfer", "export_tree", "Copy SRC, a directory in a mount, to the plaintext tree DST."),
    "cat": Lazy(
        "envfs.cli.lower_content",
        "cat",
        "Print LOWERFILE, a file in a lower directory, without a mount.",
    ),
    "decrypt": Lazy("envfs.cli.lower_content", "decrypt", "Decrypt LOWERFILE to F, without a mount."),
    "rewrap": Lazy(
        "envfs.cli.rewrap", "rewrap", "Put the data keys of files under another CMK, or the newest material of theirs."
    ),
    "rekey": Lazy("envfs.cli.rewrap", "rekey", "Give files new data keys, and encrypt their content anew."),
    "fsck": Lazy("envfs.cli.fsck", "fsck", "Check the volume in LOWER, and repair it."),
    "completion": Lazy("envfs.cli.completion", "completion", "Print the script that completes command lines in SHELL."),
    "explain": Lazy("envfs.cli.explain", "explain", "Say whether a user may open PATH, and what decides."),
}

_EXAMPLE = examples(
    "envfs init ~/vault.enc", "mkdir ~/vault", "envfs mount ~/vault.enc ~/vault", "envfs umount ~/vault"
)
_EXIT_CODES = "\b\nExit codes:\n" + "\n".join(f"  {code:>3}  {meaning}" for code, meaning in MEANINGS.items())


@click.group(
    cls=LazyGroup,
    table=COMMANDS,
    epilog=f"{_EXAMPLE}\n\n{_EXIT_CODES}",
    context_settings={"help_option_names": ["-h", "--help"]},
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
    except DryRunOperation:  # nobody but `--dry-run` asks for it, and it says that all checks were passed
        click.echo("it would have succeeded")
        return ExitCode.OK
    except (EnvfsError, OSError) as error:
        print_error(error)
        return exit_code(error)
    return int(result) if isinstance(result, int) else ExitCode.OK


def main() -> None:
    """The program `envfs`."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
