"""Random operations through real mounts against a model: the short form of scripts/fsx."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.integration.command import REPOSITORY
from tests.integration.posix.fsx import KINDS, LARGEST, Exerciser, Step

if TYPE_CHECKING:
    from tests.integration.mounts import Mount

STEPS = st.builds(
    Step,
    kind=st.sampled_from([kind for kind in KINDS if kind != "remount now and then"]),
    handle=st.integers(0, 1),
    offset=st.integers(0, LARGEST) | st.sampled_from([4095, 4096, 16_383, 16_384, 65_535, 65_536, 131_072]),
    length=st.integers(1, 150_000) | st.sampled_from([1, 4096, 16_384, 65_536]),
    seed=st.integers(0, 255),
)


@pytest.mark.parametrize("mount_options", ["", "nowriteback"])
def test_random_operations(shared: Mount) -> None:
    @settings(max_examples=25, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
    @given(steps=st.lists(STEPS, min_size=10, max_size=40))
    def run(steps: list[Step]) -> None:
        directory = Path(tempfile.mkdtemp(dir=shared.path))
        exerciser = Exerciser(directory)
        try:
            for step in steps:
                exerciser.apply(step)
            exerciser.check()
        finally:
            exerciser.close()
            shutil.rmtree(directory)

    run()


def test_several_processes_on_ranges_of_their_own(here: Path, shared: Mount) -> None:
    """Blocks are shared at the edges of the ranges, pages are not."""
    path, share = here / "f", 5 * 4096
    path.touch()
    os.truncate(path, 6 * share)
    script = (
        "import os, random, sys\n"
        "fd, start, rng = os.open(sys.argv[1], os.O_RDWR), int(sys.argv[2]), random.Random(sys.argv[2])\n"
        f"model = bytearray({share})\n"
        "for _ in range(150):\n"
        f"    at = rng.randrange({share}); data = rng.randbytes(rng.randrange(1, {share} - at + 1))\n"
        "    os.pwrite(fd, data, start + at); model[at:at + len(data)] = data\n"
        "    if rng.random() < 0.1: os.fsync(fd)\n"
        f"    assert os.pread(fd, {share}, start) == model\n"
        "sys.stdout.buffer.write(model)\n"
    )
    workers = [
        subprocess.Popen([sys.executable, "-c", script, path, str(n * share)], cwd=REPOSITORY, stdout=subprocess.PIPE)
        for n in range(6)
    ]
    model = b"".join(worker.communicate(timeout=120)[0] for worker in workers)
    assert [worker.returncode for worker in workers] == [0] * 6
    shared.remount()
    assert path.read_bytes() == model
