"""A disk that fills up under several committing threads: each is told, nothing is lost, and work goes on."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from memory_store import Durability, Store
from tests.memory_store.faults.children import FILLED
from tests.memory_store.faults.workload import ROOT, Held, check_stream, start_python

#: A small file system of one's own, where the kernel lets an ordinary user make one.
_ON_TMPFS = """
set -e
mount -t tmpfs -o size=6m none "$1"
head -c 2M /dev/zero > "$1/ballast"
exec "$2" -c "from tests.memory_store.faults.children import fill_up; fill_up('$1/data', 0, '$3')"
"""


@pytest.mark.parametrize("durability", Durability)
@pytest.mark.parametrize("limit", [2 << 20, (3 << 20) + 777])  # the latter ends in the middle of a page
def test_every_thread_is_told_when_no_file_may_grow_and_goes_on_after(
    tmp_path: Path, durability: Durability, limit: int
) -> None:
    child = start_python("children:fill_up", folder=tmp_path / "data", limit=limit, durability=durability)
    out, _ = child.communicate()
    assert child.returncode == 0
    counts = json.loads(out)
    print(f"disk full, {durability}, at {limit} bytes: {counts} blocks of {len(counts)} threads kept, all went on")
    assert min(counts) > 1
    with Store.open(tmp_path / "data", read_only=True) as store:
        for name, count in zip(FILLED, counts, strict=True):
            assert check_stream(store, name) == Held(generation=0, num_blocks=count + 1)


@pytest.mark.parametrize("durability", Durability)
def test_a_full_file_system_is_told_and_work_goes_on_once_there_is_room(tmp_path: Path, durability: Durability) -> None:
    inside = ["unshare", "--user", "--map-root-user", "--mount"]
    try:
        subprocess.run([*inside, "mount", "-t", "tmpfs", "none", str(tmp_path)], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"this system gives no file system of one's own: {error}")
    command = [*inside, "sh", "-c", _ON_TMPFS, "sh", str(tmp_path), sys.executable, durability]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    print(f"disk full, {durability}, a tmpfs of 6 MiB: {done.stdout.strip()} blocks kept, all went on")
