"""A library of many files, and of real clips where there are some, indexed by a command that is killed again and again.

    CACHEFLOW_CLIPS=FOLDER python -m tests.e2e.index_kills --files 300 --kills 10

Prints one JSON object: how each run ended, what was done when it was killed, and what the archive holds at the end
compared with one that nobody disturbed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from cacheflow_ray.archive.books import Books
from cacheflow_ray.archive.finding import VIDEO_SUFFIXES
from cacheflow_ray.archive.records import FileRecord, FileState
from cacheflow_ray.engine.opened import Backend
from cacheflow_ray.models import load_model
from memory_store import Store, StoreError
from tests.actors.running import FLOAT32, MODEL
from tests.actors.test_archiving import check_states
from tests.archive.library import write_library
from tests.oracles import stored

_SETTINGS = ("--model", MODEL, "--dtype", "float32", "--device", "cpu", "--fps", "4", "--tau", "0.98")
_BLOCKS = ("--block-size", "15", "--window", "3")


def clips() -> list[Path]:
    """Real videos, where there are some."""
    folder = os.environ.get("CACHEFLOW_CLIPS")
    return [path for path in sorted(Path(folder).iterdir()) if path.suffix in VIDEO_SUFFIXES] if folder else []


def command(data: Path, library: Path) -> list[str]:
    sources = [str(library), *map(str, clips())]
    here = [sys.executable, "-m", "cacheflow_ray.cli", "index", *sources, "--data", str(data)]
    return [*here, *_SETTINGS, *_BLOCKS, "--json"]


def records(data: Path) -> dict[str, FileRecord]:
    """What the books say now; nothing where there is no folder yet."""
    try:
        with Store.open(data, read_only=True) as store:
            return {record.uri: record for record in Books(store.ledger).files()}
    except StoreError:
        return {}


def killed_at(data: Path, library: Path, after_s: float) -> dict[str, Any]:
    """Start the command, and kill it with all its processes so long after it began its first file."""
    before = {uri: own.attempts for uri, own in records(data).items()}
    with subprocess.Popen(command(data, library), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as running:
        while running.poll() is None and not any(
            own.attempts > before.get(uri, 0) for uri, own in records(data).items()
        ):
            time.sleep(0.05)
        time.sleep(after_s)
        for process in _family(running):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
    states = [own.state.value for own in records(data).values()]
    return {"after_s": round(after_s, 2), "done": states.count("done"), "running": states.count("running")}


def _family(running: subprocess.Popen[bytes]) -> list[psutil.Process]:
    if running.poll() is not None:
        return []
    parent = psutil.Process(running.pid)
    return [*parent.children(recursive=True), parent]


def whole(data: Path, library: Path) -> dict[str, Any]:
    """Run the command to its end; its report."""
    run = subprocess.run(command(data, library), capture_output=True, text=True, check=False)
    if run.returncode:
        raise RuntimeError(f"it ended with {run.returncode}: {run.stderr[-2000:]}")
    report: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return report


def compared(disturbed: Path, plain: Path) -> dict[str, Any]:
    """Streams of both, by content: of two files with one, either is the one that is indexed."""
    model, by_content = load_model(MODEL, FLOAT32), []
    for data in (disturbed, plain):
        done = [own for own in records(data).values() if own.state is FileState.DONE]
        by_content.append({own.content: own.stream for own in done})
    assert by_content[0].keys() == by_content[1].keys()
    differing, kv_difference = 0, 0.0
    with Store.open(disturbed, read_only=True) as one, Store.open(plain, read_only=True) as other:
        for content, stream in by_content[0].items():
            tokens, kv = stored(Backend(model=model, store=one), stream)
            plain_tokens, plain_kv = stored(Backend(model=model, store=other), by_content[1][content])
            differing += not np.array_equal(tokens, plain_tokens)
            kv_difference = max(kv_difference, float((kv - plain_kv).abs().max()))
    return {"streams": len(by_content[0]), "streams_differing": differing, "kv_difference": kv_difference}


def repeated(before: Mapping[str, FileRecord], after: Mapping[str, FileRecord]) -> int:
    """Files that were done, and were begun again."""
    return sum(own.state is FileState.DONE and after[uri].attempts != own.attempts for uri, own in before.items())


def run(files: int, kills: int, seed: int, folder: Path) -> dict[str, Any]:
    library, rng = folder / "library", random.Random(seed)
    expected = {**write_library(library, files), **dict.fromkeys(clips(), FileState.DONE)}
    again, moments = 0, []
    for _ in range(kills):
        before = records(folder / "killed")
        moments.append(killed_at(folder / "killed", library, rng.uniform(0.0, 2.5)))
        again += repeated(before, records(folder / "killed"))
    before = records(folder / "killed")
    report = whole(folder / "killed", library)
    after = records(folder / "killed")
    again += repeated(before, after)
    check_states(expected, after)
    undisturbed = whole(folder / "plain", library)
    check_states(expected, records(folder / "plain"))
    return {
        "files": report["files"],
        "kills": moments,
        "finished_work_repeated": again,
        **compared(folder / "killed", folder / "plain"),
        "undisturbed": {
            name: undisturbed[name]
            for name in ("files", "busy_s", "frames_per_s", "video_hours_per_hour", "decode_utilisation",
                         "encode_utilisation")
        },
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--files", type=int, default=300)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(run(given.files, given.kills, given.seed, Path(folder))))


if __name__ == "__main__":
    main()
