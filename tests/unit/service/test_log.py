from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from envfs.service import log

PROGRAM = """\
import logging, os, sys
from pathlib import Path
from envfs.service import log
os.umask(0)
log._MAX_BYTES = 2000
log.to_file(Path(sys.argv[1]))
for number in range(400):
    logging.getLogger("envfs").info("line %d", number)
os.write(2, b"after the last rotation\\n")
"""


def test_the_log_rotates_and_standard_error_follows(tmp_path: Path) -> None:
    path = tmp_path / "log/vault.log"
    subprocess.run([sys.executable, "-c", PROGRAM, path], timeout=60, check=True)
    names = sorted(os.listdir(path.parent))
    assert names == ["vault.log", "vault.log.1", "vault.log.2", "vault.log.3"]
    assert "after the last rotation" in path.read_text()
    for name in names:
        found = (path.parent / name).stat()
        assert found.st_mode & 0o777 == 0o600
        assert found.st_size <= 2100


def test_a_symlink_in_the_place_of_the_log_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    (tmp_path / "log/vault.log").symlink_to(tmp_path / "elsewhere")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, tmp_path / "log/vault.log"], capture_output=True, timeout=60, check=False
    )
    assert done.returncode != 0
    assert not (tmp_path / "elsewhere").exists()


def test_each_mountpoint_has_a_log_of_its_own_whatever_its_name(tmp_path: Path) -> None:
    names = ["/srv/vault", "/srv2/vault", "/srv/a\nb", "/srv/ümläut", "/" + "x" * 255, "/"]
    paths = [log.log_path(tmp_path, Path(name)) for name in names]
    assert len(set(paths)) == len(names)
    assert paths[0].name.startswith("vault-")
    for path in paths:
        assert path.parent == tmp_path / "log"
        assert re.fullmatch(r"[\w.-]{1,80}\.log", path.name, re.ASCII)


def test_warnings_reach_syslog_and_the_rest_does_not(tmp_path: Path) -> None:
    import socket

    path = tmp_path / "syslog"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as daemon:
        daemon.bind(os.fspath(path))
        daemon.settimeout(30)
        program = (
            "import logging, sys\nfrom pathlib import Path\nfrom envfs.service import log\n"
            "log._SYSLOG = sys.argv[2]\nlog.to_file(Path(sys.argv[1]))\n"
            "logging.getLogger('envfs.fs').info('quiet')\nlogging.getLogger('envfs.fs').error('tampering')\n"
        )
        subprocess.run([sys.executable, "-c", program, tmp_path / "log/a.log", path], timeout=60, check=True)
        message = daemon.recv(4096)
    assert b"tampering" in message
    assert b"<27>envfs[" in message  # facility daemon (3 · 8) and severity error (3), RFC 5424 section 6.2.1


def test_nobody_forges_a_line(tmp_path: Path) -> None:
    path = tmp_path / "log/a.log"
    program = (
        "import logging, sys\nfrom pathlib import Path\nfrom envfs.service import log\nlog.to_file(Path(sys.argv[1]))\n"
        "logging.getLogger('envfs.fs').warning('%s', '/a\\n2026-01-01 ERROR envfs: all is lost\\x1b[31m\\udcff')\n"
    )
    subprocess.run([sys.executable, "-c", program, path], timeout=60, check=True)
    (line,) = path.read_text().splitlines()
    assert line.endswith(r"WARNING envfs.fs: /a\n2026-01-01 ERROR envfs: all is lost\x1b[31m\udcff")


def test_nobody_forges_a_line_by_what_a_traceback_shows(tmp_path: Path) -> None:
    path = tmp_path / "log/a.log"
    program = (
        "import logging, sys\nfrom pathlib import Path\nfrom envfs.service import log\nlog.to_file(Path(sys.argv[1]))\n"
        "try:\n    raise ValueError('/a\\n2026-01-01 ERROR envfs: all is lost\\x1b[31m was cut')\n"
        "except ValueError:\n    logging.getLogger('envfs.fs').exception('a header could not be written')\n"
    )
    subprocess.run([sys.executable, "-c", program, path], timeout=60, check=True)
    first, *rest = path.read_text().splitlines()
    assert first.endswith("ERROR envfs.fs: a header could not be written")
    assert "Traceback" in rest[0]
    assert any("all is lost" in line for line in rest)
    assert all(line.startswith("  ") and line.isprintable() for line in rest)


@pytest.mark.parametrize(("level", "expected"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)])
def test_levels_choose_what_is_logged(level: str, expected: int, tmp_path: Path) -> None:
    path = tmp_path / "log/a.log"
    program = (
        "import logging, sys\nfrom pathlib import Path\nfrom envfs.service import log\n"
        "log.to_file(Path(sys.argv[1]), level=log.level_of(sys.argv[2]))\n"
        "for one in (10, 20, 30, 40): logging.getLogger('envfs').log(one, 'said')\n"
    )
    subprocess.run([sys.executable, "-c", program, path, level], timeout=60, check=True)
    assert len(path.read_text().splitlines()) == expected
