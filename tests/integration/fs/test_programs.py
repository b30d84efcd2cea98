"""Programs that people run in a mount, unchanged."""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.integration.fs.conftest import run

if TYPE_CHECKING:
    from tests.integration.mounts import Mount

GIT = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_SYSTEM": "/dev/null",
    "GIT_AUTHOR_NAME": "A",
    "GIT_AUTHOR_EMAIL": "a@example.org",
    "GIT_COMMITTER_NAME": "A",
    "GIT_COMMITTER_EMAIL": "a@example.org",
    "GIT_TERMINAL_PROMPT": "0",
}


def needs(*programs: str) -> None:
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"needs {program}")


def inventory(top: Path) -> dict[str, tuple[object, ...]]:
    """Everything below a directory: kind and mode, times of files in nanoseconds, links, and content."""
    found: dict[str, tuple[object, ...]] = {}
    links: dict[int, str] = {}
    for directory, directories, names in os.walk(top):
        for name in sorted(directories + names):
            path = Path(directory, name)
            relative = str(path.relative_to(top))
            status = path.lstat()
            facts: tuple[object, ...] = (status.st_mode,)
            if path.is_symlink():
                facts += (os.readlink(path),)
            elif path.is_file():
                first = links.setdefault(status.st_ino, relative) if status.st_nlink > 1 else relative
                facts += (status.st_mtime_ns, status.st_nlink, first, status.st_size)
                facts += (hashlib.sha256(path.read_bytes()).hexdigest(),)
            found[relative] = facts
    return found


def test_tar_brings_a_source_tree_in_and_out_byte_for_byte(mount: Mount, tree: Path, tmp_path: Path) -> None:
    expected = inventory(tree)
    archive, out = tmp_path / "tree.tar", tmp_path / "out"
    run("tar", "--format=posix", "-cf", archive, "-C", tree, ".")
    (mount.path / "library").mkdir()
    run("tar", "-xpf", archive, "-C", mount.path / "library")
    assert inventory(mount.path / "library") == expected
    mount.remount()
    assert inventory(mount.path / "library") == expected
    run("diff", "-r", "--no-dereference", tree, mount.path / "library")
    out.mkdir()
    run("tar", "--format=posix", "-cf", tmp_path / "back.tar", "-C", mount.path / "library", ".")
    run("tar", "-xpf", tmp_path / "back.tar", "-C", out)
    assert inventory(out) == expected
    run("rm", "-rf", mount.path / "library")
    assert os.listdir(mount.path) == []
    mount.umount()
    kept = {"envfs.dir", "envfs.volume", "envfs.volume.backup", "envfs.undo"}
    assert set(os.listdir(mount.lower)) - {"envfs.journal"} == kept


def test_rsync_finds_nothing_to_do_the_second_time(mount: Mount, tree: Path) -> None:
    needs("rsync")
    command = ("rsync", "-aHX", "--checksum", "--itemize-changes", f"{tree}/", f"{mount.path}/copy/")
    assert run(*command).count("\n") > 500
    assert inventory(mount.path / "copy") == inventory(tree)
    assert run(*command) == ""
    mount.remount()
    assert run(*command) == ""


def test_git_in_its_daily_life(mount: Mount, tmp_path: Path, tree: Path) -> None:
    needs("git")

    def git(*arguments: str | Path) -> str:
        return run("git", *arguments, env=GIT)

    origin = tmp_path / "origin"
    git("init", "-q", "-b", "main", origin)
    shutil.copytree(tree / "email", origin / "email")
    (origin / "run").write_text("#!/bin/sh\n")
    (origin / "run").chmod(0o755)
    (origin / "link").symlink_to("run")
    git("-C", origin, "add", ".")
    git("-C", origin, "commit", "-q", "-m", "first")

    work = mount.path / "work"
    git("clone", "-q", "--no-hardlinks", origin, work)
    assert git("-C", work, "status", "--porcelain") == ""
    for number in range(5):
        (work / f"file{number}").write_text(f"{number}\n" * 1000)
        git("-C", work, "add", ".")
        git("-C", work, "commit", "-q", "-m", f"commit {number}")
    git("-C", work, "checkout", "-q", "-b", "side", "HEAD~3")
    (work / "run").write_text("#!/bin/sh\necho side\n")
    git("-C", work, "commit", "-q", "-a", "-m", "side")
    git("-C", work, "merge", "-q", "-m", "merged", "main")
    git("-C", work, "mv", "email", "mail")
    git("-C", work, "commit", "-q", "-m", "moved")
    git("-C", work, "stash", "list")
    head = git("-C", work, "rev-parse", "HEAD")
    git("-C", work, "gc", "-q", "--prune=now")
    git("-C", work, "fsck", "--strict")
    mount.remount()
    git("-C", work, "fsck", "--strict")
    assert git("-C", work, "rev-parse", "HEAD") == head
    assert git("-C", work, "status", "--porcelain") == ""
    git("-C", origin, "fetch", "-q", work, "side:side")
    assert git("-C", origin, "rev-parse", "side") == head


@pytest.mark.parametrize("mode", ["DELETE", "TRUNCATE", "WAL"])
def test_sqlite(mount: Mount, mode: str) -> None:
    path = mount.path / "test.db"
    rows = [(number, hashlib.sha256(str(number).encode()).hexdigest() * 10) for number in range(2000)]
    with closing(sqlite3.connect(path)) as database:
        assert database.execute(f"PRAGMA journal_mode={mode}").fetchone()[0].upper() == mode
        database.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, text TEXT)")
        with database:
            database.executemany("INSERT INTO t VALUES (?, ?)", rows)
        with closing(sqlite3.connect(path)) as other:  # locks and shared memory
            assert other.execute("SELECT count(*) FROM t").fetchone() == (2000,)
            with other:
                other.execute("DELETE FROM t WHERE id % 3 = 0")
        with database:
            database.execute("UPDATE t SET text = text || 'x' WHERE id % 5 = 0")
        database.execute("VACUUM")
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        rolled_back = database.execute("SELECT sum(length(text)) FROM t").fetchone()
        database.execute("BEGIN")
        database.execute("DELETE FROM t")
        database.rollback()
        expected = database.execute("SELECT * FROM t").fetchall()
        assert database.execute("SELECT sum(length(text)) FROM t").fetchone() == rolled_back
    mount.remount()
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert database.execute("SELECT * FROM t").fetchall() == expected


def test_a_c_project_is_configured_built_and_run(mount: Mount) -> None:
    needs("gcc", "make")
    project = mount.path / "project"
    project.mkdir()
    functions = 12
    for number in range(functions):
        (project / f"part{number}.c").write_text(
            f'#include "all.h"\nint part{number}(int x) {{ return x + {number}; }}\n'
        )
    (project / "main.c").write_text(
        '#include <stdio.h>\n#include "all.h"\nint main(void) { int x = 0;\n'
        + "".join(f"x = part{number}(x);\n" for number in range(functions))
        + 'printf("%d %s\\n", x, GREETING); return 0; }\n'
    )
    (project / "configure").write_text(
        "#!/bin/sh -e\n"
        "echo 'int main(void) { return 0; }' > conftest.c\n"
        "${CC:-gcc} conftest.c -o conftest && ./conftest\n"
        "rm -f conftest conftest.c\n"
        '{ echo "#define GREETING \\"hello\\""; '
        'for n in $(seq 0 11); do echo "int part$n(int);"; done; } > all.h.new\n'
        "mv all.h.new all.h\n"
    )
    (project / "configure").chmod(0o755)
    (project / "Makefile").write_text(
        "objects = main.o $(patsubst %,part%.o,0 1 2 3 4 5 6 7 8 9 10 11)\n"
        "program: $(objects)\n\tgcc -o $@ $^\n"
        "%.o: %.c all.h\n\tgcc -g -c -o $@ $<\n"
        "libparts.a: $(objects)\n\tar rcs $@ $^\n"
    )
    run("./configure", cwd=project)
    run("make", "-s", "-j2", "-C", project, "program", "libparts.a")
    assert run(project / "program") == "66 hello\n"
    assert "up to date" in run("make", "-C", project, "program")  # times are what make needs them to be
    mount.remount()
    assert run(project / "program") == "66 hello\n"
    assert "up to date" in run("make", "-C", project, "program")
    os.utime(project / "part3.c")
    rebuilt = run("make", "-C", project, "program")
    assert rebuilt.count(" -c ") == 1
    assert "part3.o" in rebuilt


def test_a_program_can_be_replaced_while_it_runs(mount: Mount) -> None:
    """ETXTBSY and mapped pages are the kernel's; the inode must outlive its name."""
    program = mount.path / "sleep"
    shutil.copy2("/bin/cat", program)
    with subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as running:
        assert running.stdin is not None
        assert running.stdout is not None
        running.stdin.write(b"before\n")
        running.stdin.flush()
        assert running.stdout.readline() == b"before\n"
        shutil.copy2("/bin/cat", mount.path / "new")
        os.rename(mount.path / "new", program)
        running.stdin.write(b"after\n")
        running.stdin.close()
        assert running.stdout.read() == b"after\n"
        assert running.wait(30) == 0


def test_the_usual_small_tools(mount: Mount) -> None:
    path = mount.path / "text"
    path.write_text("b\na\nc\n" * 1000)
    run("sed", "-i", "s/a/x/", path)
    assert path.read_text() == "b\nx\nc\n" * 1000
    run("sort", "-o", path, path)
    assert path.read_text() == "b\n" * 1000 + "c\n" * 1000 + "x\n" * 1000
    run("cp", "-a", path, mount.path / "copy")
    run("cmp", path, mount.path / "copy")
    run("gzip", mount.path / "copy")
    run("gzip", "-t", mount.path / "copy.gz")
    run("dd", f"if={path}", f"of={mount.path}/dd", "bs=777", "conv=sparse,fsync")
    run("cmp", path, mount.path / "dd")
    run("truncate", "-s", "1G", mount.path / "big")
    run("fallocate", "-l", "100000", mount.path / "allocated", status=1)  # EOPNOTSUPP, and glibc's emulation works:
    fd = os.open(mount.path / "allocated", os.O_RDWR | os.O_CREAT)
    os.posix_fallocate(fd, 0, 100_000)
    os.close(fd)
    assert (mount.path / "allocated").stat().st_size == 100_000
    assert run("find", mount.path, "-newer", "/proc/1", "-name", "copy*").endswith("copy.gz\n")
    assert run("du", "-s", "--apparent-size", "-B1M", mount.path / "big").split()[0] == "1024"
    assert int(run("du", "-s", "-B1K", mount.path / "big").split()[0]) < 100
