"""Completions for shells, manual pages, and units of systemd: what surrounds the command line."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from envfs.cli.lazy import LazyGroup
from envfs.cli.main import COMMANDS, envfs
from envfs.cli.manual import pages
from envfs.service import notify
from tests.conftest import NOT_HERE

if TYPE_CHECKING:
    from tests.cli.conftest import CommandLine

REPOSITORY = Path(__file__).resolve().parents[2]
UNITS = sorted((REPOSITORY / "scripts/systemd").iterdir())
PAGES = dict(pages())


def completed(*words: str) -> list[str]:
    """What bash is told when TAB is typed after these words, by a start of envfs of its own."""
    script = "import sys; sys.path[:0] = {!r}; from envfs.cli.main import envfs; envfs(prog_name='envfs')"
    environment = os.environ | {
        "_ENVFS_COMPLETE": "bash_complete",
        "COMP_WORDS": " ".join(("envfs", *words)),
        "COMP_CWORD": str(len(words)),
    }
    done = subprocess.run(
        [sys.executable, "-c", script.format([str(REPOSITORY)])],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return [line.partition(",")[2] for line in done.stdout.splitlines()]


def test_tab_completes_commands_and_options() -> None:
    assert completed("au") == ["audit"]
    assert completed("audit", "ver") == ["verify"]
    assert "--passphrase-file" in completed("audit", "verify", "--")
    assert completed("completion", "f") == ["fish"]


def test_asking_for_a_completion_loads_no_command() -> None:
    script = (
        "import sys, click; from envfs.cli.main import envfs;"
        "found = envfs.shell_complete(click.Context(envfs), 'm');"
        "print([one.value for one in found], [name for name in sys.modules if name == 'envfs.cli.mount'])"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['mount'] []"


@pytest.mark.parametrize(("shell", "mark"), [("bash", "complete "), ("zsh", "#compdef envfs"), ("fish", "complete ")])
def test_each_shell_has_a_script(shell: str, mark: str, envfs: CommandLine) -> None:
    answer = envfs("completion", shell)
    assert answer.code == 0
    assert mark in answer.out
    assert f"_ENVFS_COMPLETE={shell}_complete" in answer.out
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=answer.out, text=True, check=True, timeout=60)


def test_bash_takes_the_script_and_knows_envfs(envfs: CommandLine) -> None:
    done = subprocess.run(
        ["bash", "-c", 'eval "$(cat)"; complete -p envfs'],
        input=envfs("completion bash").out,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "_envfs_completion" in done.stdout


def test_every_command_has_a_manual_page() -> None:
    assert {f"envfs-{name}.1" for name in COMMANDS} <= set(PAGES)
    groups = [name for name in COMMANDS if isinstance(envfs.get_command(None, name), LazyGroup)]  # type: ignore[arg-type]
    assert groups
    for name in groups:
        assert any(page.startswith(f"envfs-{name}-") for page in PAGES), name


@pytest.mark.parametrize("name", ["envfs.1", "envfs-mount.1", "envfs-audit-query.1"])
def test_a_page_has_the_sections_that_man_pages_have(name: str) -> None:
    text = PAGES[name]
    for section in ("NAME", "SYNOPSIS", "OPTIONS", "EXIT STATUS"):
        assert f"\n.SH {section}\n" in text
    assert text.isascii()
    assert "--" not in text.replace("\\-\\-", "").replace(".SH", ""), "dashes that can be copied"


def test_no_page_has_a_line_that_roff_takes_for_a_command() -> None:
    known = {".TH", ".SH", ".PP", ".TP", ".nf", ".fi", ".BR"}
    for name, text in PAGES.items():
        commands = {line.split()[0] for line in text.splitlines() if line.startswith((".", "'"))}
        assert commands <= known, name


def test_groff_has_nothing_to_say() -> None:
    if shutil.which("groff") is None:
        pytest.skip("needs groff")
    for name in ("envfs.1", "envfs-mount.1", "envfs-audit-export.1", "envfs-kms-init.1"):
        done = subprocess.run(
            ["groff", "-man", "-ww", "-Tutf8"],
            input=PAGES[name],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert done.stderr == "", name


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_systemd_understands_the_unit(unit: Path, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip(f"{NOT_HERE}no systemd-analyze")
    copy = tmp_path / unit.name
    copy.write_text(unit.read_text().replace("/usr/local/bin/envfs", "/bin/true"))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", copy],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    own = [line for line in done.stderr.splitlines() if unit.name.partition(".")[0].rstrip("@") in line]
    assert (done.returncode, own) == (0, [])


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_units_that_hold_keys_keep_them_off_disks(unit: Path) -> None:
    text = unit.read_text()
    if "kms serve" in text or "mount --foreground" in text:
        for line in ("NoNewPrivileges=yes", "MemorySwapMax=0", "LimitCORE=0"):
            assert f"\n{line}\n" in text


def test_systemd_is_told_when_a_service_is_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for address, name in (
        (str(tmp_path / "socket"),) * 2,
        (f"@envfs-test-{os.getpid()}", f"\0envfs-test-{os.getpid()}"),
    ):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind(name)
            manager.settimeout(10)
            monkeypatch.setenv("NOTIFY_SOCKET", address)
            notify.ready()
            assert manager.recv(100) == b"READY=1"


@pytest.mark.parametrize("address", ["", "relative", "/nonexistent/socket"])
def test_without_a_manager_nothing_is_told_and_nothing_fails(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    notify.ready()
