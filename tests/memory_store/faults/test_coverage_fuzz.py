"""Bytes that a fuzzer finds its way with, in every decoder: what they hold, or an error of the store."""

from __future__ import annotations

import importlib.util
import random
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.memory_store.faults.fuzzing import PLANTED, TARGETS, made
from tests.memory_store.faults.workload import start_python

needs_atheris = pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None,
    reason="atheris is not installed: pip install -e '.[dev]' brings it, on Linux on x86-64 only",
)
_FOUND = re.compile(r"=== Uncaught Python exception: ===|ERROR: libFuzzer:|Fatal Python error")
_EXECUTED = re.compile(r"stat::number_of_executed_units: +(\d+)")
_COVERED = re.compile(r"^#\d+\t.*cov: (\d+) ft: (\d+) corp: (\d+)", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fuzzed:
    """What a run came to. num_read: inputs that were read and not refused. edges, features: as libFuzzer counts them.

    finding: what ended the run before its time; None when nothing did.
    """

    num_executions: int
    num_read: int
    edges: int
    features: int
    corpus: int
    finding: str | None


def fuzzed(target: str, folder: Path, files: Path, seconds: int = 60, seed: int = 1) -> Fuzzed:
    """Run a target in another process.

    Args:
        folder: gets the corpus and, as crash-... or timeout-..., the input that a finding is about:
            `made(target, files).check` of its bytes repeats it.
        files: empty; many files are written there.
    """
    child = start_python("fuzzing:fuzz", target=target, folder=folder, files=files, seconds=seconds, seed=seed)
    out, _ = child.communicate()
    found = _FOUND.search(out)
    finding = out[found.start() :] if found else f"ended with {child.returncode}: {out[-2000:]}"
    executed, covered = _EXECUTED.search(out), _COVERED.findall(out)
    edges, features, corpus = map(int, covered[-1] if covered else (0, 0, 0))
    num_read = (folder / "num_read").read_text() if (folder / "num_read").exists() else ""
    return Fuzzed(
        num_executions=int(executed[1]) if executed else 0,
        num_read=int(num_read or 0),
        edges=edges,
        features=features,
        corpus=corpus,
        finding=finding if found or child.returncode else None,
    )


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_reads_its_seeds_and_takes_whatever_is_mended(target: str, scratch: Path) -> None:
    fuzzed, rng, num_read = made(target, scratch), random.Random(0), 0
    assert all(map(fuzzed.check, fuzzed.seeds))
    for seed in fuzzed.seeds:
        for _ in range(50):
            start, stop = sorted(rng.randrange(len(seed) + 1) for _ in range(2))
            changed = fuzzed.mend(seed, rng), fuzzed.mend(seed[:start] + rng.randbytes(start % 9) + seed[stop:], rng)
            num_read += sum(map(fuzzed.check, set(changed) - {seed}))
    assert num_read, "some are to get past the checksums"


@needs_atheris
@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_the_fuzzer_finds_nothing(target: str, tmp_path: Path, scratch: Path) -> None:
    found = fuzzed(target, tmp_path, scratch)
    print(
        f"fuzzing, {target}: {found.num_executions:,} executions, {found.num_read:,} read and not refused, "
        f"{found.edges} edges, {found.features} features, {found.corpus} inputs kept"
    )
    assert found.finding is None, found.finding
    assert found.num_executions > 1_000 and found.num_read and found.edges


@needs_atheris
@pytest.mark.slow
@pytest.mark.parametrize("target", PLANTED)
def test_the_fuzzer_finds_a_planted_fault(target: str, tmp_path: Path, scratch: Path) -> None:
    """So that the test above can fail."""
    found = fuzzed(target, tmp_path, scratch)
    print(f"fuzzing, {target}: found after {found.num_executions:,} executions")
    assert found.finding is not None and list(tmp_path.glob("crash-*"))
