"""The `envfs` command as a user calls it, in a process of its own, also for users who cannot reach this checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.users import UnixUser, run_as_user

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

REPOSITORY = Path(__file__).resolve().parents[2]
LAUNCHER = """\
import sys
sys.path[:0] = {path!r}
from envfs.cli.main import main
main()
"""
# Large, and no part of a running envfs.
_LEFT_BEHIND = shutil.ignore_patterns(
    *("mypy*", "*mypyc*", "ruff*", "pip*", "setuptools*", "hypothesis*", "Cython*", "cython*", "_pytest", "pytest*"),
    *("grimp*", "importlinter", "import_linter*", "*.c", "__pycache__", "__editable__*", "*.pth"),
)


class Envfs:
    """Calling it runs `envfs` with these arguments, as `user`, with that user's ENVFS_HOME."""

    def __init__(self, argv: list[str], home_of: Callable[[UnixUser | None], Path]) -> None:
        self.argv = argv
        self._home_of = home_of

    def __call__(
        self,
        *arguments: str | Path,
        user: UnixUser | None = None,
        home: Path | None = None,
        check: bool = True,
        **options: Any,
    ) -> subprocess.CompletedProcess[str]:
        runner = user or UnixUser.current()
        environment = runner.environment() | {"ENVFS_HOME": str(home or self._home_of(user))}
        environment |= options.pop("env", {})
        done: subprocess.CompletedProcess[str]
        done = run_as_user(runner, [*self.argv, *arguments], env=environment, **options)
        if check and done.returncode != 0:
            pytest.fail(
                f"envfs {' '.join(map(str, arguments))}: exit status {done.returncode}\n{done.stdout}{done.stderr}"
            )
        return done


def find_command(scratch: Path) -> list[str]:
    """How every user can run envfs: the installed command, or a copy in `scratch` where that is out of reach."""
    installed = [sys.executable, "-P", "-c", LAUNCHER.format(path=[str(REPOSITORY)])]
    script = Path(sys.executable).parent / "envfs"
    if script.exists():
        installed = [str(script)]
    if os.getuid() != 0 or _works_for_everybody(installed):
        return installed
    site, code = scratch / "site-packages", scratch / "code"
    shutil.copytree(Path(pytest.__file__).parents[1], site, ignore=_LEFT_BEHIND)
    shutil.copytree(REPOSITORY / "envfs", code / "envfs", ignore=shutil.ignore_patterns("__pycache__"))
    launcher = scratch / "envfs.py"
    launcher.write_text(LAUNCHER.format(path=[str(code), str(site)]))
    for python in _interpreters():
        if _works_for_everybody([python, "-I", str(launcher)]):
            return [python, "-I", str(launcher)]
    return pytest.fail(
        f"no Python {sys.version_info.major}.{sys.version_info.minor} that other users can run: see scripts/test"
    )


def _interpreters() -> Iterator[str]:
    yield os.path.realpath(sys.executable)
    for directory in ("/usr/bin", "/usr/local/bin"):
        python = f"{directory}/python{sys.version_info.major}.{sys.version_info.minor}"
        if Path(python).exists():
            yield python


def _works_for_everybody(argv: list[str]) -> bool:
    try:
        done: subprocess.CompletedProcess[str] = run_as_user(UnixUser.nobody(), [*argv, "--help"])
    except PermissionError:
        return False
    return done.returncode == 0
