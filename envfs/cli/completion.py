"""`envfs completion`: what a shell has to know to complete command lines of envfs."""

from __future__ import annotations

import importlib

import click

from envfs.cli.output import examples

_VARIABLE = "_ENVFS_COMPLETE"  # the shell's function asks by this variable what there is


@click.command(
    epilog=examples(
        "envfs completion bash",
        "envfs completion zsh",
        "envfs completion fish",
    )
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script that completes command lines in SHELL.

    \b
    For one user, in the shell's own file of settings:
      bash   eval "$(envfs completion bash)"      in ~/.bashrc
      zsh    eval "$(envfs completion zsh)"       in ~/.zshrc
      fish   envfs completion fish | source       in ~/.config/fish/config.fish
    scripts/install-system puts them where all users have them.
    """  # noqa: D301  (the backspace is meant: it keeps click from rewrapping)
    # Loaded when it is needed: asking for a completion is a start of envfs itself, and has to be quick.
    module = importlib.import_module("click.shell_completion")
    made = module.get_completion_class(shell)(click.Group("envfs"), {}, "envfs", _VARIABLE)
    source = made.source_template % made.source_vars()  # not source(): that demands the shell itself, for its version
    click.echo(source)
