"""The passphrase on a terminal: a real one, which is the controlling terminal of a real process."""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
import sys
import termios
from typing import TYPE_CHECKING

from envfs.crypto.secret import Secret
from envfs.kms.bootstrap import init_kms
from envfs.kms.recovery_key import encode_recovery_key
from envfs.kms.rootkey import Argon2Cost
from envfs.kms.unlocking import slots_of

if TYPE_CHECKING:
    from pathlib import Path

PROGRAM = [sys.executable, "-m", "envfs.cli"]
TIMEOUT = 60


def talk(home: Path, *arguments: str, answers: dict[str, str]) -> tuple[int, str]:
    """Run `envfs` on a terminal, type an answer at each prompt, and return exit code and what the terminal showed."""
    ours, theirs = os.openpty()
    environment = os.environ | {"ENVFS_HOME": os.fspath(home), "PYTHONPATH": os.getcwd()}
    environment.pop("ENVFS_PASSPHRASE_FILE", None)
    with subprocess.Popen(
        [*PROGRAM, *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509  (no other threads here)
    ) as process:
        os.close(theirs)
        shown = ""
        waiting = list(answers.items())
        while True:
            try:
                shown += os.read(ours, 4096).decode()
            except OSError:  # EIO: the other side has closed
                break
            if waiting and waiting[0][0] in shown:
                os.write(ours, waiting.pop(0)[1].encode() + b"\n")
        code = process.wait(TIMEOUT)
    os.close(ours)
    return code, shown


def test_a_new_passphrase_is_asked_for_twice_and_never_shown(tmp_path: Path) -> None:
    answers = {"New passphrase for the KMS: ": "correct horse", "The same again: ": "correct horse"}
    code, shown = talk(tmp_path / "kms", "kms", "init", "--root-key", "passphrase", answers=answers)
    assert code == 0
    assert "correct horse" not in shown
    code, shown = talk(
        tmp_path / "kms", "key", "list", answers={"Passphrase or recovery key of the KMS: ": "correct horse"}
    )
    assert code == 0
    assert "there are no keys" in shown
    code, shown = talk(tmp_path / "kms", "key", "list", answers={"Passphrase or recovery key of the KMS: ": "wrong"})
    assert code == 3
    assert "the passphrase is wrong" in shown


def test_two_that_differ_make_nothing(tmp_path: Path) -> None:
    answers = {"New passphrase for the KMS: ": "correct horse", "The same again: ": "correct hose"}
    code, shown = talk(tmp_path / "kms", "kms", "init", "--root-key", "passphrase", answers=answers)
    assert code == 3
    assert "the two passphrases differ" in shown
    assert not (tmp_path / "kms").exists()


def test_an_interrupt_at_the_prompt_is_no_traceback(tmp_path: Path) -> None:
    code, shown = talk(
        tmp_path / "kms", "kms", "init", "--root-key", "passphrase", answers={"New passphrase for the KMS: ": "\x03"}
    )
    assert code == 130
    assert "Traceback" not in shown


def test_without_a_terminal_it_says_what_else_there_is(tmp_path: Path) -> None:
    done = subprocess.run(
        [*PROGRAM, "kms", "init", "--root-key", "passphrase"],
        env=os.environ | {"ENVFS_HOME": os.fspath(tmp_path / "kms")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        start_new_session=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert done.returncode == 3
    assert "no terminal" in done.stderr
    assert "--passphrase-file" in done.stderr


def test_a_recovery_key_is_shown_once_and_opens_the_kms_when_the_key_file_is_gone(tmp_path: Path) -> None:
    home = tmp_path / "kms"
    code, shown = talk(home, "kms", "init", answers={})
    assert code == 0
    found = re.search(r"Recovery key:  ([0-9A-Z-]{47})\r\n", shown)
    assert found is not None
    (home / "root.key").unlink()
    code, shown = talk(home, "kms", "slot", "list", answers={"Recovery key of the KMS: ": found[1].lower()})
    assert code == 0
    assert found[1] not in shown.upper()
    typo = found[1][:1].translate(str.maketrans("0123456789ABCDEFGHJKMNPQRSTVWXYZ", "123456789ABCDEFGHJKMNPQRSTVWXYZ0"))
    code, shown = talk(home, "kms", "whoami", answers={"Recovery key of the KMS: ": typo + found[1][1:]})
    assert code == 3
    assert "mistyped in group 1 of 8" in shown


def test_a_passphrase_is_changed_and_the_last_way_but_the_recovery_key_is_asked_about(tmp_path: Path) -> None:
    home, recovery, seed = tmp_path / "kms", tmp_path / "recovery", Secret(bytes(20))
    recovery.write_text(encode_recovery_key(seed))
    cheap = Argon2Cost(memory_kib=64, iterations=1, lanes=1)
    init_kms(home, root_key="passphrase", passphrase=Secret(b"first"), cost=cheap, recovery_key=seed)
    changed = {
        "Present passphrase, or recovery key: ": "first",
        "New passphrase": "second",
        "The same again: ": "second",
    }
    code, shown = talk(home, "kms", "change-passphrase", answers=changed)
    assert code == 0
    assert "first" not in shown
    assert "second" not in shown
    _, slots = slots_of(home)
    (slot,) = [one.slot_id.hex() for one in slots if one.kind == "passphrase"]
    line = ("kms", "slot", "remove", slot, "--passphrase-file", str(recovery))
    code, shown = talk(home, *line, answers={"Remove it? [y/N]: ": "n"})
    assert code != 0
    assert "Only the recovery key would open the KMS then" in shown
    assert slots_of(home)[1] == slots
